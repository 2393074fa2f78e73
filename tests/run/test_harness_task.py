"""Tasks of lm-evaluation-harness give, item by item, what its own HFLM gives.

Needs the extra `lmeval`. The tasks and their data are made here.
"""

import json
import linecache
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from lorastudy.config.models import Benchmark, Rows
from lorastudy.errors import ConfigError, InputError, UserError
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.run.harness_task import HarnessItems
from lorastudy.run.readers import make_reader
from lorastudy.run.scores import score_part
from lorastudy.run.tasks import AskedModel, TaskItems
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.places import Places
from lorastudy.study.lock import read_scored
from lorastudy.study.preview_items import describe_items
from support.chats import write_rows
from support.tiny_runs import CPU, make_study

lm_eval = pytest.importorskip("lm_eval", reason="the extra `lmeval` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the harness and of what it imports

WORDS = ["sun", "moon", "a star far away", "tide", "rain and wind", "ice"]
QUESTIONS = [
    {"q": f"After {WORDS[n]} comes", "choices": [b, c, f"{c} {b}"], "right": n % 3}
    for n, b, c in ((n, WORDS[n - 1], WORDS[n - 2]) for n in range(len(WORDS)))
]
CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{q}}"
doc_to_choice: choices
doc_to_target: right
num_fewshot: 1
fewshot_split: test
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITTEN = """
task: own_written
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/questions.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{q}} "
doc_to_target: "LETTER"
generation_kwargs: {until: ["STOP"], max_gen_toks: 9}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
filter_list:
  - {name: first, filter: [{function: regex, regex_pattern: "(.)"}, {function: take_first}]}
"""
PLAIN, _, _ = WRITTEN.replace("STOP", "none").partition("filter_list")  # whole texts
PERPLEXITY = """
task: own_perplexity
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/questions.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list: [{metric: word_perplexity}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "questions.jsonl", QUESTIONS)
    return tmp_path


def write_task(folder: Path, text: str, **values: str) -> Path:
    for name, value in {"FOLDER": str(folder), **values}.items():
        text = text.replace(name, value)
    path = folder / "task.yaml"
    path.write_text(text)
    return path


def prepare(base: Path, folder: Path, **keys: Any) -> TaskItems:
    """What is known of the task before anything is trained."""
    reader = make_reader(base, Places(folder, cache=folder / "cache"))
    benchmark = Benchmark(name="b", task="task.yaml", protocols=("lm-eval-task",), **keys)
    part = reader.benchmark_part(benchmark, "lm-eval-task", Rows(cut="lines", length=48))
    assert isinstance(part, TaskItems)
    return part


def ours(base: Path, folder: Path, **keys: Any) -> DocumentSums:
    scorer = make_scorer(load_base(base, device=CPU), "float32")
    return score_part(scorer, prepare(base, folder, **keys), "b", CPU)


def theirs(base: Path, path: Path) -> list[dict[str, Any]]:
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(base), "dtype": "float32", "device": "cpu"},
        tasks=[str(path)],
        task_manager=TaskManager(include_defaults=False),
        batch_size=1,
        bootstrap_iters=0,
    )
    (samples,) = found["samples"].values()
    return sorted(samples, key=lambda sample: sample["doc_id"])


def test_choices_are_those_of_hflm(folder: Path, tiny_gpt2: Path) -> None:
    expected = theirs(tiny_gpt2, write_task(folder, CHOICE))
    for metric in ("acc", "acc_norm"):
        found = ours(tiny_gpt2, folder, metric=metric)
        assert [item.right for item in found.items] == [sample[metric] for sample in expected]
        for item, sample in zip(found.items, expected, strict=True):
            nats = [-answer[0] for answer in sample["filtered_resps"]]
            assert item.nats == pytest.approx(nats, abs=1e-4)
            assert item.prompt == sample["arguments"][0][0]
        assert found.evaluation.metric == f"{metric},none"
    assert 0 < (found.evaluation.accuracy or 0) < 1  # so that the comparison says something


def test_choices_that_merge_with_the_end_of_their_prompt_are_those_of_hflm(
    folder: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    """The prompt keeps its own tokens; the choice has those after as many of both together."""
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    path = base / "tokenizer.json"
    content = json.loads(path.read_text())
    merged = [("s", word[0]) for word in WORDS]  # every prompt ends with "comes"
    content["model"]["merges"] = merged
    content["model"]["vocab"] |= {a + b: 257 + n for n, (a, b) in enumerate(merged)}
    content["model"]["vocab"]["<|endoftext|>"] = 256
    path.write_text(json.dumps(content))
    task = write_task(folder, CHOICE.replace("num_fewshot: 1", 'target_delimiter: ""'))
    expected, found = theirs(base, task), ours(base, folder)
    for item, sample in zip(found.items, expected, strict=True):
        nats = [-answer[0] for answer in sample["filtered_resps"]]
        assert item.nats == pytest.approx(nats, abs=1e-4)


def test_a_preview_shows_what_the_harness_asks(folder: Path, tiny_gpt2: Path) -> None:
    """Solved examples are those of the evaluation, and a look does not change them."""
    tokenizer = make_reader(tiny_gpt2, Places(folder, cache=folder / "cache")).tokenizer
    expected = theirs(tiny_gpt2, write_task(folder, CHOICE))
    part = prepare(tiny_gpt2, folder)
    for _ in range(2):
        for item, sample in zip(part.list_asked(), expected, strict=True):
            read = [tokenizer.decode(text.read.ids) for text in item]
            asked = [context + choice for context, choice in sample["arguments"]]
            # the model has room for 64 tokens and one more target; each has one per byte
            assert [text[each.n_cut :] for text, each in zip(read, item, strict=True)] == [
                text[-65:] for text in asked
            ]
            assert [text.is_right for text in item] == [n == sample["target"] for n in range(3)]
    model = AskedModel(make_scorer(load_base(tiny_gpt2, device=CPU), "float32"), CPU)
    assert part.answer(model) == prepare(tiny_gpt2, folder).answer(model)
    write_task(folder, WRITTEN, LETTER="e", STOP="none")
    shown = describe_items("b", prepare(tiny_gpt2, folder), 9)
    assert [row.segments[0].tokens for row in shown.rows] == [(*f"{q['q']} ",) for q in QUESTIONS]
    assert {row.segments[1].tokens for row in shown.rows} == {("e",)}


def test_generated_texts_are_those_of_hflm(folder: Path, tiny_gpt2: Path) -> None:
    whole = theirs(tiny_gpt2, write_task(folder, WRITTEN, LETTER="e", STOP="none"))
    texts = [sample["resps"][0][0] for sample in whole]
    stop, letter = texts[4][0], texts[1][0]
    path = write_task(folder, WRITTEN, LETTER=letter, STOP=json.dumps(stop)[1:-1])
    expected, found = theirs(tiny_gpt2, path), ours(tiny_gpt2, folder)
    assert [s["resps"][0][0] for s in expected] != texts  # the stop stopped something
    assert [item.text for item in found.items] == [s["filtered_resps"][0] for s in expected]
    assert [item.right for item in found.items] == [s["exact_match"] for s in expected]
    assert found.evaluation.metric == "exact_match,first"
    assert 0 < (found.evaluation.accuracy or 0) < 1


def test_texts_end_at_special_tokens_where_they_end_with_hflm(
    folder: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    """Those that the task names as stops, and those at which the base model's settings end."""
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    tokens = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokens.add_special_tokens([f"<{number}>" for number in range(257, 300)])
    tokens.save(str(base / "tokenizer.json"))
    whole = theirs(base, write_task(folder, PLAIN, LETTER="e"))
    stops = json.dumps([f"<{number}>" for number in range(257, 300, 2)])
    path = write_task(folder, PLAIN.replace('["none"]', stops), LETTER="e")
    stopped = theirs(base, path)
    settings = {"eos_token_id": [256, *range(258, 300, 2)]}
    (base / "generation_config.json").write_text(json.dumps(settings))
    ended = theirs(base, path)
    found = ours(base, folder)
    texts = [[s["resps"][0][0] for s in each] for each in (whole, stopped, ended)]
    assert texts[0] != texts[1] != texts[2]  # both ended something
    assert [item.text for item in found.items] == [s["filtered_resps"][0] for s in ended]


def test_a_penalty_for_repetition_is_followed_as_with_hflm(
    folder: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    """That of the base model's folder, or that of the task, which takes its place."""
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    (base / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.3}))
    own = PLAIN.replace("max_gen_toks: 9", "max_gen_toks: 9, repetition_penalty: 0.9")
    written = []
    for where, text in ((tiny_gpt2, PLAIN), (base, PLAIN), (base, own)):
        expected = theirs(where, write_task(folder, text, LETTER="e"))
        written.append([item.text for item in ours(where, folder).items])
        assert written[-1] == [sample["filtered_resps"][0] for sample in expected]
    assert len(set(map(tuple, written))) == 3


def test_a_task_that_cannot_be_carried_out_is_refused_before_training(
    folder: Path, tiny_gpt2: Path
) -> None:
    def refused(text: str, says: str, error: type[UserError] = ConfigError, **keys: Any) -> None:
        write_task(folder, text)
        with pytest.raises(error, match=says):
            prepare(tiny_gpt2, folder, **keys)

    refused(CHOICE, "has no metric 'f2'; it has 'acc', 'acc_norm'", metric="f2")
    refused(CHOICE, "has no filter 'strict'; it has 'none'", metric="acc,strict")
    refused(WRITTEN, "has no filter 'last'; it has 'first'", metric="exact_match,last")
    lower = WRITTEN.replace("higher_is_better: true", "higher_is_better: false")
    refused(lower, "own_written: of the metric 'exact_match', lower is better")
    long = WRITTEN.replace("max_gen_toks: 9", "max_gen_toks: 900")
    refused(long, "own_written generates 900 tokens, and the model reads 64")
    refused(WRITTEN.replace("max_gen_toks: 9", "do_sample: true"), "own_written samples")
    beams = WRITTEN.replace("max_gen_toks: 9", "max_gen_toks: 9, num_beams: 2")
    refused(beams, "own_written is to write with num_beams: 2")
    penalty = WRITTEN.replace("max_gen_toks: 9", "max_gen_toks: 9, repetition_penalty: -1")
    refused(penalty, "own_written has repetition_penalty: -1")
    for n_new in ("-3", "many", "9.5", "0", "True", ".inf"):
        length = WRITTEN.replace("max_gen_toks: 9", f"max_gen_toks: {n_new}")
        shown = n_new.removeprefix(".")
        refused(length, f"own_written has max_gen_toks: {shown}; it has to be a whole number")
    for stops in ("5", "[5]"):
        until = WRITTEN.replace('["STOP"]', stops)
        refused(until, f"own_written has until: {re.escape(stops)}; it has to be a text or a list")
    both = WRITTEN.replace("max_gen_toks: 9", "max_length: 40, max_gen_toks: 9")
    refused(both, "own_written limits prompts and answers together by max_length")
    refused(PERPLEXITY, "own_perplexity measures a perplexity")
    missing = CHOICE.replace("questions.jsonl", "none.jsonl")
    refused(missing, r"task task.yaml: lm-evaluation-harness says: ", InputError)


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_settings_of_the_base_model_that_change_greedy_generation_are_refused(
    name: str, folder: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_gpt2, base)
    content = json.loads((base / name).read_text())
    (base / "generation_config.json").unlink()  # without it, the other file has them
    (base / name).write_text(json.dumps({**content, "no_repeat_ngram_size": 2, "top_p": 0.5}))
    write_task(folder, WRITTEN, LETTER="e", STOP="none")
    with pytest.raises(ConfigError, match="the base model is to write with no_repeat_ngram_size"):
        prepare(base, folder)


def test_settings_of_the_scored_model_that_change_greedy_generation_are_refused(
    folder: Path, tiny_gpt2: Path
) -> None:
    """A model that was trained elsewhere brings its own."""
    write_task(folder, PLAIN, LETTER="e")
    network = load_base(tiny_gpt2, device=CPU)
    network.generation_config.num_beams = 2
    with pytest.raises(ConfigError, match="the model is to write with num_beams: 2"):
        score_part(make_scorer(network, "float32"), prepare(tiny_gpt2, folder), "b", CPU)


def test_without_a_metric_the_first_one_of_the_task_counts(folder: Path, tiny_gpt2: Path) -> None:
    write_task(folder, CHOICE.replace("[{metric: acc}, {metric: acc_norm}]", BACKWARDS))
    assert ours(tiny_gpt2, folder).evaluation.metric == "acc_norm,none"


BACKWARDS = "[{metric: acc_norm}, {metric: acc}]"
LENGTHS = """
process_results: !function utils.judge
metric_list: [{metric: long, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CHOICE.replace("{metric: acc},", "{metric: mcc},"), "'mcc' is (0, "),
        (WRITTEN.partition("metric_list")[0] + LENGTHS, "'long' is 21.0"),
    ],
)
def test_a_metric_that_gives_no_share_per_item_is_refused_before_training(
    text: str, says: str, folder: Path, tiny_gpt2: Path
) -> None:
    code = "def judge(doc, results):\n    return {'long': float(len(results[0]))}\n"
    (folder / "utils.py").write_text(code)
    write_task(folder, text, LETTER="e", STOP="none")
    part = prepare(tiny_gpt2, folder)
    assert isinstance(part, HarnessItems)
    with pytest.raises(ConfigError, match=rf"document \d: the metric {re.escape(says)}"):
        part.refuse_unfit()  # which every check of a study calls


@pytest.mark.parametrize(("choice", "says"), [("y" * 65, "has 65 tokens"), ("", "has no token")])
def test_a_choice_that_cannot_be_scored_is_refused_before_training_with_its_document(
    choice: str, says: str, folder: Path, tiny_gpt2: Path
) -> None:
    rows = [*QUESTIONS, {"q": "Which", "choices": ["x" * 64, choice], "right": 0}]
    write_rows(folder / "questions.jsonl", rows)
    write_task(folder, CHOICE.replace("num_fewshot: 1", 'target_delimiter: ""'))
    part = prepare(tiny_gpt2, folder)
    assert isinstance(part, HarnessItems)
    part.first(len(QUESTIONS)).refuse_unfit()
    model = AskedModel(make_scorer(load_base(tiny_gpt2, device=CPU), "float32"), CPU)
    task = {"name": "b", "task": "task.yaml", "protocols": ("lm-eval-task",)}
    study = make_study(tiny_gpt2, benchmarks=(task,))
    reader = make_reader(tiny_gpt2, Places(folder, cache=folder / "cache"))
    for look in (
        lambda: read_scored(study, reader),  # which every check of a study calls
        part.list_asked,
        lambda: part.answer(model),
    ):
        with pytest.raises(InputError, match=rf"own_choice, document {len(QUESTIONS)}: .*{says}"):
            look()


def test_a_task_with_functions_is_known_again_and_its_changes_are_seen(
    folder: Path, tiny_gpt2: Path
) -> None:
    shots = "fewshot_config: {sampler: first_n, samples: !function utils.shots}"
    write_task(folder, CHOICE.replace("fewshot_split: test", shots))
    solved = "def shots():\n    return [{'q': 'Up', 'choices': ['a', 'b'], 'right': RIGHT}]\n"
    digests = []
    for right in "001":  # functions that are loaded again are others
        (folder / "utils.py").write_text(solved.replace("RIGHT", right))
        linecache.clearcache()  # as in a new process
        digests.append(prepare(tiny_gpt2, folder).digest)
    assert digests[0] == digests[1] != digests[2]
