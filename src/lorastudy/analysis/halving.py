"""The search for an arm's learning rate by successive halving, on validation alone.

All rates of an arm are trained on the tuning seeds to a quarter of the epochs, the better half of
them to half of the epochs, and the better half of these to the end. The search ends when one rate
is left. Whenever the best rate is the lowest or the highest of the list, the list is extended at
that end by its own ratio, at most `MOST_EXTENSIONS` times for an arm.

A quarter of the epochs favours low rates somewhat, because the schedule has not fallen yet. So
two rates at least go on to half of the epochs (decision 0031).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lorastudy.store.decisions import Choose, Entry, Search, Stop

MOST_EXTENSIONS = 3


@dataclass(frozen=True, slots=True)
class TriedRate:
    """How far a learning rate is with the tuning seeds of its arm."""

    losses: tuple[float, ...]  # on validation by epoch, mean over tuning seeds; where all have one
    has_failed: bool = False  # a run diverged or is damaged, and is not tried again

    def score(self, n_epochs: int) -> float:
        """The best loss of the first `n_epochs`; infinite for a rate that failed."""
        return math.inf if self.has_failed else min(self.losses[:n_epochs], default=math.inf)


def list_rungs(n_epochs: int) -> tuple[int, ...]:
    """The epochs after which rates are compared: a quarter, a half and all, rounded up."""
    return tuple(sorted({math.ceil(n_epochs / 4), math.ceil(n_epochs / 2), n_epochs}))


def search_further(
    arm: str,
    rates: Sequence[float],
    n_epochs: int,
    decisions: Sequence[Entry],
    tried: Mapping[float, TriedRate],
) -> tuple[Entry, ...]:
    """What follows for an arm whose rate is not chosen yet; empty: runs must end first.

    `tried` has the rates that were asked for.
    """
    rungs = list_rungs(n_epochs)
    searches = [e for e in decisions if isinstance(e, Search) and e.arm == arm]
    if not searches:
        return (Search(arm=arm, rates=tuple(rates), until_epoch=rungs[0], why="first"),)
    asked = {rate: search.until_epoch for search in searches for rate in search.rates}
    stopped = {e.rate for e in decisions if isinstance(e, Stop) and e.arm == arm}
    alive = sorted(set(asked) - stopped)
    if any(not tried[r].has_failed and len(tried[r].losses) < asked[r] for r in alive):
        return ()
    rung = searches[-1].until_epoch
    order = sorted(alive, key=lambda rate: (tried[rate].score(rung), rate))
    best, loss = order[0], tried[order[0]].score(rung)
    if not math.isfinite(loss):
        return (Choose(arm=arm, rate=None, after_epoch=rung, loss=None, is_at_edge=False),)
    # the list was too short
    n_extensions = sum(search.why == "edge" for search in searches)
    beyond = _extend_beyond(best, sorted(asked))
    if beyond is not None and n_extensions < MOST_EXTENSIONS:
        return (Search(arm=arm, rates=(beyond,), until_epoch=rung, why="edge"),)
    if rung == n_epochs:
        return (_choose(arm, best, rung, loss, asked),)
    is_early = rung < math.ceil(n_epochs / 2)
    n_kept = max(2 if is_early else 1, math.ceil(len(order) / 2))
    stops = _stop(arm, order[n_kept:], rung, best, tried)
    if n_kept == 1 or len(order) == 1:
        return (*stops, _choose(arm, best, rung, loss, asked))
    following = rungs[rungs.index(rung) + 1]
    kept = tuple(sorted(r for r in order[:n_kept] if not tried[r].has_failed))
    return (*stops, Search(arm=arm, rates=kept, until_epoch=following, why="promoted"))


def _stop(
    arm: str, rates: Sequence[float], rung: int, best: float, tried: Mapping[float, TriedRate]
) -> list[Stop]:
    """The worse half stops after the epochs of `rung`."""
    return [
        Stop(
            arm=arm,
            rate=rate,
            after_epoch=rung,
            loss=score if math.isfinite(score := tried[rate].score(rung)) else None,
            best_rate=best,
            best_loss=tried[best].score(rung),
        )
        for rate in rates
    ]


def _choose(arm: str, rate: float, epoch: int, loss: float, tried: Collection[float]) -> Choose:
    at_edge = len(tried) > 1 and rate in (min(tried), max(tried))
    return Choose(arm=arm, rate=rate, after_epoch=epoch, loss=loss, is_at_edge=at_edge)


def _extend_beyond(best: float, tried: Sequence[float]) -> float | None:
    """The next rate at the end where the best one is; None if it is inside, or rates end there."""
    if len(tried) < 2 or best not in (tried[0], tried[-1]):
        return None
    neighbour = tried[1] if best == tried[0] else tried[-2]
    rate = float(f"{best * best / neighbour:.6g}")  # as people would write it
    return rate if 0 < rate < 1 else None
