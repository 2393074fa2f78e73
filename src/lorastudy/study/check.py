"""A study as a whole: check everything that can be known, then execute what is missing.

Nothing here trains. `prepare_study` stops for every mistake it can find before the first
training step; `missing_runs` asks the folders what is left.
"""

import hashlib
import itertools
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.config.study_file import describe_difference, dump_study, load_study
from lorastudy.data.corpus import Corpus
from lorastudy.errors import ConfigError, InputError, OutOfMemoryError, StorageError
from lorastudy.machine.environment import refuse_precision, take_fingerprint
from lorastudy.machine.memory import available_bytes
from lorastudy.model.base_folder import digest_base
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.run.inputs import Reader, open_reader
from lorastudy.run.setup import TrainingLayout, lay_out_training, resolve_arm
from lorastudy.store.checkpoints import KEPT
from lorastudy.store.files import read_record, write_record, write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places
from lorastudy.store.records import FoundAt, StudyLock
from lorastudy.study.predicted_peak import PeakPrediction, predict_peak
from lorastudy.units import write_mib


@dataclass(frozen=True, slots=True)
class ArmCheck:
    """What is known of one arm before it runs."""

    spec: RunSpec  # its first run
    placement: ResolvedPlacement
    trainable_parameters: int
    adapter_parameters: int
    layout: TrainingLayout
    peak: PeakPrediction

    @property
    def disk_bytes(self) -> int:
        """What a finished run keeps: two checkpoints (weight, two moments) and its best epoch."""
        return self.trainable_parameters * 4 * (3 * KEPT + 1)

    @property
    def bytes_in_the_making(self) -> int:
        """What is there for a moment besides: one more checkpoint and best epoch."""
        return self.trainable_parameters * 4 * (3 + 1)

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return self.spec.arm.method != "baseline"


@dataclass(frozen=True, slots=True)
class StudyCheck:
    """What is known of a study before it runs."""

    reader: Reader
    arms: tuple[ArmCheck, ...]
    n_runs: int
    lock: StudyLock
    available_bytes: int


def check_study(study: Study, places: Places, device: torch.device) -> StudyCheck:
    """Resolve and lay out everything short of loading weights.

    Raises:
        ConfigError: Settings that cannot be carried out with this model.
        InputError: Data or model files that are missing or unfit.
    """
    refuse_precision(device, study.training.precision)
    reader = open_reader(study, places)
    runs = expand_study(study)
    first_of_arm = {run.arm.name: run for run in reversed(runs)}
    placements = {name: resolve_arm(run, reader) for name, run in first_of_arm.items()}
    _refuse_equal_arms(study, placements)
    arms = tuple(
        _check_arm(first_of_arm[arm.name], reader, placements[arm.name], device)
        for arm in study.arms
    )
    _refuse_short_epoch(study, arms[0].layout)
    digests = {
        f"{benchmark.name}--{protocol}": reader.benchmark_rows(
            benchmark, protocol, study.data.rows
        ).corpus.digest
        for benchmark in study.benchmarks
        for protocol in benchmark.protocols
    }
    digests["train"] = arms[0].layout.corpus.digest
    digests["validation"] = arms[0].layout.validation_corpus.digest
    lock = StudyLock(
        base_digest=digest_base(reader.base.folder),
        tokenizer_digest=reader.tokenizer.digest,
        corpora=digests,
        studies=(study,),
        environment=take_fingerprint(
            device, study.training.precision, micro_batch=study.training.micro_batch
        ),
    )
    return StudyCheck(reader, arms, len(runs), lock, available_bytes(device))


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many documents of a benchmark are in the training split, token for token."""

    benchmark: str
    documents: int
    of: int


def count_overlap(study: Study, reader: Reader) -> tuple[Overlap, ...]:
    """The documents that training and benchmarks share, white space at their ends left out."""
    trained = _digest_documents(reader.corpus(study.data.train, "texts"))
    found = []
    for benchmark in study.benchmarks:
        tested = _digest_documents(reader.corpus(benchmark, "texts"))
        known = set(trained)
        shared = sum(digest in known for digest in tested)
        found.append(Overlap(benchmark.name, shared, len(tested)))
    return tuple(found)


def _digest_documents(corpus: Corpus) -> list[bytes]:
    tokens, offsets = corpus.tokens, corpus.offsets.tolist()
    return [
        hashlib.sha256(tokens[begin:end].tobytes()).digest()
        for begin, end in itertools.pairwise(offsets)
    ]


def _check_arm(
    spec: RunSpec, reader: Reader, placement: ResolvedPlacement, device: torch.device
) -> ArmCheck:
    adapter = placement.adapter_parameters(spec.arm.rank) if spec.arm.rank else 0
    trained = reader.base.total_parameters if spec.arm.method == "full" else adapter
    peak = predict_peak(
        reader.base,
        spec.training,
        row_length=spec.data.rows.length,
        trained_parameters=trained,
        adapter_parameters=adapter,
        adapted_in_features=sum(target.in_features for target in placement.targets),
        dropout=spec.arm.dropout,
        device=device,
    )
    layout = lay_out_training(spec, reader)
    return ArmCheck(spec, placement, trained, adapter, layout, peak)


def _refuse_equal_arms(study: Study, placements: dict[str, ResolvedPlacement]) -> None:
    seen: dict[object, str] = {}
    for arm in study.arms:
        settings = arm.model_copy(update={"name": "", "placement": placements[arm.name].paths})
        other = seen.setdefault(settings, arm.name)
        if other != arm.name:
            raise ConfigError(
                f"arms {other!r} and {arm.name!r} are the same after their placements are "
                "resolved. Remove one of them, or change what it adapts."
            )


def _refuse_short_epoch(study: Study, layout: TrainingLayout) -> None:
    if layout.plan.n_rows < study.training.rows_per_step:
        raise ConfigError(
            f"training.rows_per_step: {study.training.rows_per_step} rows are wanted for one "
            f"optimizer step, but the train split has {layout.plan.n_rows}. Lower it, or give "
            "more text."
        )


def start_study(study: Study, folder: StudyFolder) -> None:
    """Write `study.yaml`, or see that it is the one that was started here.

    Raises:
        ConfigError: Another study was started in this folder; its differences are listed.
    """
    if not folder.study.is_file():
        write_text(folder.study, dump_study(study))
        return
    before = load_study(folder.study.read_text(encoding="utf-8"), str(folder.study))
    if differences := describe_difference(before, study):
        raise ConfigError(
            f"{folder.path} was started with other settings:\n  "
            + "\n  ".join(differences)
            + "\nGive another folder with --out, or continue this one with "
            f"`lorastudy run {folder.path}`. Arms and seeds are added with `lorastudy extend`."
        )


def remember_places(places: Places, folder: StudyFolder) -> None:
    """Let later commands on this folder find the same inputs without being told again."""
    mirror = str(places.mirror.resolve()) if places.mirror else None
    write_record(folder.places, FoundAt(base=str(places.base.resolve()), mirror=mirror))


def lock_study(lock: StudyLock, folder: StudyFolder) -> StudyLock:
    """Write `study.lock.json`, or see that data and model are still those it names; return it.

    Raises:
        InputError: A file behind the study changed since it was started.
    """
    if not folder.lock.is_file():
        write_record(folder.lock, lock)
        return lock
    before = read_record(folder.lock, StudyLock)
    digests = ("base_digest", "tokenizer_digest", "corpora")
    changed = [key for key in digests if getattr(before, key) != getattr(lock, key)]
    if changed:
        raise InputError(
            f"{folder.path}: {', '.join(changed)} differ from study.lock.json: the data or the "
            "base model changed since the study was started. Restore them, or start a new folder."
        )
    return before


def refuse_full_disk(missing: Iterable[RunSpec], arms: Iterable[ArmCheck], path: Path) -> None:
    """See that what the runs will write has room under `path`.

    Raises:
        StorageError: It has not (exit 74); names both numbers.
    """
    by_arm = {arm.spec.arm.name: arm for arm in arms}
    runs = [by_arm[run.arm.name] for run in missing]
    in_the_making = max((arm.bytes_in_the_making for arm in runs), default=0)
    needed = sum(arm.disk_bytes for arm in runs) + in_the_making
    where = next(parent for parent in (path, *path.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(where).free
    if needed > free:
        raise StorageError(
            f"{path}: the {len(runs)} runs will write {needed:,} bytes, and {free:,} are free. "
            "Free space, choose another folder with --out, or run fewer arms at a time with --arm."
        )


def refuse_oversized(
    missing: Iterable[RunSpec], arms: Iterable[ArmCheck], *, total_bytes: int
) -> None:
    """See that the predicted peak of every missing run is no more than the memory there is.

    Raises:
        OutOfMemoryError: It is more (exit 7); says of which arm, and what to do.
    """
    names = {run.arm.name for run in missing}
    largest = max(
        (arm for arm in arms if arm.spec.arm.name in names),
        key=lambda arm: arm.peak.total,
        default=None,
    )
    if largest is not None and largest.peak.total > total_bytes:
        raise OutOfMemoryError(
            f"{largest.spec.arm.name}: a micro-batch of {largest.spec.training.micro_batch} rows "
            f"of {largest.spec.data.rows.length} tokens needs about "
            f"{write_mib(largest.peak.total)} MiB, and {write_mib(total_bytes)} MiB is all there "
            "is. Lower training.micro_batch, or set training.token_budget, which cuts it without "
            "changing the sums. With --probe this is measured and not predicted."
        )


def missing_runs(
    runs: Iterable[RunSpec], folder: StudyFolder, *, again: bool = False
) -> tuple[RunSpec, ...]:
    """Runs that are not done; those that diverged would do so again and wait for `again`."""
    open_states = {"failed", "out-of-memory"} | ({"diverged"} if again else set())

    def is_missing(run: RunSpec) -> bool:
        result = folder.run(run.run_id).read_result()
        return result is None or result.status in open_states

    return tuple(run for run in runs if is_missing(run))
