"""What a study decided while it ran until its question was decided: one line per decision.

    STUDY_DIR/decisions.jsonl

    {"number":1,"what":{"kind":"plan","question":"full-or-lora","most_seeds":10,...},"seal":"..."}

The file says which runs the study has (`list_asks`), so every process finds the same ones. It is
written anew for each line, so that no line is ever incomplete. A seal covers a line and the seal
of the line before it, so that a changed or deleted line shows. The study's lock knows how many
lines there are, so that lines which are cut off at the end show as well.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lorastudy.config.models import Study
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.errors import StorageError
from lorastudy.store.files import write_text
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.lines import read_last_record, read_records
from lorastudy.store.locks import read_lock, write_lock
from lorastudy.store.records import EpochRecord, Record

AskedQuestion = Literal["full-or-lora", "where", "all"] | tuple[str, str]
Ending = Literal["decided", "answered", "out of reach", "most seeds", "nothing left"]
Fate = Literal["separated", "equivalent", "open", "out of reach", "left"]


class Plan(Record):
    """What the study is to find out, before its first look; a later one may allow more seeds."""

    kind: Literal["plan"] = "plan"
    question: AskedQuestion
    most_seeds: int


class Search(Record):
    """These learning rates of an arm are trained to the end of an epoch, on every tuning seed."""

    kind: Literal["search"] = "search"
    arm: str
    rates: tuple[float, ...]
    until_epoch: int
    why: Literal["first", "promoted", "edge"]  # "edge": added, since the best was at an end


class Stop(Record):
    """A learning rate is not trained further, since others of its arm have a lower loss."""

    kind: Literal["stop"] = "stop"
    arm: str
    rate: float
    after_epoch: int
    loss: float | None  # on validation, mean over tuning seeds, nats per target; None: it diverged
    best_rate: float
    best_loss: float


class Choose(Record):
    """The learning rate with which an arm runs on the seeds that are reported."""

    kind: Literal["choose"] = "choose"
    arm: str
    rate: float | None  # None: no rate finished, so the arm takes no part
    after_epoch: int
    loss: float | None
    is_at_edge: bool  # the list was extended as often as is allowed


class Seeds(Record):
    """These arms run with the first `n_seeds` seeds; a baseline with the first one alone."""

    kind: Literal["seeds"] = "seeds"
    arms: tuple[str, ...]
    n_seeds: int


class SeenPair(Record):
    """What a look saw of one pair that the question asks about."""

    benchmark: str
    protocol: str
    first: str
    second: str
    difference: float  # nats per target, first arm minus second
    low: float  # of the interval at the level that the look may spend on this pair
    high: float
    fate: Fate


class Look(Record):
    """The question was looked at: these arms, these seeds, this part of the 5 %."""

    kind: Literal["look"] = "look"
    seeds: tuple[int, ...]
    arms: tuple[str, ...]  # that have all of these seeds
    significance: float
    pairs: tuple[SeenPair, ...]
    going: tuple[str, ...]  # arms of open pairs


class End(Record):
    """No more seeds are added, and why."""

    kind: Literal["end"] = "end"
    why: Ending


Entry = Plan | Search | Stop | Choose | Seeds | Look | End


class Decision(Record):
    """One line of `decisions.jsonl`."""

    number: int  # from 1
    what: Annotated[Entry, Field(discriminator="kind")]
    seal: str = ""  # SHA-256 over the seal of the line before, and this line without its seal


def read_decisions(folder: StudyFolder) -> tuple[Entry, ...]:
    """All decisions so far; none if the study does not run until its question is decided.

    Raises:
        StorageError: The file is not what was written.
    """
    path, before = folder.decisions, ""
    # read before the lines, which only become more
    n_written = read_lock(folder).n_decisions if folder.lock.is_file() else 0
    decisions = read_records(path, Decision)
    if len(decisions) < n_written:
        raise StorageError(
            f"{path} has {len(decisions)} of the {n_written} decisions that were written. Restore "
            "it from a copy."
        )
    for number, decision in enumerate(decisions, 1):
        if decision.number != number or decision.seal != _seal(decision, before):
            raise StorageError(
                f"{path}: line {number} is not what was written. Restore the file from a copy."
            )
        before = decision.seal
    return tuple(decision.what for decision in decisions)


def append_decision(folder: StudyFolder, *entries: Entry) -> None:
    """Add lines, all or none; the file is written anew, so that it is whole at every moment.

    Raises:
        StorageError: The file is not what was written, or the disk refused the write.
    """
    lines, before = list[str](), ""
    for number, what in enumerate((*read_decisions(folder), *entries), 1):
        decision = Decision(number=number, what=what)
        before = _seal(decision, before)
        lines.append(decision.model_copy(update={"seal": before}).model_dump_json() + "\n")
    write_text(folder.decisions, "".join(lines))
    if folder.lock.is_file():
        lock = read_lock(folder)
        write_lock(folder, lock.model_copy(update={"n_decisions": len(lines)}))


def _seal(decision: Decision, before: str) -> str:
    text = before + decision.model_dump_json(exclude={"seal"})
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Ask:
    """A run that was asked for, and how far it is to go."""

    spec: RunSpec
    until_epoch: int | None  # where it stops until it is asked to go on; None: it is finished
    stopped: Stop | Choose | None = None  # why it does not go on

    @property
    def reason(self) -> str:
        """Why it is not trained to its end."""
        epochs = f"after epoch {self.until_epoch} of {self.spec.training.whole_epochs}"
        match self.stopped:
            case Stop(loss=None):
                return f"stopped {epochs}: a run at this learning rate diverged"
            case Stop() as stop:
                return (
                    f"stopped {epochs}: lowest validation loss {stop.loss:.4f}, and "
                    f"{stop.best_loss:.4f} at learning rate {stop.best_rate:g}"
                )
            case Choose() as choice if choice.rate == self.spec.learning_rate:
                return f"stopped {epochs}: this learning rate was chosen"
            case Choose():
                return f"stopped {epochs}: another learning rate was chosen"
            case None:
                return f"waits {epochs} for the other learning rates of its arm"


def list_asks(study: Study, decisions: Sequence[Entry]) -> tuple[Ask, ...]:
    """The runs that the decisions ask for, in the study's order."""
    chosen = read_choices(decisions)
    rates = {arm: rate for arm, rate in chosen.items() if rate is not None}
    return tuple(
        ask
        for spec in expand_study(study, rates)
        if (ask := _find_ask(study, spec, decisions)) is not None
    )


def _find_ask(study: Study, spec: RunSpec, decisions: Sequence[Entry]) -> Ask | None:
    name, rate = spec.arm.name, spec.learning_rate
    if spec.seed not in study.tuning_seeds:
        n_seeds = count_seeds(decisions).get(name, 0)
        return Ask(spec, None) if spec.seed in study.seeds[:n_seeds] else None
    epochs = [
        e.until_epoch
        for e in decisions
        if isinstance(e, Search) and e.arm == name and rate in e.rates
    ]
    if not epochs:
        return None
    until = max(epochs)
    if until >= spec.training.whole_epochs:
        return Ask(spec, None)
    ended = (
        e
        for e in decisions
        if (isinstance(e, Stop) and e.arm == name and e.rate == rate)
        or (isinstance(e, Choose) and e.arm == name)
    )
    return Ask(spec, until, next(ended, None))


def read_choices(decisions: Sequence[Entry]) -> dict[str, float | None]:
    """The learning rate of each arm whose search has ended; None: none of its rates finished."""
    return {e.arm: e.rate for e in decisions if isinstance(e, Choose)}


def count_seeds(decisions: Sequence[Entry]) -> dict[str, int]:
    """The number of reported seeds that each arm was given."""
    return {arm: e.n_seeds for e in decisions if isinstance(e, Seeds) for arm in e.arms}


def is_paused(ask: Ask, run: RunFolder) -> bool:
    """Whether the run goes no further now, although it is not finished."""
    if ask.until_epoch is None or run.result.exists() or run.failure.exists():
        return False
    last = read_last_record(run.epochs, EpochRecord)
    return ask.stopped is not None or (last is not None and last.epoch >= ask.until_epoch)
