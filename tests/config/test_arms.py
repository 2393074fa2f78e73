"""Keys of arms: which method has which, how they are written, and that defaults change nothing."""

import pytest
from pydantic import ValidationError

from lorastudy.config.arm_words import list_places, list_settings, name_method
from lorastudy.config.models import Arm, Study
from lorastudy.config.sources import StoredWeights
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.config.study_file import dump_study, load_study, preset_text
from lorastudy.errors import ConfigError

PLACED = "placement: [attention], learning_rates: [1e-3]"
LORA = f"method: lora, {PLACED}, rank: 4, alpha: 8"


def load(arm: str, *overrides: str) -> Study:
    arms = f"arms=[{{name: x, {arm}}}]"
    return load_study(preset_text("demo"), "demo", (arms, "benchmarks=[]", *overrides))


def arm_of(text: str) -> Arm:
    return load(text).arms[0]


def run_of(text: str) -> RunSpec:
    return expand_study(load(text))[0]


def test_new_keys_at_their_defaults_stay_out_of_identities() -> None:
    dumped = arm_of(LORA).model_dump(mode="json")
    old = {"name", "method", "placement", "rank", "alpha", "dropout", "allow_tied"}
    assert dumped.keys() == {*old, "learning_rates"}


@pytest.mark.parametrize(
    "key",
    [
        *("use_rslora: true", "use_dora: true", "init_lora_weights: pissa", "layers: last-2"),
        *("rank_pattern: {attention: 2}", "alpha_pattern: {attention: 2}"),
        *("loraplus_lr_ratio: 16", "init_lora_weights: false", "layers: 0-1"),
    ],
)
def test_a_new_key_changes_the_identity_and_survives_a_round_trip(key: str) -> None:
    spec = run_of(f"{LORA}, {key}")
    assert spec.identity != run_of(LORA).identity
    study = load(f"{LORA}, {key}")
    assert load_study(dump_study(study), "dumped") == study
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_keys_of_peft_are_kept_as_they_are_and_compared_by_content() -> None:
    keys = "{peft_type: IA3, feedforward_modules: [projection], init_ia3_weights: true}"
    arm = arm_of(f"method: peft, {PLACED}, peft: {keys}")
    assert arm.peft == {
        "peft_type": "IA3",
        "feedforward_modules": ["projection"],
        "init_ia3_weights": True,
    }
    assert hash(arm) == hash(arm_of(f"method: peft, {PLACED}, peft: {keys}"))
    assert (
        RunSpec.model_validate_json(
            run_of(f"method: peft, {PLACED}, peft: {keys}").model_dump_json()
        ).arm
        == arm
    )


@pytest.mark.parametrize(
    ("budget", "number"),
    [("1.6M", 1_600_000), ("800k", 800_000), ("5000", 5000), ("2.5e6", 2_500_000)],
)
def test_a_budget_is_a_number_of_parameters(budget: str, number: int) -> None:
    arm = arm_of(f"method: lora, {PLACED}, alpha: 2r, budget: {budget}")
    assert arm.budget == number
    assert arm.alpha_at(8) == 16.0


@pytest.mark.parametrize(
    ("arm", "mistake"),
    [
        (f"{LORA}, budget: 1M", "arms.x.budget: chooses the rank; leave out rank"),
        (f"method: lora, {PLACED}, alpha: 8", "arms.x.rank: is required for method lora"),
        (f"{LORA}, budget: many", "arms.x.budget: 'many' is not a number of parameters"),
        (f"{LORA}, layers: last", "arms.x.layers: 'last' does not name layers; write 3, 0-5"),
        (f"{LORA}, layers: 5-2", "arms.x.layers: '5-2' ends before it begins"),
        (f"{LORA}, init_lora_weights: 3", "arms.x.init_lora_weights: 3 is neither true, false"),
        (f"{LORA}, rank_pattern: {{attn: 2}}", "'attn' is neither a layer type nor a dotted"),
        (f"{LORA}, rank_pattern: 2", "arms.x.rank_pattern: must be a mapping of keys, not 2"),
        (f"{LORA}, peft: {{r: 2}}", "arms.x.peft: does not apply to method lora"),
        (f"method: peft, {PLACED}, peft: {{r: 2}}", "arms.x.peft.peft_type: is required"),
        (f"method: peft, {PLACED}", "arms.x.peft: is required for method peft"),
        ("method: head, rank: 2, learning_rates: [1e-3]", "arms.x.rank: does not apply to method"),
        ("method: last-layers, learning_rates: [1e-3]", "arms.x.layers: is required for method"),
        ("method: last-layers, layers: 0-2, learning_rates: [1e-3]", "write last-2"),
    ],
)
def test_keys_that_do_not_fit_are_named(arm: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(arm)
    assert mistake in str(caught.value)


def test_an_arm_is_named_in_plain_words() -> None:
    dora = arm_of(f"{LORA}, use_dora: true, use_rslora: true, layers: last-2")
    assert (name_method(dora), list_places(dora)) == ("rsDoRA", ("attention", "layers last-2"))
    pissa = arm_of(f"{LORA}, init_lora_weights: pissa, loraplus_lr_ratio: 16")
    assert name_method(pissa) == "LoRA+ started with pissa"
    assert list_settings(pissa)[-1] == "16 times the learning rate for B"
    vera = arm_of(f"method: peft, {PLACED}, peft: {{peft_type: VERA, r: 64}}")
    assert (name_method(vera), list_settings(vera)) == ("PEFT's VERA", ("r 64",))
    last = arm_of("method: last-layers, layers: last-2, learning_rates: [1e-3]")
    assert (name_method(last), list_places(last)) == ("the last 2 layers", ())
    only = arm_of("method: last-layers, layers: last-1, learning_rates: [1e-3]")
    assert name_method(only) == "the last layer"


@pytest.mark.parametrize("digits", ["", "f" * 63, "f" * 65, "F" * 64, "g" * 64, "f" * 64 + "\n"])
def test_weights_from_elsewhere_are_known_by_a_whole_hash(digits: str) -> None:
    found = {"folder": "adapter", "kind": "adapter", "bytes": 1}
    StoredWeights.model_validate({**found, "sha256": "0f" * 32})
    with pytest.raises(ValidationError, match="sha256"):
        StoredWeights.model_validate({**found, "sha256": digits})
