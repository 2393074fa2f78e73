"""Where each arm changed the model, and what these changes are worth, as means over its runs.

What a part is worth is the loss of the trained model without it, minus that with it. The values of
parts need not add up: one layer may make up for another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary
from lorastudy.store.explanations import Explanation, UpdateRecord, read_explanation
from lorastudy.store.folders import StudyFolder


@dataclass(frozen=True, slots=True)
class PartValue:
    """One layer, or the same modules of all layers."""

    name: str  # "3", or "attn.c_attn"
    value: Estimate  # nats per target that the model loses without its change


@dataclass(frozen=True, slots=True)
class ModulesUpdate:
    """How far training moved the same weights of all layers."""

    modules: str
    relative_norm: float  # ||D|| / ||W_base||, over all layers
    rank: float | None  # mean over matrices of the rank that D could have; None: no matrices
    rank_90: float | None  # mean over matrices of the rank that holds 90 % of norm²
    value: Estimate


@dataclass(frozen=True, slots=True)
class ArmExplanation:
    """What is known of one arm."""

    arm: str
    position: int  # in the study
    n_runs: int
    n_rows: int
    gain: Estimate  # loss of the base model minus that of the trained one, nats per target
    layers: tuple[PartValue, ...]
    modules: tuple[ModulesUpdate, ...]
    held: tuple[float, ...]  # mean share of norm² in the largest 1, 2, ... singular values


def read_explanations(
    arms: Sequence[ArmSummary], folder: Path | None
) -> tuple[ArmExplanation, ...]:
    """Those of `lorastudy explain` for runs that the report uses; none without a folder."""
    if folder is None:
        return ()
    study, found = StudyFolder(folder), []
    for position, arm in enumerate(arms):
        of_runs = [read_explanation(study.run(run.run_id)) for run in arm.runs]
        records = [record for record in of_runs if record is not None]
        if records and (explained := _summarise(arm.arm, position, records)) is not None:
            found.append(explained)
    return tuple(found)


def _summarise(arm: str, position: int, records: Sequence[Explanation]) -> ArmExplanation | None:
    gain = estimate_mean([r.base_cross_entropy - r.cross_entropy for r in records])
    if gain is None:
        return None
    values = {
        kind: {name: _value_of(name, kind, records) for name in _names(kind, records)}
        for kind in ("layer", "modules")
    }
    updates = [update for record in records for update in record.updates]
    return ArmExplanation(
        arm=arm,
        position=position,
        n_runs=len(records),
        n_rows=records[0].n_rows,
        gain=gain,
        layers=tuple(PartValue(name, value) for name, value in values["layer"].items()),
        modules=tuple(
            _describe(name, value, [u for u in updates if u.modules == name])
            for name, value in values["modules"].items()
        ),
        held=_held_shares(updates),
    )


def _names(kind: str, records: Sequence[Explanation]) -> Iterable[str]:
    return dict.fromkeys(p.name for record in records for p in record.parts if p.kind == kind)


def _value_of(name: str, kind: str, records: Sequence[Explanation]) -> Estimate:
    lost = [
        part.cross_entropy - record.cross_entropy
        for record in records
        for part in record.parts
        if (part.name, part.kind) == (name, kind)
    ]
    found = estimate_mean(lost)
    assert found is not None
    return found


def _describe(name: str, value: Estimate, updates: Sequence[UpdateRecord]) -> ModulesUpdate:
    moved, base = (
        sum(getattr(update, norm) ** 2 for update in updates) for norm in ("norm", "base_norm")
    )
    matrices = [update for update in updates if update.rank]
    ranks = [update.rank_90 for update in matrices if update.rank_90 is not None]
    return ModulesUpdate(
        modules=name,
        relative_norm=(moved / base) ** 0.5 if base else float("inf"),
        rank=_mean([update.rank for update in matrices]),
        rank_90=_mean(ranks) if len(ranks) == len(matrices) else None,
        value=value,
    )


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _held_shares(updates: Sequence[UpdateRecord]) -> tuple[float, ...]:
    """Matrices with fewer singular values than others hold all of their norm from there on."""
    spectra = [update for update in updates if update.singular_values and update.norm > 0]
    if not spectra:
        return ()
    longest = max(len(update.singular_values) for update in spectra)
    sums = [0.0] * longest
    for update in spectra:
        held = 0.0
        for place in range(longest):
            if place < len(update.singular_values):
                held += (update.singular_values[place] / update.norm) ** 2
            sums[place] += held / len(spectra)
    return tuple(sums)
