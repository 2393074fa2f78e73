"""What makes scores or seconds less certain than they look, as notes below tables."""

from lorastudy.analysis.evidence import CONTENDED
from lorastudy.protocols import is_task
from lorastudy.report.tables.table import Note
from lorastudy.store.records import StudyResults


def warn_of_scores(results: StudyResults) -> tuple[Note, ...]:
    """What makes scores or seconds less certain than they look."""
    return (
        *_subset_notes(results),
        *_endless_notes(results),
        *_drift_notes(results),
        *contention_notes(results),
    )


def _subset_notes(results: StudyResults) -> list[Note]:
    """The standard errors of benchmarks of which only a random part was scored."""
    largest: dict[tuple[str, str, int], float] = {}
    for evaluation in (evaluation for run in results.runs for evaluation in run.evaluations):
        if evaluation.n_population is not None and evaluation.standard_error is not None:
            where = (evaluation.benchmark, evaluation.protocol, evaluation.n_population)
            largest[where] = max(largest.get(where, 0.0), evaluation.standard_error)
    notes = []
    for (benchmark, protocol, n), error in largest.items():
        units, scores = "documents or windows", "cross-entropies"
        if is_task(protocol):
            units, scores = "items", "accuracies"
        text = (
            f"{benchmark}, {protocol}: a random part of {n:,} {units}, the same for every run. As "
            f"estimates for all of them, {scores} have a standard error of at most {error:.4f}."
        )
        notes.append(Note("", text))
    return notes


def _endless_notes(results: StudyResults) -> list[Note]:
    """How many generated answers ended only because they were as long as is allowed."""
    most: dict[tuple[str, str, int], dict[str, int]] = {}
    for run in results.runs:
        for e in run.evaluations:
            if e.n_cut:
                of_arms = most.setdefault((e.benchmark, e.protocol, e.n_documents), {})
                of_arms[run.arm] = max(e.n_cut, of_arms.get(run.arm, 0))
    return [
        Note(
            "",
            f"{benchmark}, {protocol}: answers that ended only at max_new_tokens, of {n:,} and of "
            f"the worst seed: {', '.join(f'{arm} {count:,}' for arm, count in of_arms.items())}.",
        )
        for (benchmark, protocol, n), of_arms in most.items()
    ]


def contention_notes(results: StudyResults) -> tuple[Note, ...]:
    """The arms whose times are too high, since other programs used the CPU while they trained."""
    worst: dict[str, float] = {}
    for run in results.runs:
        if run.waited_share is not None and run.waited_share >= CONTENDED:
            worst[run.arm] = max(run.waited_share, worst.get(run.arm, 0.0))
    if not worst:
        return ()
    arms = ", ".join(f"{arm} (up to {share:.0%})" for arm, share in worst.items())
    text = "Training times are too high: other programs used the CPU while these arms waited for it"
    return (Note("", f"{text}: {arms}."),)


def _drift_notes(results: StudyResults) -> list[Note]:
    drifted = [run.run_id for run in results.runs if run.drift]
    if not drifted:
        return []
    text = "resumed in another environment"
    return [Note("", f"{', '.join(drifted)}: {text}; the table of all runs says what changed.")]
