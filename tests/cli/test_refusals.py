"""Every command that scores a model refuses the same folders, with the name of the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.command_line import call
from support.tiny_arms import as_if_trained, attach, lora

# the words of each command before its model, and those after it
COMMANDS = {
    "evaluate": (("evaluate",), ("--protocol", "rows-text", "--json")),
    "audit": (("audit",), ("--json",)),
}


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_tensor(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "surplus": torch.ones(2)}, path, metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter_model.bin")
    path.unlink()


# what is done to a copy of a sound adapter, and what is said
ADAPTERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "changes no module": (lambda f: edit_config(f, peft_type="PROMPT_TUNING"), "PROMPT_TUNING"),
    "left unused": (lambda f: edit_config(f, target_modules=["c_proj"]), "tensors"),
    "surplus": (add_tensor, "surplus"),
    "not finite": (lambda f: edit_config(f, lora_alpha=float("nan")), "lora_alpha"),
    "pickled": (pickle_weights, "adapter_model.bin"),
}


@pytest.fixture(scope="module")
def adapter(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    as_if_trained(attach(tiny_gpt2, lora("lora-2"))).save(folder)
    return folder


def refusal_of(command: str, *model: object, folder: Path) -> str:
    (folder / "text.txt").write_text("A line that is long enough to be scored.\n")
    before, after = COMMANDS[command]
    text = ("--benchmark", folder / "text.txt", "--length", 24, "--offline")
    answer = call(*before, *model, *text, *after)
    assert (answer.code, answer.out) == (3, ""), answer.err
    return answer.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_that_would_be_used_in_part_is_refused_by_every_command(
    command: str, kind: str, adapter: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    damage, what = ADAPTERS[kind]
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    damage(copy)
    said = refusal_of(command, tiny_gpt2, "--adapter", copy, folder=tmp_path)
    assert what in said and str(copy) in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_base_that_holds_an_adapter_or_is_nowhere_is_refused_by_every_command(
    command: str, adapter: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_gpt2, tmp_path / "base"))
    shutil.copy(adapter / "adapter_config.json", copy)
    assert str(copy / "adapter_config.json") in refusal_of(command, copy, folder=tmp_path)
    for nowhere in ("./no/such/folder", "a/b/c", "has space/model", "https://x.y/z", ""):
        assert repr(nowhere) in refusal_of(command, nowhere, folder=tmp_path)
