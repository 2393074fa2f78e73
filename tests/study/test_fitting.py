"""Which arms fit into the memory of a device, and what is changed for those that do not."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from lorastudy.config.models import Arm, BaseModelRef, Study
from lorastudy.config.study_file import dump_study, load_study
from lorastudy.store.places import Places
from lorastudy.study.check import StudyCheck, check_study
from lorastudy.study.fitting import ArmFit, fit_study, list_overrides
from lorastudy.study.predicted_peak import LongestRow, predict_arm_peak
from support.tiny_runs import ARMS, make_study, write_texts

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LENGTH = 64


@dataclass(frozen=True)
class Desk:
    study: Study
    places: Places

    def check(self, *overrides: str) -> StudyCheck:
        changed = load_study(dump_study(self.study), "the study", overrides)
        return check_study(changed, self.places, CPU)


@pytest.fixture(scope="module")
def desk(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    places = Places(write_texts(folder / "texts"), offline=True, cache=folder / "cache")
    study = make_study(tiny_gpt2, arms=(ARMS["full"], ARMS["lora"]))
    training = study.training.model_copy(update={"rows_per_step": 8, "micro_batch": 8})
    rows = study.data.rows.model_copy(update={"length": LENGTH})
    data = study.data.model_copy(update={"rows": rows})
    return Desk(study.model_copy(update={"training": training, "data": data}), places)


@pytest.fixture(scope="module")
def checked(desk: Desk) -> StudyCheck:
    return desk.check()


def predict(checked: StudyCheck, place: int, **changes: object) -> int:
    """Bytes of the arm at `place`, with other settings of training, or other rows or a base."""
    arm = checked.arms[place]
    held = {key: changes.pop(key) for key in ("base_weights", "trained_weights") if key in changes}
    length = changes.pop("row_length", LENGTH)
    if name := changes.pop("optimizer", None):
        settings = arm.spec.training.optimizer.model_copy(update={"name": name})
        changes["optimizer"] = settings
    return predict_arm_peak(
        arm.spec.arm.model_copy(update=held),
        arm.spec.training.model_copy(update=changes),
        checked.reader.base,
        arm.placement,
        arm.size,
        row=LongestRow(length, length),
        device=CUDA,
    ).total


def fit(checked: StudyCheck, usable_bytes: int) -> tuple[ArmFit, ...]:
    return fit_study(checked, usable_bytes=usable_bytes, device=CUDA)


def overrides_of(fits: tuple[ArmFit, ...], checked: StudyCheck) -> list[str]:
    return [f"{key}={value}" for key, value in list_overrides(fits, checked).items()]


def test_as_many_rows_are_computed_at_once_as_fit(checked: StudyCheck) -> None:
    usable = predict(checked, 1, micro_batch=5)
    (_, lora) = fit(checked, usable)
    assert (lora.formats[0].most_rows, lora.formats[0].fits) == (5, False)
    assert lora.harm == "none" and lora.change is not None
    assert overrides_of((lora,), checked) == [f"training.token_budget={5 * LENGTH}"]
    assert fit(checked, usable - 1)[1].formats[0].most_rows == 4


def test_an_arm_that_fits_is_not_changed(checked: StudyCheck) -> None:
    largest = max(predict(checked, place) for place in (0, 1))
    fits = fit(checked, largest)
    assert all(one.formats[0].fits and one.change is None for one in fits)
    assert overrides_of(fits, checked) == []


def test_changes_come_in_the_order_of_their_harm(checked: StudyCheck) -> None:
    one_row = {"token_budget": LENGTH}
    remade = {**one_row, "activation_checkpointing": True}
    shorter = {**remade, "token_budget": 32}
    full = [
        (predict(checked, 0, **remade), "none"),
        (predict(checked, 0, **remade, optimizer="adamw-8bit"), "named"),
        (predict(checked, 0, **remade, trained_weights="bfloat16"), "named"),
        (predict(checked, 0, **shorter, optimizer="adamw-8bit", row_length=32), "other data"),
    ]
    lora = [
        (predict(checked, 1, **remade), "none"),
        (predict(checked, 1, **remade, base_weights="bfloat16"), "named"),
        (predict(checked, 1, **remade, base_weights="nf4"), "named"),
    ]
    for place, steps in ((0, full), (1, lora)):
        for usable, harm in steps:
            found = fit(checked, usable)[place]
            assert found.harm == harm and found.change is not None, (place, usable)
    held = [fit(checked, usable)[1].change for usable, _ in lora]
    assert [change and change.held for change in held] == ["float32", "bfloat16", "nf4"]


def test_what_no_change_makes_fit_has_none(checked: StudyCheck) -> None:
    assert [one.change for one in fit(checked, 1_000)] == [None, None]


def test_arms_have_the_formats_that_a_study_file_may_give_them(checked: StudyCheck) -> None:
    full, lora = fit(checked, 10**9)
    assert [one.held for one in full.formats] == ["float32", "bfloat16"]
    assert [one.held for one in lora.formats] == [
        "float32", "bfloat16", "int8", "nf4", "nf4-double",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of PEFT's methods
@pytest.mark.parametrize(
    ("keys", "formats"),
    [
        ({"peft_type": "LOHA"}, ["float32", "bfloat16"]),  # PEFT has no packed form of it
        ({"peft_type": "SHIRA", "r": 2}, ["float32"]),  # nor one for bfloat16
        ({"peft_type": "LORA", "init_lora_weights": "pissa"}, ["float32"]),
    ],
)
def test_methods_of_peft_have_the_formats_in_which_they_are_not_refused(
    keys: dict[str, object], formats: list[str], desk: Desk, tiny_llama: Path
) -> None:
    arm = Arm(name="x", method="peft", placement=("attention",), peft=keys, learning_rates=(1e-3,))
    other = {"arms": (arm,), "base_model": BaseModelRef(path=str(tiny_llama))}
    (fitted,) = fit(check_study(desk.study.model_copy(update=other), desk.places, CPU), 10**9)
    assert [one.held for one in fitted.formats] == formats


@pytest.mark.parametrize("share", [0.9, 0.6])
def test_with_all_changes_the_study_is_valid_and_every_arm_fits(
    desk: Desk, checked: StudyCheck, share: float
) -> None:
    usable = round(share * predict(checked, 0))
    overrides = overrides_of(fit(checked, usable), checked)
    assert overrides and not any("8bit" in o or "nf4" in o for o in overrides)  # need bitsandbytes
    assert all(one.formats[0].fits for one in fit(desk.check(*overrides), usable))


def test_a_token_budget_replaces_a_wider_one(desk: Desk) -> None:
    checked = desk.check(f"training.token_budget={6 * LENGTH}")
    usable = predict(checked, 1, token_budget=2 * LENGTH)
    lora = replace(fit(checked, usable)[1])
    assert overrides_of((lora,), checked) == [f"training.token_budget={2 * LENGTH}"]
