"""R15: what is exported computes what was trained.

To the bit where transformers and PEFT trained it; the fast implementation adds in another order.

Compared are the logits of the network in the training process, with the best epoch taken back,
and those of transformers and PEFT themselves on the exported folder.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from lorastudy.run import execute
from lorastudy.run.export import export_run
from lorastudy.store.folders import RunFolder
from support.reliability_rows import Row
from support.tiny_runs import SOUND, Case, make_study, write_texts

HEAD = {"placement": ("attention", "feed-forward", "output"), "allow_tied": True}
ARMS = {"lora": {}, "lora with lm_head": HEAD}
TOKENS = torch.arange(240).reshape(5, 48)


@torch.no_grad()
def logits_of(network: torch.nn.Module) -> Tensor:
    logits: Tensor = network.eval()(input_ids=TOKENS, use_cache=False).logits
    return logits


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)


@pytest.mark.filterwarnings("ignore:.*(tie|fan_in_fan_out)")  # PEFT of a tied head and of Conv1D
@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_r15_an_exported_adapter_has_the_logits_of_training(
    tiny_gpt2: Path, tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, worst, merged, trained = Row("R15"), 0.0, 0.0, []
    restore = execute.restore_best

    def restore_and_look(setup: Any, folder: RunFolder) -> None:
        restore(setup, folder)
        trained.append(logits_of(setup.model.network))

    monkeypatch.setattr(execute, "restore_best", restore_and_look)
    training = {**SOUND, "implementation": implementation}
    for name, changes in ARMS.items():
        study = make_study(tiny_gpt2, training)
        place = tmp_path / name.replace(" ", "-")
        case = Case(study, write_texts(place / "texts"), place / "cache").with_arm(**changes)
        run = case.folder(place, "run")
        case.execute(run)
        for is_merged in (False, True):
            to = place / f"merged-{is_merged}"
            export_run(case.spec, run, case.reader, to, is_merged=is_merged, card="")
        adapter = PeftModel.from_pretrained(load(tiny_gpt2), str(place / "merged-False"))
        assert not torch.equal(trained[-1], logits_of(load(tiny_gpt2)))  # it did train
        worst = max(worst, float((logits_of(adapter) - trained[-1]).abs().max()))
        whole = logits_of(load(place / "merged-True"))
        merged = max(merged, float((whole - trained[-1]).abs().max()))
    row.show(
        f"{implementation}: adapter's logits differ by {worst:g}, merged by {merged:.1e}; "
        f"{len(ARMS)} arms, one with lm_head"
    )
    assert worst <= (0.0 if implementation == "reference" else 1e-5)
    assert 0.0 <= merged <= 1e-4
