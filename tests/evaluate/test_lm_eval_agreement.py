"""The demo model scored by lm-evaluation-harness itself, on the same local files.

Needs the extra `lmeval`. The harness runs its own tasks; only the place of the data is changed.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lorastudy.config.models import BaseModelRef, Benchmark, Rows
from lorastudy.model.base import load_base
from lorastudy.model.base_folder import find_base_folder
from lorastudy.model.scoring import make_scorer
from lorastudy.run.readers import make_reader
from lorastudy.run.scores import describe_scores, score_benchmark_rows
from lorastudy.store.places import Places
from lorastudy.store.records import EvaluationRecord

CPU = torch.device("cpu")
SENTENCE = ' The 1 @,@ 204 boats , all high @-@ built , came in ; the " last " one did n\'t . '
PAGES = (" = One = \n \n" + (SENTENCE + "\n") * 40, " = Two = \n \n" + SENTENCE + "\n")
PASSAGES = (  # the demo's model knows some of these words, so that both answers come up
    "The United States and the United States and the United States",
    "one of the best films of the year and one of the best films of the year",
    "The film was directed by John Smith , and the film was directed by John Smith",
    "In the first half of the season , in the second half of the season",
    "nobody ever heard of the zygote",
    "word",
)


def score_demo(folder: Path, file: str, protocol: str) -> EvaluationRecord:
    base = find_base_folder(BaseModelRef(builtin="demo"), mirror=None, offline=True, base=folder)
    reader = make_reader(base, Places(folder, cache=folder / "cache"))
    benchmark = Benchmark(name="b", path=file, protocols=(protocol,))
    rows = reader.benchmark_rows(benchmark, protocol, Rows(cut="lines", length=128))
    scorer = make_scorer(load_base(base, device=CPU), "float32")
    return describe_scores("b", rows, score_benchmark_rows(scorer, rows, CPU)).evaluation


def write_lines(path: Path, **column: tuple[str, ...]) -> None:
    ((name, texts),) = column.items()
    path.write_text("".join(json.dumps({name: text}) + "\n" for text in texts))


def score_by_harness(folder: Path) -> dict[str, dict[str, float]]:
    lm_eval = pytest.importorskip("lm_eval", reason="the extra `lmeval` is not installed")
    from lm_eval.tasks import TaskManager

    tasks = Path(lm_eval.__file__).parent / "tasks"
    for name, origin in (("w", "wikitext/wikitext"), ("l", "lambada/lambada_openai")):
        (folder / f"{name}.yaml").write_text(
            f"include: {tasks / origin}.yaml\ntask: {name}\ntag: null\n"
            f"dataset_path: json\ndataset_name: null\ntraining_split: null\n"
            f"dataset_kwargs: {{data_files: {{test: {folder / name}.jsonl}}}}\n"
            "validation_split: null\ntest_split: test\n"
        )
    base = find_base_folder(BaseModelRef(builtin="demo"), mirror=None, offline=True, base=folder)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(base),
            "dtype": "float32",
            "device": "cpu",
            # torch's float32 log-softmax is off by more than the tolerances on some processors
            "softmax_dtype": "float64",
        },
        tasks=["w", "l"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        batch_size=1,
        bootstrap_iters=0,
    )
    return found["results"]


@pytest.mark.filterwarnings("ignore")  # those of the harness and of what it imports
def test_demo_model_scores_as_in_lm_evaluation_harness(tmp_path: Path) -> None:
    write_lines(tmp_path / "w.jsonl", page=PAGES)
    write_lines(tmp_path / "l.jsonl", text=PASSAGES)
    write_lines(tmp_path / "pages.jsonl", text=PAGES)
    theirs = score_by_harness(tmp_path)
    wikitext = score_demo(tmp_path, "pages.jsonl", "lm-eval-wikitext")
    lambada = score_demo(tmp_path, "l.jsonl", "lm-eval-lambada")
    for name in ("word_perplexity", "byte_perplexity"):
        ours = math.log(getattr(wikitext, name))
        assert ours == pytest.approx(math.log(theirs["w"][f"{name},none"]), abs=1e-6), name
    assert wikitext.bits_per_byte == pytest.approx(theirs["w"]["bits_per_byte,none"], abs=1e-6)
    assert lambada.cross_entropy == pytest.approx(
        math.log(theirs["l"]["perplexity,none"]), abs=1e-5
    )
    assert lambada.accuracy == theirs["l"]["acc,none"]
    assert 0 < theirs["l"]["acc,none"] < 1  # so that the comparison says something


@torch.no_grad()
def test_sliding_windows_of_the_demo_model_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(PASSAGES))
    found = score_demo(tmp_path, "text.txt", "sliding-32-12")
    base = find_base_folder(BaseModelRef(builtin="demo"), mirror=None, offline=True, base=tmp_path)
    network = load_base(base, device=CPU)
    text = "\n\n".join(PASSAGES)
    ids = AutoTokenizer.from_pretrained(base)(text, add_special_tokens=False)["input_ids"]
    nats, scored_to = 0.0, 1
    for begin in range(0, len(ids), 12):
        window = torch.tensor(ids[begin : begin + 32])
        first = scored_to - begin
        if first < len(window):
            logits = network(window[None]).logits[0, first - 1 : -1]
            nats += float(torch.nn.functional.cross_entropy(logits, window[first:]) * len(logits))
            scored_to = begin + len(window)
    assert found.n_tokens == scored_to - 1 == len(ids) - 1
    assert found.sum_nats == pytest.approx(nats, rel=1e-6)
