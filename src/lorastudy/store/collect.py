"""Read a study from its folder: the only source of every table and status line."""

from collections.abc import Iterable
from dataclasses import dataclass

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec
from lorastudy.config.study_file import (
    dump_study,
    leaves_rounding_open,
    read_study_file,
    round_warmup,
)
from lorastudy.config.two_studies import describe_difference, extends
from lorastudy.errors import ConfigError, InputError, StorageError, possible_path, show_names
from lorastudy.protocols import protocol_of_rows
from lorastudy.store.decisions import Ask, count_seeds, read_choices, read_decisions
from lorastudy.store.explanations import list_damaged
from lorastudy.store.files import read_record, write_record, write_text
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.lines import read_records
from lorastudy.store.locks import read_lock, write_lock
from lorastudy.store.rates import list_paused, list_runs
from lorastudy.store.records import (
    DecidedArm,
    EpochRecord,
    Manifest,
    RunResult,
    StudyResults,
    ValidationRecord,
)
from lorastudy.store.status import RunStatus, read_paused_status, read_status


@dataclass(frozen=True, slots=True)
class RunOverview:
    """A run of a study and how far it is."""

    spec: RunSpec
    status: RunStatus


def read_study(folder: StudyFolder) -> Study:
    """The study of a folder.

    Raises:
        ConfigError: The folder is not a study's, or its study.yaml was edited after the start.
    """
    if not possible_path(folder.path).exists():
        raise ConfigError(
            f"{folder.path} does not exist. Give the folder that `lorastudy run` wrote to; it "
            "named it in its first line."
        )
    if not folder.study.is_file():
        raise ConfigError(
            f"{folder.path} has no study.yaml, so it is not a study folder. "
            "Give the folder that `lorastudy run` wrote to."
        )
    study = read_own_file(folder)
    started = read_lock(folder).studies if folder.lock.is_file() else ()
    if started and not any(extends(known, study) for known in started):
        raise ConfigError(
            f"{folder.study} was edited after the study was started:\n  "
            + "\n  ".join(describe_difference(started[-1], study))
            + "\nUndo that. Arms, seeds and learning rates can be added, here or with "
            "`lorastudy extend`; other settings are "
            "another study: run a copy of the file with another --out."
        )
    return study


def read_own_file(folder: StudyFolder) -> Study:
    """What `study.yaml` of a folder says, whatever the lock says.

    Where it does not say how the warm-up is rounded, it was started without this key, and the
    lock knows. The runs of folders without a lock are of a time when all were rounded down.
    """
    study = read_study_file(folder.study)
    if not leaves_rounding_open(study):
        return study
    started = read_lock(folder).studies if folder.lock.is_file() else ()
    if started:
        return round_warmup(study, started[-1].training.schedule.rounding)
    has_runs = folder.lock.is_file() or (folder.path / "runs").is_dir()
    return round_warmup(study, "down") if has_runs else study


def write_extension(folder: StudyFolder, before: Study, after: Study) -> None:
    """Make `after` the study of a folder; after a crash in between it is still `before`."""
    if folder.lock.is_file():
        lock = read_lock(folder)
        write_lock(folder, lock.model_copy(update={"studies": (before, after)}))
    write_text(folder.study, dump_study(after))


def read_overview(folder: StudyFolder) -> tuple[RunOverview, ...]:
    """Every run of the study in order, started or not."""
    study = read_study(folder)
    paused = {ask.spec.run_id: ask for ask in list_paused(study, folder)}
    found = [
        RunOverview(spec, read_status(folder.run(spec.run_id))) for spec in list_runs(study, folder)
    ]
    found += [
        RunOverview(ask.spec, read_paused_status(ask, folder.run(run_id)))
        for run_id, ask in paused.items()
    ]
    return tuple(found)


def list_strangers(folder: StudyFolder) -> list[str]:
    """Folders in runs/ that are not runs of the study, such as those of older versions."""
    known = {run.path.name for run in _list_folders(folder)}
    found = (folder.path / "runs").glob("[!.]*")
    return sorted(path.name for path in found if path.is_dir() and path.name not in known)


def _list_folders(folder: StudyFolder) -> list[RunFolder]:
    """Those of all runs of the study, stopped ones included."""
    study = read_study(folder)
    asked = (ask.spec for ask in list_paused(study, folder))
    return [folder.run(spec.run_id) for spec in (*list_runs(study, folder), *asked)]


def list_doubts(folder: StudyFolder) -> list[str]:
    """What a reader of the study's numbers must know about its files, one sentence per fact."""
    runs = _list_folders(folder)
    closed = [run for run in runs if run.is_closed]
    runs = [run for run in runs if run not in closed]
    started = [run for run in runs if run.path.is_dir()]
    old = [run.path.name for run in runs if run.result.exists() and not run.is_verifiable]
    changes = {run.path.name: run.find_record_changes() for run in started}
    doubts = [f"{name}: {change}." for name, found in changes.items() for change in found]
    doubts += [_problem_of(run) for run in closed]
    doubts += [_problem_of(run) for run in started if not changes[run.path.name]]
    if old:
        doubts.append(f"not verified, since they have no SHA256SUMS: {show_names(old)}.")
    if damaged := list_damaged(runs):
        doubts.append(
            f"not shown, since their files in explanations/ are damaged: {show_names(damaged)}. "
            "`lorastudy explain` makes them again."
        )
    if started and not folder.lock.is_file():
        doubts.append(f"{folder.lock.name} is missing.")
    return [doubt for doubt in doubts if doubt]


def _problem_of(run: RunFolder) -> str:
    """Why the outcome of a run cannot be read, such as that it is another run's; or ""."""
    try:
        run.read_result()
    except StorageError as error:
        return f"{run.path.name}: {run.shorten(error)}"
    return ""


def collect_results(folder: StudyFolder) -> StudyResults:
    """All results of a study as they are now, read only from the run folders.

    Raises:
        InputError: Runs of different tokenizers.
    """
    study = read_study(folder)
    found = {s.run_id: folder.run(s.run_id).read_outcome(s) for s in list_runs(study, folder)}
    _refuse_mixed_tokenizers((result for result in found.values() if result), folder)
    decisions = read_decisions(folder)
    n_seeds, rates = count_seeds(decisions), read_choices(decisions)
    return StudyResults(
        name=study.name,
        arms=tuple(arm.name for arm in study.arms),
        seeds=study.seeds[: max(n_seeds.values())] if n_seeds else study.seeds,
        tuning_seeds=study.tuning_seeds,
        benchmarks=tuple(benchmark.name for benchmark in study.benchmarks),
        forgetting=tuple(b.name for b in study.benchmarks if b.role == "forgetting"),
        training_protocol=training_protocol(study, has_answers=_trains_on_answers(folder)),
        runs=tuple(result for result in found.values() if result is not None),
        missing=tuple(run_id for run_id, result in found.items() if result is None),
        decided=tuple(
            DecidedArm(arm=arm, n_seeds=n, learning_rate=rates.get(arm))
            for arm, n in n_seeds.items()
        ),
        stopped=tuple(_describe_stopped(a, folder) for a in list_paused(study, folder)),
        budget=study.training.budget,
    )


def _describe_stopped(ask: Ask, study: StudyFolder) -> RunResult:
    """What a run trained before it was stopped."""
    run = study.run(ask.spec.run_id)
    epochs = read_records(run.epochs, EpochRecord)
    per_epoch = read_record(run.manifest, Manifest).train_targets_per_epoch if epochs else 0
    return RunResult.of(
        ask.spec,
        status="stopped",
        reason=ask.reason,
        epochs=epochs,
        validations=read_records(run.validations, ValidationRecord),
        train_seconds=sum(epoch.train_seconds for epoch in epochs),
        train_tokens=per_epoch * len(epochs),
    )


def _refuse_mixed_tokenizers(runs: Iterable[RunResult], folder: StudyFolder) -> None:
    """Refuse runs of two tokenizers, which divide the same text into different tokens."""
    first: dict[str, str] = {}
    for run in runs:
        for digest in {e.tokenizer_digest for e in run.evaluations} - {None}:
            first.setdefault(str(digest), run.run_id)
    if len(first) > 1:
        named = ", ".join(f"{run_id} ({digest[:8]})" for digest, run_id in first.items())
        raise InputError(
            f"{folder.path}: runs were scored with different tokenizers: {named}. Their numbers "
            "cannot be compared; keep only runs of one tokenizer in the folder."
        )


def write_results(folder: StudyFolder) -> StudyResults:
    """Bring `results.json` up to date and return it."""
    results = collect_results(folder)
    write_record(folder.results, results)
    return results


def _trains_on_answers(folder: StudyFolder) -> bool:
    """Whether training rows have answers; the data alone says so, and the lock remembers it."""
    if not folder.lock.is_file():
        return False
    counts = read_lock(folder).texts.get("train")
    return counts is not None and counts.answers is not None


def training_protocol(study: Study, *, has_answers: bool) -> str:
    """The protocol under which training and validation losses are measured."""
    if study.data.is_elsewhere:
        return "none, since nothing was trained here"
    has_padding = study.training.padding == "scored"
    if has_answers:
        return protocol_of_rows(has_answers=True).pattern
    if study.data.rows.cut == "stream" and not has_padding:
        return "windows"
    pattern = protocol_of_rows(scored_padding=has_padding).pattern
    return f"{pattern}, and the end of each text" if study.data.rows.end == "scored" else pattern
