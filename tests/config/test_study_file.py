"""Reading study files: what is refused, and how the message leads to the mistake."""

import json
import re
from pathlib import Path

import pytest
import yaml

from lorastudy.config.differences import list_differences
from lorastudy.config.models import Arm, Benchmark, Source, Study
from lorastudy.config.study_file import dump_study, load_study, preset_text, read_study_file
from lorastudy.config.two_studies import describe_difference
from lorastudy.config.yaml_text import parse_yaml, write_yaml
from lorastudy.errors import ConfigError
from lorastudy.protocols import PROTOCOLS

STUDY = """
name: tiny
base_model: {builtin: demo}
data:
  train: {path: notes.txt}
  validation: {id: owner/set, config: plain, split: validation}
  rows: {cut: lines, length: 16}
training: {epochs: 2, rows_per_step: 8, micro_batch: 4}
seeds: [0, 1]
arms:
  - {name: baseline, method: baseline}
  - {name: full, method: full, learning_rates: [1e-4]}
  - {name: lora-1, method: lora, placement: [attention], rank: 4, alpha: 8, learning_rates: [1e-3]}
benchmarks:
  - {name: held, builtin: docstrings, split: test, protocols: [rows-text]}
"""


def load(*overrides: str) -> Study:
    return load_study(STUDY, "study.yaml", overrides)


def mistakes_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    return [line.strip() for line in str(caught.value).splitlines()]


BAD_VALUES = [
    # override, key path in the message, what the message must say
    ("training.epoch=3", "training.epoch", r"unknown key \(did you mean 'epochs'\?\)"),
    ("arms.lora-1.r=4", "arms.lora-1.r", r"did you mean 'rank'\?"),
    ("arms.full.lr=1e-4", "arms.full.lr", r"did you mean 'learning_rates'\?"),
    ("learning_rate=1e-4", "learning_rate", r"mean arms\.NAME\.learning_rates\?.*allowed: name"),
    ("training.lr=1e-4", "training.lr", r"did you mean arms\.NAME\.learning_rates\?"),
    ("epochs=3", "epochs", r"did you mean training\.epochs\?"),
    ("num_train_epochs=3", "num_train_epochs", r"did you mean training\.epochs\?"),
    ("training.warmup=0.1", "training.warmup", r"did you mean training\.schedule\.warmup\?"),
    ("data.limit=9", "data.limit", r"mean data\.train\.limit or data\.validation\.limit or bench"),
    ("arms.full.learning_rate=1e-4", "arms.full.learning_rate", r"write learning_rates: \[0"),
    ("arms.lora-1.target_modules=[q_proj]", "arms.lora-1.target_modules", "did you mean 'placem"),
    ("arms.lora-1.method=LoRA", "arms.lora-1.method", "did you mean 'lora'"),
    ("training.bf16=true", "training.bf16", "did you mean 'precision'"),
    ("training.schedule=cosine", "training.schedule", "write {shape: cosine}"),
    ("training.optimizer=adamw", "training.optimizer", "write {name: adamw}"),
    ("base_model=./gpt2", "base_model", r"not './gpt2'; write {path: ./gpt2}$"),
    ("base_model={model_name: gpt2}", "base_model.model_name", "did you mean 'id'"),
    ("arms={full: {method: full}}", "arms", 'begin each of the arms with "- name: ..."'),
    ("arms.full.learning_rates=['1e-4']", "arms.full.learning_rates.0", "leave out the quotes"),
    ("training.epochs=\uff13", "training.epochs", "write it with the ordinary digits 0 to 9"),
    ("arms.lora-1.rank=010", "arms.lora-1.rank", "leave out the zeros in front"),
    ("bench=[]", "bench", r"unknown key.*allowed: name, base_model, data"),
    ("training.schedule.shap=linear", "training.schedule.shap", r"did you mean 'shape'\?"),
    ("training.optimizer.foo=1", "training.optimizer.foo", "allowed: name, weight_decay, betas"),
    ("benchmarks.held.protocol=rows-text", "benchmarks.held.protocol", "did you mean 'protocols'"),
    ("training.epochs=0", "training.epochs", "must be at least 1, not 0"),
    ("training.epochs=2.5", "training.epochs", "must be a whole number, not 2.5"),
    ("training.epochs=8.0", "training.epochs", "must be a whole number, not 8.0"),
    ("training.epochs=true", "training.epochs", "must be a whole number, not True"),
    ("training.epochs='2'", "training.epochs", "must be a whole number, not '2'"),
    ("training.epochs=", "training.epochs", "is required; or a budget, such as budget: {tokens"),
    ("training.epochs=[2]", "training.epochs", "must be a whole number, not a list"),
    ("seeds=3", "seeds", r"not 3; write \[0, 1, 2\] for 3 seeds"),
    ("seeds=77", "seeds", r"not 77; write \[77\]"),
    ("base_model=gpt2", "base_model", "not 'gpt2'; write {id: gpt2} or {path: gpt2}"),
    ("data.train=a.txt", "data.train", "write {id: a.txt} or {path: a.txt}"),
    ("data.train=[{path: a, weight: 1}]", "data.train", r"not a list; write {mixture: \[\.\.\.]}$"),
    ("data.train.weight=1", "data.train.weight", "did you mean 'mixture'"),
    ("data.validation=0.1", "data.validation", r"not 0\.1; write {from_train: 0\.1}$"),
    ("path=a.txt", "path", "unknown key; allowed"),  # in too many places to name them
    ("data.from_train=0.1", "data.from_train", "did you mean 'validation'"),
    ("training.early_stopping=2", "training.early_stopping", r"not 2; write {patience: 2}$"),
    ("benchmarks.held.protocols=rows-text", "benchmarks.held.protocols", r"write \[rows-text\]"),
    ("arms.lora-1.placement=[q_proj]", "arms.lora-1.placement.0", r"self_attn\.q_proj"),
    ("training.epochs=10000000000", "training.epochs", "must be at most 1000000000"),
    ("training=fast", "training", "must be a mapping of keys, not 'fast'"),
    ("arms={}", "arms", "must be a list such as .*, not a mapping"),
    ("name=2024", "name", "must be text, not 2024; put it in quotes"),
    ("arms.full.name=no", "arms.1.name", "must be text, not False; put it in quotes"),
    ("arms.lora-1.rank=-1", "arms.lora-1.rank", "must be at least 1, not -1"),
    ("arms.lora-1.rank=0", "arms.lora-1.rank", "must be at least 1"),
    ("arms.lora-1.alpha=0", "arms.lora-1.alpha", "must be greater than 0"),
    ("arms.lora-1.dropout=1.5", "arms.lora-1.dropout", "must be less than 1.0, not 1.5"),
    ("arms.lora-1.dropout=1", "arms.lora-1.dropout", "must be less than 1"),
    ("arms.full.learning_rates=[1e9]", "arms.full.learning_rates.0", "must be less than 1"),
    ("arms.full.learning_rates=[0]", "arms.full.learning_rates.0", "must be greater than 0"),
    ("arms.full.learning_rates=[.nan]", "arms.full.learning_rates.0", "finite number, not nan"),
    ("arms.full.learning_rates=[.inf]", "arms.full.learning_rates.0", "finite number, not inf"),
    ("arms.full.learning_rates=1e-4", "arms.full.learning_rates", "must be a list such as"),
    ("arms.full.learning_rates=[1e-3, 1e-3]", "arms.full.learning_rates.1", "in this list twice"),
    ("arms.full.learning_rates=[]", "arms.full.learning_rates", "is required for method full"),
    ("arms.lora-1.placement=[]", "arms.lora-1.placement", "is required for method lora"),
    ("arms.lora-1.alpha=null", "arms.lora-1.alpha", "is required for method lora"),
    ("arms.full.rank=4", "arms.full.rank", "does not apply to method full"),
    ("arms.full.dropout=0.1", "arms.full.dropout", "does not apply to method full"),
    ("arms.full.placement=[output]", "arms.full.placement", "does not apply to method full"),
    ("arms.baseline.learning_rates=[0.1]", "arms.baseline.learning_rates", "does not apply"),
    ("arms.full.method=lara", "arms.full.method", r"did you mean 'lora'\?.*allowed: baseline"),
    ("arms.lora-1.method=QLoRA", "arms.lora-1.method", r"; write .*lora with base_weights: nf4;"),
    ("arms.lora-1.method=LoRA+", "arms.lora-1.method", r"; write .*loraplus_lr_ratio: 16; allo"),
    ("arms.lora-1.method=VeRA", "arms.lora-1.method", r"; write .*peft: {peft_type: VERA}; allo"),
    ("base_model={builtin: gpt2}", "base_model.builtin", r"hub write base_model: {id: gpt2}; all"),
    ("arms.lora-1.placement=[atention]", "arms.lora-1.placement.0", "did you mean 'attention'"),
    ("arms.lora-1.placement=[lm_heda]", "arms.lora-1.placement.0", "did you mean 'lm_head'"),
    ("arms.lora-1.placement=[qqq]", "arms.lora-1.placement.0", "allowed: attention, projection"),
    ("arms.lora-1.placement=[h.*.c_*]", "arms.lora-1.placement.0", "exactly one whole segment"),
    ("arms.lora-1.placement=[h..c]", "arms.lora-1.placement.0", "is not a module pattern"),
    ("arms.lora-1.placement=[output, output]", "arms.lora-1.placement.1", "twice"),
    ("arms.lora-1.allow_tied=1", "arms.lora-1.allow_tied", "must be true or false, not 1"),
    ("arms.full.name=lora-1", "arms.2.name", "'lora-1' is used twice"),
    ("arms.full.name=LoRA-1", "arms.lora-1.name", "is used twice"),
    ("arms=[]", "arms", "must not be empty"),
    ("seeds=[]", "seeds", "must not be empty"),
    ("seeds=[1, 1]", "seeds.1", "1 is in this list twice"),
    ("seeds=[-1]", "seeds.0", "must be at least 0, not -1"),
    ("seeds=[4294967296]", "seeds.0", "must be less than 4294967296"),
    ("training.rows_per_step=6", "training.rows_per_step", "6 is not a multiple of micro_batch 4"),
    ("training.micro_batch=16", "training.rows_per_step", "8 is not a multiple of micro_batch 16"),
    ("training.schedule.warmup=1.0", "training.schedule.warmup", "must be less than 1"),
    ("training.schedule.warmup=-0.1", "training.schedule.warmup", "must be at least 0"),
    ("training.schedule.shape=liner", "training.schedule.shape", r"did you mean 'linear'\?"),
    ("training.optimizer.eps=0", "training.optimizer.eps", "must be greater than 0"),
    ("training.optimizer.betas=[0.9, 1.0]", "training.optimizer.betas.1", "must be less than 1"),
    ("training.optimizer.betas=[0.9]", "training.optimizer.betas.1", "is required"),
    ("training.optimizer.betas=[0, 0, 0]", "training.optimizer.betas", "at most 2 values"),
    ("training.optimizer.max_grad_norm=0", "training.optimizer.max_grad_norm", "greater than 0"),
    ("training.precision=float16", "training.precision", r"did you mean 'bfloat16'\?"),
    ("training.padding=skored", "training.padding", "did you mean 'scored'"),
    ("training.validate_every=0", "training.validate_every", "must be at least 1, not 0"),
    ("training.eval_steps=5", "training.eval_steps", "did you mean 'validate_every'"),
    ("training.early_stopping={}", "training.early_stopping.patience", "is required"),
    (
        "training={epochs: 9, rows_per_step: 8, micro_batch: 4, early_stopping: {patience: 0}}",
        "training.early_stopping.patience",
        "must be at least 1, not 0",
    ),
    (
        "training.early_stopping={patience: 1, min_delta: -0.1}",
        "training.early_stopping.min_delta",
        "must be at least 0",
    ),
    (
        "training.early_stopping={patience: 1}",
        "training.early_stopping.patience",
        "1 can stop no run, .* 2 epochs have 2; lower it, or validate more often",
    ),
    ("data.train={mixture: []}", "data.train.mixture", "at least two sources"),
    ("data.train={mixture: [{path: a}]}", "data.train.mixture.0.weight", "is required"),
    (
        "data.train={mixture: [{path: a, weight: -1}, {path: b, weight: 1}]}",
        "data.train.mixture.0.weight",
        "must be at least 0",
    ),
    (
        "data.train={mixture: [{path: a, weight: 0}, {path: b, weight: 0}]}",
        "data.train.mixture",
        "has no weight above 0",
    ),
    (
        "data.train={mixture: [{path: a, weight: 1}, {path: a, weight: 2}]}",
        "data.train.mixture.1",
        "is in this mixture twice",
    ),
    (
        "data.train={limit: 5, mixture: [{path: a, weight: 1}, {path: b, weight: 2}]}",
        "data.train.limit",
        "belongs to the sources of the mixture",
    ),
    ("data.train.mixture=[{path: a, weight: 1}]", "data.train", "path and mixture are given"),
    ("data.validation={from_train: 0}", "data.validation.from_train", "greater than 0"),
    ("data.validation={from_train: -0.1}", "data.validation.from_train", "greater than 0"),
    ("data.validation={from_train: 1}", "data.validation.from_train", "must be less than 1"),
    ("data.validation={from_train: 0.1, split: x}", "data.validation.split", "does not apply to"),
    ("data.validation.seed=3", "data.validation.seed", "applies to from_train only"),
    ("data.validation={test_size: 0.1}", "data.validation.test_size", "mean 'from_train'"),
    ("data.rows.length=1", "data.rows.length", "must be at least 2, not 1"),
    ("data.rows.cut=line", "data.rows.cut", "did you mean 'lines'"),
    ("data.train.id=owner/set", "data.train", "exactly one of id, path, builtin.* id and path are"),
    ("data.train.path=null", "data.train", "exactly one of .* none of them is given"),
    ("data.train.split=train", "data.train.split", "does not apply to files"),
    ("data.train.config=plain", "data.train.config", "applies to an id only"),
    ("data.train.revision=v1", "data.train.revision", "applies to an id only"),
    ("data.train.limit=0", "data.train.limit", "must be at least 1"),
    ("data.train.column=''", "data.train.column", "must not be empty"),
    ("data.validation.split=null", "data.validation.split", "is required here"),
    ("data.validation.split='train[:1%]'", "data.validation.split", "letters, digits"),
    ("data.validation.sample_by=document", "data.validation.sample_by", "text files under path"),
    ("data.validation.id=../x", "data.validation.id", "is not a hub id such as 'owner/name'"),
    ("data.validation.id=a/../b", "data.validation.id", "is not a hub id"),
    ("data.validation.revision=../../x", "data.validation.revision", "branch, tag or commit"),
    ('data.train.path="a\\0b"', "data.train.path", "control characters"),
    ("benchmarks.held.builtin=docstring", "benchmarks.held.builtin", "did you mean 'docstrings'"),
    ("base_model.builtin=demos", "base_model.builtin", "did you mean 'demo'"),
    ("base_model={}", "base_model", "exactly one of id, path, builtin"),
    ("base_model.revision=v2", "base_model.revision", "applies to an id only"),
    ("benchmarks.held.protocols=[]", "benchmarks.held.protocols", "must not be empty"),
    ("benchmarks.held.protocols=[row-text]", "benchmarks.held.protocols.0", "mean 'rows-text'"),
    ("benchmarks.held.protocols=[blocks-1]", "benchmarks.held.protocols.0", "at least 2 tokens"),
    ("benchmarks.held.protocols=[blocks-0]", "benchmarks.held.protocols.0", "is not a protocol"),
    ("benchmarks.held.protocols=[sliding-8]", "benchmarks.held.protocols.0", "sliding-1024-512"),
    ("benchmarks.held.protocols=[sliding-8-9]", "benchmarks.held.protocols.0", "tokens would be"),
    ("benchmarks.held.protocols=[document, document]", "benchmarks.held.protocols.1", "twice"),
    ("benchmarks.held.name=null", "benchmarks.0.name", "must be text, not nothing"),
]


@pytest.mark.parametrize(
    ("override", "key_path", "says"), BAD_VALUES, ids=[b[0] for b in BAD_VALUES]
)
def test_a_mistake_is_named_by_key_path_and_explained(
    override: str, key_path: str, says: str
) -> None:
    _, mistake, last = mistakes_of(override)
    assert mistake.startswith(f"{key_path}: ")
    assert re.search(says, mistake)
    assert "run the same command again" in last


def test_what_is_allowed_is_said_once_however_often_it_is_missed() -> None:
    _, *mistakes, _ = mistakes_of("arms.full.rnk=2", "arms.lora-1.rnk=3", "training.epoch=1")
    of_training, first, second = mistakes
    assert "; allowed: epochs" in of_training and "; allowed: name, method" in first
    assert second == "arms.lora-1.rnk: unknown key (did you mean 'rank'?)"


@pytest.mark.parametrize(
    "name",
    ["", "..", "../up", "a/b", "a\\b", ".hidden", "a b", "<b>x</b>", "x\n", "é", "a.", "a" * 65],
)
def test_names_that_are_unsafe_as_folders_are_refused(name: str) -> None:
    text = STUDY.replace("name: full", f"name: {json.dumps(name)}")
    with pytest.raises(ConfigError, match=r"arms\.1\.name: .* cannot name a folder") as caught:
        load_study(text, "study.yaml")
    assert len(str(caught.value).splitlines()) == 3  # no line break of the name gets through


def test_forgetting_needs_the_base_model_as_an_arm() -> None:
    override = "benchmarks.held.role=forgetting"
    assert load(override).benchmarks[0].role == "forgetting"
    _, mistake, *_ = mistakes_of(override, "arms=[{name: f, method: full, learning_rates: [1e-4]}]")
    assert mistake.startswith("benchmarks.held.role: forgetting compares with the base model")


def test_all_mistakes_of_a_file_are_reported_at_once() -> None:
    overrides = ("training.epochs=0", "arms.lora-1.rank=-1", "seeds=[1, 1]", "data.rows.cut=x")
    first, *mistakes, _ = mistakes_of(*overrides)
    assert first == "study.yaml with the --set values has 4 mistakes:"
    assert [line.split(":")[0] for line in mistakes] == [
        "data.rows.cut",
        "training.epochs",
        "seeds.1",
        "arms.lora-1.rank",
    ]


def test_one_arm_reports_all_that_it_lacks() -> None:
    _, *mistakes, _ = mistakes_of("arms.2={name: lora-1, method: lora}")
    keys = ["placement", "rank", "alpha", "learning_rates"]
    assert mistakes == [f"arms.lora-1.{key}: is required for method lora" for key in keys]


@pytest.mark.parametrize(
    "twin",
    [
        "{name: b, method: lora, placement: [output, attention], rank: 4, alpha: 8.0,"
        " dropout: 0.0, learning_rates: [1e-3, 1e-4]}",
        "{name: b, method: lora, placement: [attention, output], rank: 4, alpha: 8,"
        " allow_tied: false, learning_rates: [0.0001, 0.001]}",
    ],
)
def test_arms_that_differ_in_name_only_are_refused(twin: str) -> None:
    arm = twin.replace("name: b", "name: a").replace(" allow_tied: false,", "")
    mistakes = mistakes_of(f"arms=[{arm}, {twin}]")
    assert mistakes[1] == "arms.b: differs from arm 'a' only in its name; drop one"


def test_required_keys_are_named_when_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        load_study("name: x", "study.yaml")
    for key in ("base_model", "data", "training", "seeds", "arms"):
        assert f"  {key}: is required\n" in str(caught.value)


def test_scored_padding_needs_padded_rows() -> None:
    mistakes = mistakes_of("training.padding=scored", "data.rows.cut=stream")
    assert mistakes[1].startswith("training.padding: scored needs padded rows")


def test_a_warm_up_longer_than_training_is_refused() -> None:
    slip = "training.schedule={warmup: 0.5, counted_in: micro-batches}"
    assert mistakes_of(slip)[1].startswith("training.schedule.warmup: 0.5 of the micro-batches")
    assert load("training.schedule={warmup: 0.4, counted_in: micro-batches}")
    assert load("training.schedule.warmup=0.5")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a study file is a mapping .* it is empty"),
        ("- a", "a study file is a mapping"),
        ("name: a\nname: b", r"line 2, column 1: the key 'name' is here twice"),
        ("a: {b: 1, c: {d: 1, d: 2}}", "column 21: the key 'd' is here twice"),
        ("name: [", "line 1, column 8: "),
        ("name: a: b", "put a value that contains ': ' in quotes"),
        ("a:\n  b: 1\n   c: 2", "mapping values are not allowed"),
        ("a:\n   b: 1\n  c: 2", "indent it like the lines that it belongs to"),
        ("a: [1, 2\nb: 3", "a bracket that was opened above is not closed"),
        ("name:\n\t- x", "line 2, column 1: .*there is a tab; indent with spaces"),
        ("name: a\n---\nname: b", "line 2, column 1: .*a file holds one study"),
        ("a:\n  b: 1\n  c\uff1a2\n  d: 3", "there is a full-width colon"),
        ("a:\n  b:\u00a01\n  d: 3", "there is a non-breaking space"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("when: 2024-01-01", "when: 2024-01-01 is read as a date; put it in quotes"),
        ("when: 2024-13-01", "month must be"),
        ("a: {1: b}", "a: the key 1 is not text"),
        ("1: b", "study.yaml: the key 1 is not text"),
        ("? [a]\n: b", "line 1"),
        ("a: &x [*x]", "nested too deeply or contain themselves"),
        ("a: " + "[" * 3000, "nested too deeply"),
        ("a: !!int ''", "Correct the YAML"),
        ("a: !!bool maybe", "Correct the YAML"),
        ("seed: " + "9" * 5000, "Correct the YAML"),
        ("name: a\x00b", "Correct the YAML"),
    ],
)
def test_text_that_is_no_plain_yaml_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_study(text, "study.yaml")
    assert str(caught.value).startswith("study.yaml: ")


def test_a_file_that_unfolds_without_end_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(ConfigError, match="more than 20000 values"):
        load_study("\n".join(lines), "study.yaml")


def test_numbers_without_a_point_are_numbers() -> None:
    assert parse_yaml("[1e-4, 2E3, -1e+2]", "x") == [1e-4, 2e3, -1e2]
    assert load().arms[1].learning_rates == (1e-4,)


@pytest.mark.parametrize("text", ["1:30", "017", "-017", "1:30.5", "0o17", "08"])
def test_text_that_yaml_1_1_reads_as_another_number_is_no_number(text: str) -> None:
    assert parse_yaml(text, "x") == text
    assert parse_yaml(write_yaml([text]), "x") == [text]
    _, mistake, *_ = mistakes_of(f"seeds=[{text}]")
    assert f"must be a whole number, not '{text}'" in mistake


def test_merge_keys_and_anchors_save_repetition() -> None:
    arms = (
        "arms=[&a {name: a, method: lora, placement: [attention], rank: 4, alpha: 8,"
        " learning_rates: [1e-3]}, {<<: *a, name: b, rank: 8}]"
    )
    assert [(arm.name, arm.rank, arm.alpha) for arm in load(arms).arms] == [
        ("a", 4, 8),
        ("b", 8, 8),
    ]


def test_an_override_reaches_one_place_even_if_anchors_share_it() -> None:
    text = STUDY.replace("{path: notes.txt}", "&s {path: notes.txt}")
    text = text.replace("{id: owner/set, config: plain, split: validation}", "*s")
    study = load_study(text, "study.yaml", ["data.train.path=other.txt"])
    assert (study.data.train.path, study.data.validation.path) == ("other.txt", "notes.txt")


@pytest.mark.parametrize("address", ["lora-1", "2"])
def test_overrides_address_arms_by_name_or_number(address: str) -> None:
    study = load(f"arms.{address}.rank=32", "training.schedule.warmup=0.2", "seeds.0=7")
    assert study.arms[2].rank == 32
    assert study.training.schedule.warmup == 0.2
    assert study.seeds == (7, 1)


def test_overrides_address_names_with_dots() -> None:
    study = load_study(STUDY.replace("lora-1", "lora.r4"), "study.yaml", ["arms.lora.r4.rank=2"])
    assert study.arms[2].rank == 2


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.epochs", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("training..epochs=3", "is not KEY=VALUE"),
        ("arms.lora-2.rank=8", r"no 'lora-2' in this list \(did you mean 'lora-1'\?\)"),
        ("arms.9.rank=8", "It has baseline, full, lora-1"),
        ("seeds.5=1", "It has 0, 1"),
        ("name.first=x", "there is nothing below 'tiny'"),
        ("seeds=[1", "line 1, column"),
    ],
)
def test_overrides_that_lead_nowhere_are_refused(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(override)
    assert "--set" in str(caught.value)


@pytest.mark.parametrize("revision", ["1e5", "12345678", "1.5", "no", "main", "v1.0", "refs/pr/3"])
def test_a_dumped_study_loads_equal(revision: str) -> None:
    study = load(f"data.validation.revision='{revision}'", "training.optimizer.max_grad_norm=null")
    assert study.training.optimizer.max_grad_norm is None
    assert load_study(dump_study(study), "study.yaml") == study


@pytest.mark.parametrize("question", ["full-or-lora", "[lora-1, full]"])
def test_a_declared_question_survives_the_study_file_and_the_lock(question: str) -> None:
    study = load(f"question={question}")
    assert load_study(dump_study(study), "study.yaml") == study
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_a_dumped_study_states_the_training_protocol_in_full() -> None:
    plain = yaml.safe_load(dump_study(load()))
    assert plain["training"]["padding"] == "masked"
    assert plain["training"]["optimizer"]["max_grad_norm"] == 1.0
    assert plain["arms"][0] == {"name": "baseline", "method": "baseline"}
    assert plain["data"]["validation"]["revision"] == "main"
    assert plain["data"]["train"] == {"path": "notes.txt"}


def test_a_difference_names_key_path_old_and_new() -> None:
    extra = "{name: lora-9, method: full, learning_rates: [0.1]}"
    changed = load_study(
        STUDY.replace("benchmarks:", f"  - {extra}\nbenchmarks:"),
        "study.yaml",
        ["training.epochs=3", "arms.lora-1.alpha=16", "data.train.limit=5"],
    )
    lines = describe_difference(load(), changed)
    assert lines[:3] == [
        "data.train.limit: null -> 5",
        "training.epochs: 2 -> 3",
        "arms.lora-1.alpha: 8.0 -> 16.0",
    ]
    assert lines[3].startswith('arms.lora-9: (absent) -> {"method": "full"')
    assert len(lines) == 4
    assert describe_difference(changed, load())[3].endswith("-> (absent)")


def test_a_difference_of_long_lists_shows_the_part_that_differs() -> None:
    rates = [n / 1000 for n in range(1, 100)]
    for first_kept, shown in ((61, "[0.061] -> [0.5]"), (60, "[] -> [0.5]")):
        changed = [*rates[:60], 0.5, *rates[first_kept:]]
        one, other = (load(f"arms.lora-1.learning_rates={each}") for each in (rates, changed))
        assert describe_difference(one, other) == [f"arms.lora-1.learning_rates: {shown}"]
    (twice,) = list_differences([*range(99)], [*range(60), *range(59, 99)])
    assert (twice.old, twice.new) == ([], [59])
    (cut,) = describe_difference(one, load(f"arms.lora-1.learning_rates={[2 * r for r in rates]}"))
    assert cut.endswith(" ...") and len(cut) < 300


def test_what_a_budget_meant_is_not_shown_where_the_budget_differs() -> None:
    def with_budget(tokens: int, *steps: int) -> Study:
        planned = [
            f"{{arm: {a}, steps: {n}, amount: 9}}" for a, n in zip("ab", steps, strict=False)
        ]
        budget = f"{{tokens: {tokens}, planned: [{', '.join(planned)}]}}"
        return load("training.epochs=null", f"training.budget={budget}")

    differences = describe_difference(with_budget(900, 3, 4), with_budget(1000))
    assert differences == ["training.budget.tokens: 900 -> 1000"]
    differences = describe_difference(with_budget(900, 3, 4), with_budget(900, 3, 5))
    assert differences == ["training.budget.planned.b.steps: 4 -> 5"]


def test_equal_studies_have_no_difference_and_reordered_ones_have_one() -> None:
    study = load()
    turned = study.model_copy(update={"arms": study.arms[::-1]})
    assert describe_difference(study, load()) == []
    assert describe_difference(study, turned) == [
        "arms: order baseline, full, lora-1 -> lora-1, full, baseline"
    ]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_study_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_study_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 6 is not valid UTF-8"):
        read_study_file(tmp_path / "latin.yaml")
    (tmp_path / "long.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="too long for a study file"):
        read_study_file(tmp_path / "long.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(preset_text("demo"), encoding="utf-8-sig")
    assert read_study_file(tmp_path / "study.yaml").name == "demo"


OF_ROWS = [p.example for p in PROTOCOLS if p.judge not in ("function", "harness")]


@pytest.mark.parametrize("protocol", ["blocks-2", "sliding-8-8", *OF_ROWS])
def test_each_protocol_may_stand_in_a_study_file(protocol: str) -> None:
    assert load(f"benchmarks.held.protocols=[{protocol}]").benchmarks[0].protocols == (protocol,)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"path": "a.jsonl", "task": "arc", "protocols": ("lm-eval-task",)}, "path and task are"),
        ({"task": "arc", "protocols": ("rows-text",)}, "lm-eval-task is for a task"),
        ({"task": "arc", "protocols": ("lm-eval-task",), "sample": 2}, "sample.*rows only"),
        ({"path": "a.jsonl", "protocols": ("choice",), "metric": "acc"}, "metric.*a task only"),
    ],
)
def test_a_task_of_the_harness_has_its_own_keys(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Benchmark(name="b", **keys)


@pytest.mark.parametrize(
    "entry",
    ["projection", "attention-projection", "lm_head", "transformer.h.*.attn.c_proj", "h.0.*"],
)
def test_layer_types_and_patterns_are_accepted(entry: str) -> None:
    assert load(f"arms.lora-1.placement=['{entry}']").arms[2].placement == (entry,)


def test_values_are_frozen_and_hashable() -> None:
    study = load()
    assert hash(study) == hash(load())
    with pytest.raises(ValueError, match="frozen"):
        study.arms[0].name = "other"


def test_models_made_in_code_are_checked_alike() -> None:
    with pytest.raises(ValueError, match="rank: is required for method lora"):
        Arm(name="x", method="lora", placement=("output",), alpha=1.0, learning_rates=(0.1,))
    with pytest.raises(ValueError, match="exactly one of id, path, builtin"):
        Source(split="test")


def test_sources_are_called_by_what_says_where_they_come_from() -> None:
    study = load()
    sources = (study.data.train, study.data.validation, study.benchmarks[0])
    assert [source.label for source in sources] == [
        "notes.txt",
        "owner/set plain validation",
        "docstrings test",
    ]
    assert study.base_model.parts == ("demo",)
