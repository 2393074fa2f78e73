"""Check everything about a study that can be known without training.

Nothing here trains or writes. Mistakes stop the study before its folder is touched.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lorastudy.config.models import Source, Study
from lorastudy.config.spec import RunSpec, expand_study, list_runs_to_come
from lorastudy.data.sources import locate_files
from lorastudy.errors import ConfigError, InputError, OutOfMemoryError
from lorastudy.machine.environment import limit_threads, refuse_precision
from lorastudy.machine.memory import available_bytes
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.arm_size import ArmSize, measure_arm
from lorastudy.model.base import (
    BaseDescription,
    build_without_weights,
    check_weights,
    quieten_libraries,
)
from lorastudy.model.base_folder import SNAPSHOTS, find_base_folder
from lorastudy.model.base_refusals import holds_weights
from lorastudy.model.base_weights import refuse_base_weights, refuse_optimizer
from lorastudy.model.checkpointing import checkpoint_layers
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.run.inputs import Reader
from lorastudy.run.layout import TrainingLayout, lay_out_training
from lorastudy.run.readers import open_reader
from lorastudy.run.samples import read_prompts
from lorastudy.store.checkpoints import KEPT
from lorastudy.store.locks import StudyLock
from lorastudy.store.places import Places
from lorastudy.study.lock import Scored, make_lock, read_scored
from lorastudy.study.predicted_peak import LongestRow, PeakPrediction, predict_arm_peak
from lorastudy.train.validations import count_validations
from lorastudy.units import write_mib


@dataclass(frozen=True, slots=True)
class ArmCheck:
    """What is known about one arm before it runs."""

    spec: RunSpec  # its first run
    placement: ResolvedPlacement
    size: ArmSize
    layout: TrainingLayout
    peak: PeakPrediction

    @property
    def disk_bytes(self) -> int:
        """Bytes that a finished run keeps: two checkpoints (with moments) and its best epoch."""
        return KEPT * self._checkpoint_bytes + self._best_bytes

    @property
    def bytes_in_the_making(self) -> int:
        """Bytes that exist only for a moment: one more checkpoint and best epoch."""
        return self._checkpoint_bytes + self._best_bytes

    @property
    def _checkpoint_bytes(self) -> int:
        return (8 + self._bytes_per_weight) * self.size.trained

    @property
    def _best_bytes(self) -> int:
        return self._bytes_per_weight * self.size.stored

    @property
    def _bytes_per_weight(self) -> int:
        return 4 if self.spec.arm.trained_weights == "float32" else 2

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.spec.arm.method != "baseline"


@dataclass(frozen=True, slots=True)
class StudyCheck:
    """What is known about a study before it runs."""

    reader: Reader
    device: torch.device
    arms: tuple[ArmCheck, ...]
    n_runs: int
    lock: StudyLock
    available_bytes: int
    scored: Scored


def check_study(study: Study, places: Places, device: torch.device) -> StudyCheck:
    """Resolve and lay out everything that can be known before training.

    Raises:
        ConfigError: Settings cannot be carried out with this model.
        InputError: Data or model files are missing or cannot be used.
        OutOfMemoryError: An adapter is larger than the memory that is available now.
    """
    quieten_libraries()
    limit_threads()
    refuse_precision(device, study.training.precision)
    _refuse_wrong_paths(study, places)
    refuse_optimizer(study.training.optimizer.name)
    for arm in study.arms:
        refuse_base_weights(arm.base_weights)
    reader = open_reader(study, places)
    if study.training.activation_checkpointing:
        checkpoint_layers(build_without_weights(reader.base.folder), drops_by_function=False)
    runs = expand_study(study)
    first_of_arm = {run.arm.name: run for run in reversed(runs)}
    sizes = _measure_arms([first_of_arm[arm.name] for arm in study.arms], reader.base)
    _refuse_equal_arms(study, {name: placement for name, (placement, _) in sizes.items()})
    # from here on, weights and texts are read
    if not weights_come_later(study, reader):
        check_weights(reader.base.folder, {arm.held_weights for arm in study.arms})
    arms = tuple(
        _check_arm(first_of_arm[arm.name], reader, *sizes[arm.name], device) for arm in study.arms
    )
    layout = arms[0].layout
    _refuse_short_epoch(study, layout)
    for checked in arms:
        if checked.trains and study.is_planned(checked.spec.arm):
            _refuse_few_validations(study, checked.layout)
    scored = read_scored(study, reader)
    if study.samples is not None:
        read_prompts(study.samples, reader)
    _refuse_unused_template(study, reader)
    predicted = tuple(a.peak.describe(a.spec.arm.name) for a in arms if a.trains)
    lock = make_lock(study, reader, layout, scored, device)
    lock = lock.model_copy(update={"predicted": predicted})
    n_runs = len(runs) + len(list_runs_to_come(study, {}))
    return StudyCheck(reader, device, arms, n_runs, lock, available_bytes(device), scored)


def _refuse_unused_template(study: Study, reader: Reader) -> None:
    """Check that a chat template writes something, now that all sources are open."""
    may_write_samples = study.samples is not None and study.samples.path is not None
    is_used = reader.has_messages or may_write_samples
    if study.data.chat_template_path is not None and not is_used:
        raise ConfigError(
            "data.chat_template_path is for messages, and no source of this study holds any. Leave "
            "it out."
        )


def weights_come_later(study: Study, reader: Reader) -> bool:
    """Whether the hub's cache has no weights yet, and `--offline` keeps them from being fetched.

    A run without it fetches them, so only then are missing weights no mistake.
    """
    folder = reader.base.folder
    is_cached = study.base_model.id is not None and folder.parent.name == SNAPSHOTS
    return is_cached and reader.places.offline and not holds_weights(folder)


def _refuse_wrong_paths(study: Study, places: Places) -> None:
    """Look for the files of every source, so that all wrong paths are named at once."""
    sources: dict[str, Source] = {
        **study.data.list_sources(),
        **{f"benchmarks.{benchmark.name}": benchmark for benchmark in study.benchmarks},
    }
    mistakes = []
    if study.base_model.path is not None:
        try:
            find_base_folder(study.base_model, mirror=places.mirror, offline=True, base=places.base)
        except InputError as error:
            mistakes.append(str(error))
    for key, source in sources.items():
        try:
            locate_files(source, mirror=places.mirror, base=places.base)
        except InputError as error:
            mistakes.append(f"{key}: {error}")
    if len(mistakes) > 1:
        raise InputError(f"{len(mistakes)} inputs are not there:\n  " + "\n  ".join(mistakes))
    if mistakes:
        raise InputError(mistakes[0])


def _measure_arms(
    specs: Iterable[RunSpec], base: BaseDescription
) -> dict[str, tuple[ResolvedPlacement, ArmSize]]:
    """Where every arm trains, and how much. What cannot be is said of all arms at once."""
    found, mistakes = {}, []
    for spec in specs:
        try:
            placement = resolve_arm(spec.arm, base)
            _refuse_oversized_adapter(spec, placement)
            found[spec.arm.name] = placement, measure_arm(spec.arm, base, placement)
        except ConfigError as error:
            mistakes.append(error)
    if len(mistakes) > 1:
        listed = "\n  ".join(map(str, mistakes))
        raise ConfigError(f"{len(mistakes)} arms cannot be carried out:\n  {listed}")
    if mistakes:
        raise mistakes[0]
    return found


def _check_arm(
    spec: RunSpec,
    reader: Reader,
    placement: ResolvedPlacement,
    size: ArmSize,
    device: torch.device,
) -> ArmCheck:
    layout = lay_out_training(spec, reader)
    peak = predict_arm_peak(
        spec.arm,
        spec.training,
        reader.base,
        placement,
        size,
        row=find_longest_row(layout, spec),
        device=device,
    )
    return ArmCheck(spec, placement, size, layout, peak)


def _refuse_oversized_adapter(spec: RunSpec, placement: ResolvedPlacement) -> None:
    """Check that main memory can hold the adapter, which is made there to count its parameters."""
    named = (spec.arm.peft or {}).get("r")
    if spec.arm.method == "lora" and placement.rank is not None:
        rank = max([placement.rank, *placement.ranks.values()])
        needed = 4 * placement.adapter_parameters(placement.rank)
    elif isinstance(named, int) and placement.targets:  # of another method: at least one module's
        rank = named
        needed = 4 * rank * max(t.in_features + t.out_features for t in placement.targets)
    else:
        return
    available = available_bytes(torch.device("cpu"))
    if needed > available:
        raise OutOfMemoryError(
            f"{spec.arm.name}: with rank {rank:,}, the adapter alone needs {write_mib(needed)} "
            f"MiB, and {write_mib(available)} MiB are available. Give this arm a smaller rank."
        )


def find_longest_row(layout: TrainingLayout, spec: RunSpec) -> LongestRow:
    """The row that the peak is predicted for: a full one, unless rows have prompts and answers."""
    table = layout.table
    if table.marks is None:
        return LongestRow(spec.data.rows.length, spec.data.rows.length)
    # these are no longer than the longest of them, and few of their tokens are scored
    return LongestRow(int(table.lengths.max()), int(table.n_scored.max()))


def _refuse_equal_arms(study: Study, placements: dict[str, ResolvedPlacement]) -> None:
    seen: dict[object, str] = {}
    for arm in study.arms:
        placement = placements[arm.name]
        # keys whose meaning the resolved placement holds, so that two ways to write it are equal
        said: dict[str, object] = {
            "name": "",
            "placement": (),
            "layers": None,
            "rank": None,
            "budget": None,
        }
        if arm.rank_pattern or arm.alpha_pattern:
            said |= {"rank_pattern": placement.ranks, "alpha_pattern": placement.alphas}
        if placement.rank is not None:
            said["alpha"] = arm.alpha_at(placement.rank)
        if not arm.trains_adapter:
            said["layers"] = arm.layers
        other = seen.setdefault((arm.model_copy(update=said), placement), arm.name)
        if other != arm.name:
            raise ConfigError(
                f"arms {other!r} and {arm.name!r} are the same after their placements are "
                "resolved. Remove one of them, or change what it adapts."
            )


def _refuse_short_epoch(study: Study, layout: TrainingLayout) -> None:
    if layout.plan.n_rows < study.training.rows_per_step:
        raise ConfigError(
            f"training.rows_per_step: {study.training.rows_per_step} rows are needed for one "
            f"optimizer step, but the train split has {layout.plan.n_rows}. Lower it, or give "
            "more text."
        )


def _refuse_few_validations(study: Study, layout: TrainingLayout) -> None:
    training, plan = study.training, layout.plan
    every, stopping = training.validate_every, training.early_stopping
    if every is not None and every >= plan.n_steps:
        raise ConfigError(
            f"training.validate_every: {every:,} optimizer steps, but a run has {plan.n_steps:,}, "
            "after which it validates in any case. Use a smaller number, or leave it out."
        )
    n_validations = count_validations(training, plan)
    if stopping is not None and stopping.patience + 1 >= n_validations:
        raise ConfigError(
            f"training.early_stopping.patience: {stopping.patience} can stop no run, since the "
            f"first validation always improves and a run has {n_validations}. Lower it, or "
            "validate more often with training.validate_every."
        )
