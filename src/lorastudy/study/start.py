"""Start a study's folder, or check that it may continue, and say which runs are missing.

    study.yaml         what is compared; written once, afterwards only extended
    study.lock.json    digests of data and base model that every run must match
    .places.json       where this study found its inputs

All mistakes that can be known beforehand are refused before any of these files is written.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec
from lorastudy.config.study_file import dump_study, with_plan_of
from lorastudy.config.two_studies import describe_difference, extends
from lorastudy.errors import ConfigError, InputError, show_names
from lorastudy.launch.probe import probe_study
from lorastudy.machine.environment import choose_device
from lorastudy.machine.memory import total_bytes
from lorastudy.model.adapter_files import CONFIG as ADAPTER_CONFIG
from lorastudy.model.base_refusals import refuse_other_formats
from lorastudy.store.collect import read_own_file, write_extension
from lorastudy.store.files import read_record, refuse_unwritable, write_record, write_text
from lorastudy.store.folder_records import FoundAt
from lorastudy.store.folders import StudyFolder
from lorastudy.store.locks import StudyLock, read_lock, write_lock
from lorastudy.store.places import Places
from lorastudy.store.rates import list_runs
from lorastudy.store.records import Manifest
from lorastudy.study.check import check_study
from lorastudy.study.notes import note_overlaps, note_study
from lorastudy.study.open import OpenedStudy
from lorastudy.study.shortages import refuse_full_disk, refuse_oversized


class Begun(NamedTuple):
    """A study whose folder is started, or may continue."""

    missing: tuple[RunSpec, ...]  # the runs that are to be executed
    notes: tuple[str, ...]  # the same that `check` says


def start_or_continue(
    opened: OpenedStudy,
    runs: tuple[RunSpec, ...],
    *,
    device: str,
    to_come: tuple[RunSpec, ...] = (),
    again: bool = False,
    probe: bool | None = None,
) -> Begun:
    """Check the study, write or compare its folder, and say which of `runs` are missing.

    `to_come` are runs that follow later in the same folder, which must have room for them too.
    With `again`, runs that diverged count as missing too. `probe` first tries every arm's memory;
    None does so only on a device with its own memory, where running out of it ends a run.

    Raises:
        UserError: Anything is wrong that can be known before the first training step.
    """
    study, folder, where = opened.study, opened.folder, choose_device(device)
    refuse_folder(study, folder)
    # check that everything fits together before anything is written
    checked = check_study(study, opened.places, where)
    if missing := missing_runs(runs, folder, again=again):
        refuse_other_formats(checked.reader.base.folder)  # its weights were checked before
        refuse_full_disk((*missing, *to_come), checked.arms, folder.path)
        if probe is None:
            refuse_oversized(missing, checked.arms, total_bytes=total_bytes(where))
    # write the folder, or check that it belongs to this study
    start_study(study, folder)
    lock = lock_study(checked.lock, folder)
    if missing:
        lock = _note_predicted(checked.lock, lock, folder)
    remember_places(opened.places, folder)
    if missing and (where.type == "cuda" if probe is None else probe):
        probed = probe_study(lock, study, missing, folder, places=opened.places, device=device)
        now = read_lock(folder)  # it may have been extended meanwhile
        found = {"probed": probed.probed, "micro_batch": probed.micro_batch}
        write_lock(folder, now.model_copy(update=found))
    return Begun(missing, (*note_study(study, checked), *note_overlaps(checked.lock)))


def missing_runs(
    runs: Iterable[RunSpec], folder: StudyFolder, *, again: bool = False
) -> tuple[RunSpec, ...]:
    """Runs that are not done; those that diverged or were damaged only with `again`."""
    open_states = {"failed", "out-of-memory"} | ({"diverged", "damaged"} if again else set())

    def is_missing(run: RunSpec) -> bool:
        result = folder.run(run.run_id).read_outcome(run)
        return result is None or result.status in open_states

    return tuple(run for run in runs if is_missing(run))


def start_study(study: Study, folder: StudyFolder) -> None:
    """Write `study.yaml`, or check that it is the one that was started here.

    Arms, seeds and learning rates that were added to the file extend the study. An earlier state
    of the study is accepted too, and carried out without what was added.

    Raises:
        ConfigError: See `refuse_folder`.
    """
    refuse_folder(study, folder)
    if not folder.study.is_file():
        write_text(folder.study, dump_study(study))
        return
    before = read_own_file(folder)
    if extends(before, study):
        locked = read_lock(folder).studies if folder.lock.is_file() else ()
        started = locked or (before,)
        if study not in started:  # added to the file just now, or before this command
            # a plan for what was added before is not an extension of its own
            is_plan = with_plan_of(started[-1], study) == study
            write_extension(folder, started[0 if is_plan else -1], study)


def refuse_folder(study: Study, folder: StudyFolder) -> None:
    """Check that the folder is free, or that of this study: extended, or as it was before.

    Nothing slow is done, so this comes before everything that takes time.

    Raises:
        ConfigError: Another study was started in it; its differences are listed. Or it is the
            folder of a model or an adapter.
    """
    if not folder.study.is_file():
        _refuse_weights(folder.path)
        refuse_unwritable(folder.path, is_folder=True)
        return
    if extends(before := read_own_file(folder), study):
        return
    if folder.lock.is_file() and study in read_lock(folder).studies and extends(study, before):
        return  # extended since this command read it; what was added is left to another command
    if differences := describe_difference(before, study):
        raise ConfigError(
            f"{folder.path} was started with other settings:\n  "
            + "\n  ".join(differences)
            + "\nGive another folder with --out, or continue this one with "
            f"`lorastudy run {folder.path}`. Arms, seeds and learning rates can be added, "
            "there or with `lorastudy extend`."
        )


def _refuse_weights(path: Path) -> None:
    """Check that a study's files will not be written among those of a model or an adapter."""
    own = (name for name in ("config.json", ADAPTER_CONFIG) if (path / name).is_file())
    if name := next(own, None):
        raise ConfigError(
            f"{path} is the folder of a model or an adapter: it has {name}. "
            "Give another folder with --out."
        )


def lock_study(lock: StudyLock, folder: StudyFolder) -> StudyLock:
    """Write `study.lock.json`, or check that data and model still match it; return it.

    Raises:
        InputError: Data or model have changed since the study was started.
    """
    if not folder.lock.is_file():
        _refuse_other_inputs(lock, folder)
        write_lock(folder, lock)
        return lock
    before = read_lock(folder)
    digests = ("base_digest", "tokenizer_digest", "settings_digest")
    both = {key: (getattr(before, key), getattr(lock, key)) for key in digests}
    # folders of earlier versions have no digest of settings
    changed = [key for key, (old, new) in both.items() if old is not None and old != new]
    known, now = before.corpora, lock.corpora
    changed += [name for name in {**known, **now} if known.get(name) != now.get(name)]
    if changed:
        raise InputError(
            f"{folder.path}: {show_names(changed)} differ from study.lock.json: the data, code "
            "that judges answers, the base model, or settings of its tokenizer or of generation "
            "changed since the study was started. Restore them, or start a new folder."
        )
    return before


def _refuse_other_inputs(lock: StudyLock, folder: StudyFolder) -> None:
    """Check that runs in a folder that lost its lock began with what a new lock would hold.

    Raises:
        InputError: One did not, so its numbers and those of new runs could not be compared.
    """
    if "train" not in lock.corpora:  # nothing is trained here, and each model is its own base
        return
    now = {
        "base_digest": lock.base_digest,
        "tokenizer_digest": lock.tokenizer_digest,
        "train_digest": lock.corpora["train"],
        "validation_digest": lock.corpora["validation"],
    }
    runs = [folder.run(spec.run_id) for study in lock.studies for spec in list_runs(study, folder)]
    for run in runs:
        if not run.manifest.is_file():
            continue
        began = read_record(run.manifest, Manifest)
        if changed := [key for key, value in now.items() if getattr(began, key) != value]:
            raise InputError(
                f"{folder.lock} is missing, and {run.path.name} began with other inputs: "
                f"{show_names(changed)} differ from {run.manifest.name}. Restore the lock and what "
                "the study was started with from a copy, or start a new folder."
            )


def _note_predicted(now: StudyLock, lock: StudyLock, folder: StudyFolder) -> StudyLock:
    """The lock with the predicted memory of arms that it does not have yet."""
    known = {parts.arm for parts in lock.predicted}
    if not (new := tuple(parts for parts in now.predicted if parts.arm not in known)):
        return lock
    lock = lock.model_copy(update={"predicted": (*lock.predicted, *new)})
    write_lock(folder, lock)
    return lock


def remember_places(places: Places, folder: StudyFolder) -> None:
    """Let later commands on this folder find the same inputs without being told again."""
    mirror = str(places.mirror.resolve()) if places.mirror else None
    write_record(folder.places, FoundAt(base=str(places.base.resolve()), mirror=mirror))
