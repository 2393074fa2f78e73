"""Caveats and next steps in words."""

from collections.abc import Callable, Mapping

from lorastudy.analysis.caveats import Caveat, CaveatKind
from lorastudy.analysis.next_steps import NextStep, StepKind
from lorastudy.report.wording import join
from lorastudy.units import write_count, write_duration


def state_caveat(caveat: Caveat) -> str:
    """One sentence; it begins with a word and not with the name of an arm."""
    return f"{_CAVEATS[caveat.kind](caveat)}."


def state_step(step: NextStep) -> str:
    """One sentence, which leads to the command if there is one; DIR is the study's folder."""
    if step.is_elsewhere and step.kind in _NEXT_ELSEWHERE:
        return _NEXT_ELSEWHERE[step.kind](step)
    return _NEXT[step.kind](step)


def _arms(caveat: Caveat) -> str:
    return join(caveat.names)


_CAVEATS: Mapping[CaveatKind, Callable[[Caveat], str]] = {
    "failed runs": lambda c: f"Runs that failed, and are in no mean: {c.value:.0f}",
    "damaged runs": lambda c: (
        f"Runs whose files are not those that were written, and are in no mean: {c.value:.0f}"
    ),
    "missing runs": lambda c: f"Runs that are not finished: {c.value:.0f}",
    "incomplete arms": lambda c: f"Fewer seeds than other arms, and so no verdict: {_arms(c)}",
    "leaking text": lambda c: f"The same text, so the scores prove nothing: {_arms(c)}",
    "above uniform loss": lambda c: (
        f"Training failed: on {join(c.where)}, {_arms(c)} did worse than giving every token the "
        f"same chance (ln V = {c.value:.2f} nats per token)"
    ),
    "above baseline": lambda c: (
        f"On {join(c.where)}, the base model without tuning has a lower loss than {_arms(c)}"
    ),
    "not above base": lambda c: (
        f"On {join(c.where)}, {_arms(c)} is not shown to be better than the base model"
    ),
    "disturbed seconds": lambda c: (
        f"Timings of {_arms(c)} are unreliable, so nothing is said about training time"
    ),
    "rate at the edge": lambda c: (
        f"The chosen learning rate of {_arms(c)} is the lowest or highest of those tried, so a "
        "better one may lie outside"
    ),
    "one rate": lambda c: (
        f"One learning rate was tried for {_arms(c)}, so this holds at these settings only"
    ),
    "last epoch": lambda c: f"The best epoch of {_arms(c)} was the last, so more epochs may help",
    "cut training data": lambda c: f"Training used only the first {c.value:,.0f} documents",
    "truncated text": lambda c: (
        f"{100 * (c.value or 0):.0f} % of the training text does not fit into the rows, so no arm "
        "has seen it"
    ),
    "unknown text": lambda c: (
        f"The tokenizer does not know up to {100 * (c.value or 0):.0f} % of {_arms(c)}, so these "
        "losses are not those of the text"
    ),
    "altered text": lambda c: (
        f"The tokenizer changes up to {100 * (c.value or 0):.1f} % of the letters of {_arms(c)}, "
        "and no model has to predict what is lost"
    ),
    "repeated text": lambda c: (
        f"Documents of {_arms(c)} that are in the training split as well: {c.value:.0f}"
    ),
    "trained elsewhere": lambda c: (
        "Trained by other programs, so their data, learning rates, times and memory are not known "
        f"here: {_arms(c)}. Seeds are numbered in the order in which the folders were given, and "
        "equal numbers share nothing"
    ),
    "wide spread": lambda c: (
        f"On {join(c.where)}, the seeds of {_arms(c)} spread farther than those of other arms"
    ),
    "order": lambda c: (
        f"On {join(c.where)}, {c.names[0]} is farther from the lead than {c.names[1]} and yet not "
        f"separated from it, since its standard error is {c.value:.1f} times as large"
    ),
}


def _train_elsewhere(step: NextStep) -> str:
    return (
        f"Train {write_count(step.n_more or 0, 'more seed')} of every name, {step.n_seeds} in "
        "all, and type the same `lorastudy compare` with their folders added."
    )


def _say_time(step: NextStep) -> str:
    """What the added seeds take, going by those that finished."""
    if step.seconds is None:
        return ""
    return f", {step.n_more} more, which takes about {write_duration(step.seconds)} in all"


_NEXT: Mapping[StepKind, Callable[[NextStep], str]] = {
    "export": lambda step: "Take the model away:",
    "finish": lambda step: "Finish the runs that failed, are damaged or are missing:",
    "add seeds": lambda step: f"Run the study with {step.n_seeds} seeds{_say_time(step)}:",
    "set margin": lambda step: (
        f"About {step.n_seeds} seeds would settle it{_say_time(step)}. If that is more than the "
        "answer is worth to you, say how large a difference would not matter to you:"
    ),
    "add documents": lambda step: (
        "Score more documents in a new study, since more seeds alone do not settle this."
    ),
    "add arms": lambda step: "Add an arm to compare with:",
    "relax limits": lambda step: "Relax a limit.",
    "weigh tests": lambda step: "Decide by the test that is closest to your own text.",
    "change training": lambda step: (
        "Start a new study with other training data or lower learning rates."
    ),
}
_NEXT_ELSEWHERE: Mapping[StepKind, Callable[[NextStep], str]] = {
    "export": lambda step: "Take the model from its folder.",
    "finish": lambda step: "Type the same `lorastudy compare` again, to score what is missing.",
    "add seeds": _train_elsewhere,
    "set margin": _train_elsewhere,
    "add documents": lambda step: (
        "Score more documents with another --out, since more seeds alone do not settle this."
    ),
    "add arms": lambda step: "Type the same `lorastudy compare` with another --adapter NAME=DIR.",
    "change training": lambda step: "Train with other data or lower learning rates.",
}
