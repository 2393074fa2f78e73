"""The published study's claims as data: the claim, its arms, and how it is tested.

V. Dordiuk, "A comparative study of applying LoRA to GPT-2 architecture" (2024). A claim names
roles instead of arms, so that any study with arms in these roles answers it (`answers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorastudy.analysis.summary import ArmSummary

Role = Literal[
    "full", "baseline", "every LoRA", "smallest LoRA", "other LoRAs", "every trained", "lora-2",
    "lora-3",
]  # fmt: skip
Relation = Literal["lower", "higher", "no worse"]
Quantity = Literal["peak memory", "training time", "validation loss after the first epoch"]


@dataclass(frozen=True, slots=True)
class ScoreClaim:
    """The loss of one role compared with another's, for every benchmark and protocol."""

    text: str
    asked: str  # how the claim is tested with numbers
    first: Role
    second: Role
    relation: Relation
    is_far_only: bool = False  # only benchmarks from another source than the training data


@dataclass(frozen=True, slots=True)
class CostClaim:
    """A quantity of a whole run that is lower than another role's, or that grows over the arms."""

    text: str
    asked: str
    quantity: Quantity
    first: Role
    second: Role | None  # None: from each arm to the one with the next more parameters
    asked_of_sum: str = ""  # in place of `asked`, where the published sum of seconds is recorded


Claim = ScoreClaim | CostClaim

MARGIN = "(margin)"  # in `asked`: the study's margin of equivalence in nats
_LOWER = "the loss is lower in every pair, separated after Holm's adjustment"

CLAIMS: tuple[Claim, ...] = (
    ScoreClaim(
        text="Fine-tuning improves on the base model.",
        asked=f"every trained arm beside the baseline: {_LOWER}",
        first="every trained",
        second="baseline",
        relation="lower",
    ),
    ScoreClaim(
        text="LoRA is on par with full fine-tuning.",
        asked="every LoRA arm beside full: the whole interval of its loss minus full's lies below "
        f"+{MARGIN} nats",
        first="every LoRA",
        second="full",
        relation="no worse",
    ),
    ScoreClaim(
        text="LoRA-1 is worse than the other placements on texts of other kinds "
        "(LAMBADA and IMDB).",
        asked="the LoRA arm with the fewest trained parameters beside every other: the loss is "
        "higher in every pair, separated after Holm's adjustment",
        first="smallest LoRA",
        second="other LoRAs",
        relation="higher",
        is_far_only=True,
    ),
    ScoreClaim(
        text="LoRA-2 is better than full fine-tuning.",
        asked=f"the arm lora-2 beside full: {_LOWER}",
        first="lora-2",
        second="full",
        relation="lower",
    ),
    ScoreClaim(
        text="LoRA-3 is better than full fine-tuning.",
        asked=f"the arm lora-3 beside full: {_LOWER}",
        first="lora-3",
        second="full",
        relation="lower",
    ),
    CostClaim(
        text="Memory grows with the trained parameters.",
        asked="from each arm to the one with the next more trained parameters, peak memory rises",
        quantity="peak memory",
        first="every trained",
        second=None,
    ),
    CostClaim(
        text="Training time grows with the trained parameters.",
        asked="from each arm to the one with the next more trained parameters, time rises",
        asked_of_sum="from each arm to the one with the next more trained parameters, the time of "
        "training, validation and checkpoints (that of Figure 4) rises",
        quantity="training time",
        first="every trained",
        second=None,
    ),
    CostClaim(
        text="LoRA needs less memory than full fine-tuning.",
        asked="peak memory of every LoRA arm is lower than full's",
        quantity="peak memory",
        first="every LoRA",
        second="full",
    ),
    CostClaim(
        text="LoRA trains faster than full fine-tuning.",
        asked="time in optimizer steps of every LoRA arm is lower than full's",
        asked_of_sum="the time of training, validation and checkpoints (that of Figure 4) of every "
        "LoRA arm is lower than full's",
        quantity="training time",
        first="every LoRA",
        second="full",
    ),
    CostClaim(
        text="LoRA reaches a low validation loss sooner.",
        asked="the validation loss of every LoRA arm after the first epoch is lower than full's",
        quantity="validation loss after the first epoch",
        first="every LoRA",
        second="full",
    ),
)


_PAPER_STUDIES = ("paper", "paper-sound")  # names of presets
_PAPER_BENCHMARKS = ("wikitext-2", "lambada", "imdb")


def is_paper_study(name: str, benchmarks: Sequence[str]) -> bool:
    """Whether the published claims are asked of a study.

    It has the name of one of the paper's presets, or it scores all of the paper's test sets.
    """
    named = {benchmark.casefold() for benchmark in benchmarks}
    return name in _PAPER_STUDIES or named.issuperset(_PAPER_BENCHMARKS)


def arms_in_role(role: Role, arms: Sequence[ArmSummary]) -> tuple[ArmSummary, ...]:
    """The arms of a study that have a role; trained arms in the order of trained parameters.

    An arm without a finished run has no role. `lora-2` and `lora-3` are the arms with these names,
    since their layers cannot be found by counting.
    """
    finished = [arm for arm in arms if arm.runs]
    by_size = sorted(
        (arm for arm in finished if arm.runs[0].method != "baseline"),
        key=lambda arm: arm.trainable_parameters or 0,
    )
    loras = tuple(arm for arm in by_size if arm.runs[0].method == "lora")
    match role:
        case "baseline" | "full":
            return tuple(arm for arm in finished if arm.runs[0].method == role)
        case "every LoRA":
            return loras
        case "smallest LoRA":
            return loras[:1]
        case "other LoRAs":
            return loras[1:]
        case "every trained":
            return tuple(by_size)
        case "lora-2" | "lora-3":
            return tuple(arm for arm in loras if arm.arm.casefold() == role)
