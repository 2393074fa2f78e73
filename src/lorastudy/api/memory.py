"""How the arms of a study fit into a device, as plain values."""

from dataclasses import dataclass

from lorastudy.study.cards import Card
from lorastudy.study.check import StudyCheck
from lorastudy.study.fitting import ArmFit, Harm, list_overrides
from lorastudy.study.predicted_peak import PeakPrediction


@dataclass(frozen=True, slots=True)
class FormatMemory:
    """The predicted memory of an arm with its base held in one format."""

    base_weights: str  # or trained_weights, for full fine-tuning
    parts: PeakPrediction  # bytes
    predicted_peak_bytes: int  # their sum
    fits: bool
    most_rows: int  # full rows that fit at once, at most those of a step; 0: not even one


@dataclass(frozen=True, slots=True)
class ArmMemory:
    """The predicted memory of an arm on a device."""

    arm: str
    formats: tuple[FormatMemory, ...]  # that the arm may have; the first is the study's
    change: dict[str, object]  # keys and values with which it fits; empty: it fits, or none do
    harm: Harm  # of the change to the comparison

    @property
    def fits(self) -> bool:
        """Whether it fits as the study has it."""
        return self.formats[0].fits


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """How all arms fit into a device."""

    device: str
    bytes: int
    usable_bytes: int  # without what a GPU's driver takes
    arms: tuple[ArmMemory, ...]
    change: dict[str, object]  # with which all arms fit that can be made to


def describe_fits(
    card: Card, usable_bytes: int, fits: tuple[ArmFit, ...], checked: StudyCheck
) -> DeviceMemory:
    """The facts of `fits`."""
    return DeviceMemory(
        device=card.name,
        bytes=card.bytes,
        usable_bytes=usable_bytes,
        arms=tuple(
            ArmMemory(
                arm=fit.arm,
                formats=tuple(
                    FormatMemory(one.held, one.peak, one.peak.total, one.fits, one.most_rows)
                    for one in fit.formats
                ),
                change=list_overrides((fit,), checked),
                harm=fit.harm,
            )
            for fit in fits
        ),
        change=list_overrides(fits, checked),
    )
