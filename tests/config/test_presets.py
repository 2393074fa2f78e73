"""The presets say what they promise."""

import pytest

from lorastudy.config.models import Arm, Study
from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import dump_study, list_presets, load_study, preset_text
from lorastudy.errors import ConfigError


def load_preset(name: str) -> Study:
    return load_study(preset_text(name), name)


def arms_of(name: str) -> dict[str, Arm]:
    return {arm.name: arm for arm in load_preset(name).arms}


def test_the_presets_are_listed_by_name() -> None:
    assert list_presets() == ("demo", "demo-answers", "paper", "paper-sound")


@pytest.mark.parametrize("name", list_presets())
def test_each_preset_loads_explains_itself_and_survives_a_dump(name: str) -> None:
    study = load_preset(name)
    assert study.name == name
    assert load_study(dump_study(study), "study.yaml") == study
    assert preset_text(name).count("#") >= 8
    assert max(len(line) for line in preset_text(name).splitlines()) <= 110


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'papr' \(did you mean 'paper'\?\)"):
        preset_text("papr")


def test_paper_is_the_published_protocol() -> None:
    training = load_preset("paper").training
    assert (training.epochs, training.rows_per_step, training.micro_batch) == (8, 70, 14)
    assert training.schedule.model_dump() == {
        "shape": "linear",
        "warmup": 0.1,
        "counted_in": "micro-batches",
    }
    assert training.optimizer.model_dump() == {
        "name": "adamw",
        "weight_decay": 0.01,
        "betas": (0.9, 0.999),
        "eps": 1e-9,
        "max_grad_norm": None,
    }
    assert training.schedule.rounding == "down"
    assert (training.precision, training.padding) == ("float32", "scored")
    assert training.implementation == "reference"
    assert (training.accumulation, training.first_group) == ("micro-batch-means", "one")


def test_paper_compares_the_published_arms_on_one_seed() -> None:
    study, arms = load_preset("paper"), arms_of("paper")
    assert list(arms) == ["baseline", "full", "lora-1", "lora-2", "lora-3", "lora-4"]
    assert arms["full"].learning_rates == (1e-4,)
    layer_types = ("attention", "projection", "feed-forward", "output")
    for n in range(1, 5):
        arm = arms[f"lora-{n}"]
        assert arm.placement == layer_types[:n]
        assert (arm.rank, arm.alpha, arm.dropout) == (16, 32, 0.1)
        assert arm.learning_rates == (1e-3,)
        assert arm.allow_tied == (n == 4)
    assert study.seeds == (42,)
    assert len(expand_study(study)) == 6


def test_paper_reads_the_published_data() -> None:
    study = load_preset("paper")
    data = study.data
    assert study.base_model.id == "openai-community/gpt2"
    assert (data.train.id, data.train.config) == ("Salesforce/wikitext", "wikitext-2-raw-v1")
    assert (data.train.split, data.validation.split) == ("train", "validation")
    assert (data.rows.cut, data.rows.length, data.rows.strip) == ("lines", 350, False)
    assert {b.name: (b.id, b.config, b.split) for b in study.benchmarks} == {
        "wikitext-2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "test"),
        "lambada": ("EleutherAI/lambada_openai", "en", "test"),
        "imdb": ("stanfordnlp/imdb", "plain_text", "test"),
    }
    assert all(set(b.protocols) == {"paper-padded", "rows-text"} for b in study.benchmarks)


def test_paper_sound_keeps_the_arms_and_tries_several_rates() -> None:
    paper, sound = arms_of("paper"), arms_of("paper-sound")
    for name, arm in paper.items():
        rates = sound[name].learning_rates
        assert sound[name].model_copy(update={"learning_rates": arm.learning_rates}) == arm
        assert set(arm.learning_rates) <= set(rates)
        assert len(rates) == (0 if name == "baseline" else 3)
    assert set(sound) - set(paper) == {"lora-2-attention-projection"}
    assert sound["lora-2-attention-projection"].placement == ("attention", "attention-projection")


def test_paper_sound_uses_the_default_protocol_and_three_seeds() -> None:
    study = load_preset("paper-sound")
    defaults = type(study.training)(epochs=8, rows_per_step=70, micro_batch=14)
    assert study.training == defaults
    assert (study.seeds, study.question) == ((0, 1, 2), "full-or-lora")
    chosen = {arm.name: arm.learning_rates[0] for arm in study.arms if arm.learning_rates}
    assert len(expand_study(study, chosen)) == 1 + 6 * 3 + 6 * 3


def test_demo_needs_nothing_from_outside() -> None:
    study = load_preset("demo")
    sources = [study.data.train, study.data.validation, *study.benchmarks]
    assert study.base_model.builtin == "demo"
    assert all(source.builtin is not None for source in sources)
    assert list(arms_of("demo")) == list(arms_of("paper"))
