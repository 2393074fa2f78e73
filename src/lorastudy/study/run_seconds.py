"""How long runs will take, by part: roughly from shapes, or closely from probed seconds.

Both ways give the same value, `RunSeconds`. It is that of a whole run with its benchmarks; a run
that only chooses a learning rate has no scores. A run that may stop early is predicted to the end.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study, list_runs_to_come
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable
from lorastudy.launch.attempt import TriedArm
from lorastudy.machine.speed import MachineSpeed, measure_speed
from lorastudy.run.probe import ProbedSeconds
from lorastudy.run.served import list_forms
from lorastudy.run.tasks import TaskItems
from lorastudy.study.check import ArmCheck, StudyCheck
from lorastudy.study.work import Work, count_epoch, count_evaluation, count_task
from lorastudy.train.validations import count_validations

_SET_UP_SECONDS = 1.0  # read inputs and a small model; roughly
_WRITTEN_BYTES = 400e6  # per second, hashed and flushed to the disk; roughly


@dataclass(frozen=True, slots=True)
class RunSeconds:
    """Predicted seconds of one run, by part."""

    set_up: float
    training: float  # optimizer steps
    validation: float
    checkpoints: float  # and best epochs
    scoring: float  # of all benchmarks under all protocols

    @property
    def total(self) -> float:
        """The sum of all parts."""
        parts: list[float] = [getattr(self, field.name) for field in fields(self)]
        return sum(parts)


def predict_roughly(arm: ArmCheck, checked: StudyCheck, speed: MachineSpeed) -> RunSeconds:
    """The seconds of a run of `arm` on a machine of this speed, from shapes alone."""
    base, layout, size, spec = checked.reader.base, arm.layout, arm.size, arm.spec

    def evaluate(table: RowTable, padding: Padding) -> float:
        return count_evaluation(base, table, padding, size.added).seconds_at(speed)

    def answer(items: TaskItems) -> float:
        return count_task(base, items.n_positions, items.n_steps, size.added).seconds_at(speed)

    scoring = sum(
        answer(part) if isinstance(part, TaskItems) else evaluate(part.table, part.padding)
        for part in checked.scored.values()
    )
    seconds = RunSeconds(_SET_UP_SECONDS, 0.0, 0.0, 0.0, scoring * _count_forms(arm))
    if not arm.trains:
        return seconds
    epoch: Work = count_epoch(
        base,
        spec.arm,
        spec.training,
        layout.epoch,
        layout.padding,
        trained_parameters=size.trained,
        added_parameters=size.added,
    )
    plan, n_validations = layout.plan, count_validations(spec.training, layout.plan)
    validated = evaluate(layout.validation_table, layout.padding) * n_validations
    if (items := layout.items_of_best) is not None:
        validated += answer(items) * n_validations
    return replace(
        seconds,
        training=epoch.seconds_at(speed) * plan.n_passes,
        validation=validated + evaluate(layout.train_slice, layout.padding) * plan.epochs,
        checkpoints=arm.bytes_in_the_making / _WRITTEN_BYTES * n_validations,
    )


def predict_from_probe(arm: ArmCheck, checked: StudyCheck, probed: ProbedSeconds) -> RunSeconds:
    """The seconds of a run of `arm`, from what was measured on a little of each part."""
    layout, plan = arm.layout, arm.layout.plan
    scoring = sum(
        probed.per_scored_token[name]
        * (part.n_positions if isinstance(part, TaskItems) else part.table.n_tokens())
        for name, part in checked.scored.items()
    )
    seconds = RunSeconds(probed.set_up, 0.0, 0.0, 0.0, scoring * _count_forms(arm))
    if not arm.trains:
        return seconds
    n_validations = count_validations(arm.spec.training, plan)
    validated = layout.validation_table.n_tokens() * n_validations
    validated += layout.train_slice.n_tokens() * plan.epochs
    answered = layout.items_of_best.n_positions * n_validations if layout.items_of_best else 0
    targets = count_targets(layout.epoch, layout.padding)
    return replace(
        seconds,
        training=probed.first_steps + probed.per_target * targets * plan.n_passes,
        validation=probed.per_validated_token * validated + probed.per_answered_token * answered,
        checkpoints=(probed.checkpoint + probed.best) * n_validations + probed.restore,
    )


def count_targets(table: RowTable, padding: Padding) -> int:
    """Targets of all rows of an epoch."""
    if padding.scored_length is None:
        return int(table.n_scored.sum())
    return table.n_rows * (padding.scored_length - 1)


def _count_forms(arm: ArmCheck) -> int:
    """How often benchmarks are scored: as trained, and merged into each form that is served."""
    return 1 + len(list_forms(arm.spec.arm))


@dataclass(frozen=True, slots=True)
class StudySeconds:
    """How long the runs of a study will take."""

    by_arm: Mapping[str, RunSeconds]  # of one run; of its probe if it was tried
    n_runs: Mapping[str, int]  # by arm
    total: float  # of all runs, one after the other
    tried: Mapping[str, TriedArm]  # by arm; empty: predicted roughly, from shapes


def predict_study(
    study: Study, checked: StudyCheck, tried: Mapping[str, TriedArm] | None = None
) -> StudySeconds:
    """The seconds of every run: from what was tried, or roughly from half a second of measuring.

    An arm that did not fit is predicted roughly as well.
    """
    known = tried or {}
    by_arm = {}
    for arm in checked.arms:
        probed = known[name].seconds if (name := arm.spec.arm.name) in known else None
        if probed is None:
            speed = measure_speed(
                checked.device, study.training.precision, checked.reader.base.hidden_size
            )
            by_arm[name] = predict_roughly(arm, checked, speed)
        else:
            by_arm[name] = predict_from_probe(arm, checked, probed)
    runs = (*expand_study(study), *list_runs_to_come(study, {}))
    return StudySeconds(
        by_arm=by_arm,
        n_runs=Counter(run.arm.name for run in runs),
        total=sum(_seconds_of(run, by_arm[run.arm.name]) for run in runs),
        tried=known,
    )


def _seconds_of(run: RunSpec, seconds: RunSeconds) -> float:
    """Those of one run; a run that only chooses a learning rate is not scored."""
    return seconds.total if run.benchmarks else seconds.total - seconds.scoring
