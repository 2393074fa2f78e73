"""How a study chose its runs that ran until its question was decided: sentences for people."""

from collections.abc import Sequence

from lorastudy.analysis.findings import Findings
from lorastudy.analysis.paired import SIGNIFICANCE
from lorastudy.analysis.spending import Spending, measure_spending
from lorastudy.report.wording import join, name_question
from lorastudy.store.decisions import (
    Choose,
    End,
    Ending,
    Entry,
    Look,
    Plan,
    Search,
    Seeds,
    Stop,
)

_ENDS: dict[Ending, str] = {
    "decided": "Every two arms of the question are decided",
    "answered": "One LoRA arm is better than full fine-tuning, which answers the question",
    "out of reach": "What is still open is out of reach of the seeds that are allowed",
    "most seeds": "Not decided with as many seeds as are allowed",
    "nothing left": "Too few arms finished their runs, so nothing can be decided",
}
_PERCENT = f"{100 * SIGNIFICANCE:g} %"


def describe_plan(decisions: Sequence[Entry]) -> str:
    """What the study is to decide, in one line."""
    plan = [e for e in decisions if isinstance(e, Plan)][-1]
    n_before = len(decisions)
    return f"{describe_decision(plan)} {n_before} decisions so far, in decisions.jsonl."


def describe_decision(entry: Entry) -> str:
    """One decision in one sentence."""
    match entry:
        case Plan():
            return (
                f"Question: {name_question(entry.question)} At most {entry.most_seeds} seeds; all "
                f"looks together separate falsely in at most {_PERCENT} of studies."
            )
        case Search(why="first"):
            return f"{entry.arm}: learning rates {_list(entry)} to epoch {entry.until_epoch}."
        case Search(why="edge"):
            return (
                f"{entry.arm}: the best learning rate is at an end of the list, so {_list(entry)} "
                f"is tried as well, to epoch {entry.until_epoch}."
            )
        case Search():
            return f"{entry.arm}: {_list(entry)} go on to epoch {entry.until_epoch}."
        case Stop():
            lost = "diverged" if entry.loss is None else f"lowest validation loss {entry.loss:.4f}"
            return (
                f"{entry.arm}: {entry.rate:g} stops after epoch {entry.after_epoch}: {lost}, and "
                f"{entry.best_loss:.4f} at {entry.best_rate:g}."
            )
        case Choose(rate=None):
            return f"{entry.arm}: no learning rate finished, so it takes no further part."
        case Choose():
            where = ", at an end of the list" if entry.is_at_edge else ""
            return (
                f"{entry.arm}: learning rate {entry.rate:g}{where}, with a lowest "
                f"validation loss of {entry.loss:.4f} by epoch {entry.after_epoch}."
            )
        case Seeds():
            return f"{entry.n_seeds} seeds: {join(entry.arms)}."
        case Look():
            return _describe_look(entry)
        case End():
            return f"{_ENDS[entry.why]}."


def _list(search: Search) -> str:
    return join([f"{rate:g}" for rate in search.rates])


def _describe_look(look: Look) -> str:
    fates = [pair.fate for pair in look.pairs]
    counts = [
        f"{fates.count(fate)} {word}"
        for fate, word in (
            ("separated", "separated"),
            ("equivalent", "tied"),
            ("open", "open"),
            ("out of reach", "out of reach"),
            ("left", "no longer judged"),
        )
        if fate in fates
    ]
    return (
        f"Look with {len(look.seeds)} seeds, at {100 * look.significance:.2g} %: "
        f"{len(look.pairs)} comparisons, {join(counts) or 'none judged'}."
    )


def state_story(findings: Findings) -> tuple[str, ...]:
    """What was searched, stopped and added, how it ended and what it cost; else nothing."""
    decisions = findings.decisions
    if not decisions:
        return ()
    spending = measure_spending(findings)
    sentences = (
        f"{_end_of(decisions)}.",
        _describe_search(decisions),
        _describe_seeds(findings),
        _describe_looks(decisions),
        "" if spending is None else f"{describe_spending(spending)}.",
    )
    return tuple(sentence for sentence in sentences if sentence)


def write_short_story(findings: Findings) -> tuple[str, ...]:
    """How the question stands and what that cost, in one line for a terminal; else no line."""
    if not findings.decisions:
        return ()
    spending = measure_spending(findings)
    cost = "" if spending is None else f" {describe_spending(spending)}."
    return (f"How decided: {_end_of(findings.decisions)}.{cost}",)


def describe_spending(spending: Spending) -> str:
    """Tokens beside those of the full grid, without a stop."""
    searched = f", {spending.search_tokens:,} of them to choose learning rates"
    return (
        f"{spending.tokens:,} tokens were trained{searched if spending.search_tokens else ''}. "
        f"That is {spending.share:.0%} of the full grid: every listed learning rate trained to "
        f"its end, and every arm with {spending.n_seeds} seeds"
    )


def _end_of(decisions: Sequence[Entry]) -> str:
    last = decisions[-1]
    return _ENDS[last.why] if isinstance(last, End) else "Not decided yet: runs are missing"


def _describe_search(decisions: Sequence[Entry]) -> str:
    searches = [e for e in decisions if isinstance(e, Search)]
    if not searches:
        return ""
    rates = {(e.arm, rate) for e in searches for rate in e.rates}
    added = sum(len(e.rates) for e in searches if e.why == "edge")
    n_stopped = sum(isinstance(e, Stop) for e in decisions)
    beyond = f"{added} of them beyond an end of its list" if added else "none beyond its list"
    return (
        f"{len(rates)} learning rates of {len({e.arm for e in searches})} arms were tried on "
        f"tuning seeds, {beyond}; {n_stopped} were stopped early by their validation loss."
    )


def _describe_seeds(findings: Findings) -> str:
    """How many seeds each trained arm has."""
    by_number: dict[int, list[str]] = {}
    for arm in findings.arms:
        if not arm.is_baseline and arm.runs:
            by_number.setdefault(len(arm.runs), []).append(arm.arm)
    said = [f"{n} for {join(arms)}" for n, arms in sorted(by_number.items())]
    return f"Seeds: {'; '.join(said)}." if said else ""


def _describe_looks(decisions: Sequence[Entry]) -> str:
    looks = [e for e in decisions if isinstance(e, Look)]
    if not looks:
        return ""
    said = [f"{len(e.seeds)} seeds ({100 * e.significance:.2g} %)" for e in looks]
    return (
        f"The comparisons were judged with {join(said)}; in brackets is the part of the "
        f"{_PERCENT} that each look may spend. A comparison that is decided stays as its look "
        "found it, with the seeds of that look, and all intervals are adjusted for the looks."
    )
