"""What a study that runs until its question is decided does next: a pure function of its records.

    search    learning rates are compared on tuning seeds       (`halving`)
    seeds     the arms whose comparison is open get more seeds  (`looks`)
    look      the pairs of the question are judged with a part of the 5 %
    end       every pair is decided or out of reach, or the seeds are used up

Each of them is a decision. The same records lead to the same decision, so a study that was
killed goes on as if nothing had happened. Nothing here reads a file or trains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lorastudy.analysis.halving import TriedRate, search_further
from lorastudy.analysis.layout import least_seeds
from lorastudy.analysis.looks import Look as Seen
from lorastudy.analysis.looks import list_looks, plan_looks, spent_by
from lorastudy.analysis.paired import SIGNIFICANCE
from lorastudy.analysis.pairs import Pair
from lorastudy.analysis.planning import chance_to_settle
from lorastudy.analysis.question import list_pairs
from lorastudy.config.models import Study
from lorastudy.store.decisions import (
    End,
    Ending,
    Entry,
    Fate,
    Look,
    Plan,
    Seeds,
    SeenPair,
    read_choices,
)

HOPELESS = 0.1  # chance to settle a pair at any later look, below which seeds are not spent on it
_LEAST_FOR_HOPELESS = 3  # seeds; two tell too little about the spread


@dataclass(frozen=True, slots=True)
class SoFar:
    """What is known of a study: its decisions, and how far the runs are that they asked for."""

    study: Study  # with the seeds and learning rates that were added
    decisions: tuple[Entry, ...]  # the first are the plan and the seeds of the first look
    tried: Mapping[str, Mapping[float, TriedRate]]  # by arm and learning rate
    finished: Mapping[str, frozenset[int]]  # by arm: reported seeds whose run is done
    lost: frozenset[str] = frozenset()  # arms with a reported run that diverged or is damaged

    @property
    def plan(self) -> Plan:
        """The plan that counts: the last one."""
        return [e for e in self.decisions if isinstance(e, Plan)][-1]

    def has_left(self, arm: str) -> bool:
        """Whether the arm takes no further part: no rate of it finished, or a run was lost."""
        return arm in self.lost or read_choices(self.decisions).get(arm, 1.0) is None

    def has_seeds(self, arm: str, n_seeds: int) -> bool:
        """Whether the arm has finished the first `n_seeds` seeds; a baseline has one run."""
        (found,) = (a for a in self.study.arms if a.name == arm)
        wanted = self.study.seeds[: 1 if found.method == "baseline" else n_seeds]
        return set(wanted) <= self.finished.get(arm, frozenset())


Judge = Callable[[tuple[Seen, ...], Plan], tuple[SeenPair, ...]]
"""The pairs that the plan asks about, as the last of these looks leaves them."""


def read_looks(decisions: Sequence[Entry], seeds: Sequence[int]) -> tuple[Seen, ...]:
    """The looks that were taken, with what each may spend.

    Before the first one, a look at the first of the `seeds`, which allows no verdict.
    """
    taken = list_looks((e.seeds, e.arms) for e in decisions if isinstance(e, Look))
    return taken or (Seen(tuple(seeds[:1]), None, SIGNIFICANCE),)


def first_seeds(study: Study, wanted: int | None = None) -> Seeds:
    """All arms with the seeds of the first look: `wanted`, or as many more as allow a verdict."""
    least = least_seeds(sum(arm.method != "baseline" for arm in study.arms))
    return Seeds(arms=tuple(arm.name for arm in study.arms), n_seeds=max(least, wanted or 0))


def next_entries(so_far: SoFar, judge: Judge) -> tuple[Entry, ...]:
    """The decisions that the records allow now; empty: asked runs must end first, or all is done.

    The same call with these added says what follows.
    """
    study, decisions = so_far.study, so_far.decisions
    if isinstance(decisions[-1], End):
        return ()
    # learning rates first: the other runs of their arms need them
    chosen = read_choices(decisions)
    for arm in study.arms:
        if study.is_tuned(arm) and arm.name not in chosen:
            epochs, tried = study.training.whole_epochs, so_far.tried.get(arm.name, {})
            found = search_further(arm.name, arm.learning_rates, epochs, decisions, tried)
            if found:
                return found
    last = next(e for e in reversed(decisions) if isinstance(e, Seeds | Look))
    if isinstance(last, Look):
        return _follow(so_far, last, judge)
    staying = [arm for arm in last.arms if not so_far.has_left(arm)]
    if not all(so_far.has_seeds(arm, last.n_seeds) for arm in staying):
        return ()
    needed = _seeds_to_judge(so_far, staying)
    if last.n_seeds < needed <= so_far.plan.most_seeds:
        return (Seeds(arms=tuple(staying), n_seeds=needed),)
    return (_look(so_far, study.seeds[: last.n_seeds], staying, judge),)


def _seeds_to_judge(so_far: SoFar, arms: Sequence[str]) -> int:
    """The seeds that a verdict on these arms needs; 0 if the question has no pair of them."""
    if not any({*pair} <= {*arms} for pair in list_pairs(so_far.plan.question, so_far.study)):
        return 0
    trained = [a for a in so_far.study.arms if a.method != "baseline" and a.name in arms]
    return least_seeds(len(trained))


def _look(so_far: SoFar, seeds: tuple[int, ...], arms: Sequence[str], judge: Judge) -> Look:
    """What a look at these seeds sees; a baseline stays with all looks, since it costs nothing."""
    constant = [arm.name for arm in so_far.study.arms if arm.method == "baseline"]
    arms = tuple(dict.fromkeys((*constant, *arms)))
    looks = [e for e in so_far.decisions if isinstance(e, Look)]
    earlier = [look for look in looks if len(look.seeds) < len(seeds)]
    seen = list_looks([*((e.seeds, e.arms) for e in earlier), (seeds, arms)])
    before = {_names_of(p): p.fate for e in earlier for p in e.pairs}
    pairs = tuple(
        pair.model_copy(update={"fate": before[_names_of(pair)]})
        if pair.fate == "left" and before.get(_names_of(pair)) == "out of reach"
        else pair
        for pair in judge(seen, so_far.plan)
    )
    open_arms = {arm for arms_of in list_open(pairs) for arm in arms_of}
    return Look(
        seeds=seeds,
        arms=arms,
        significance=seen[-1].significance,
        pairs=pairs,
        going=tuple(arm for arm in arms if arm in open_arms),
    )


def _names_of(pair: SeenPair) -> tuple[str, str, str, str]:
    return pair.benchmark, pair.protocol, pair.first, pair.second


def _follow(so_far: SoFar, look: Look, judge: Judge) -> tuple[Entry, ...]:
    """What follows a look: more seeds for arms whose comparison is open, or the end."""
    if so_far.decisions.index(so_far.plan) > so_far.decisions.index(look):
        # more seeds are allowed than then, so other pairs are in their reach
        look = _look(so_far, look.seeds, look.arms, judge)
    why = _find_ending(so_far.plan, look)
    if why is not None:
        return (End(why=why),)
    n_seeds = next(plan_looks(len(look.seeds), so_far.plan.most_seeds))
    return (Seeds(arms=look.going, n_seeds=n_seeds),)


def _find_ending(plan: Plan, look: Look) -> Ending | None:
    by_arms = _by_arms(look.pairs)
    if not by_arms:
        return "nothing left"
    if plan.question == "full-or-lora" and any(map(_is_lora_better, by_arms.values())):
        return "answered"
    if not list_open(look.pairs):
        return "decided" if all(map(_is_decided, by_arms.values())) else "out of reach"
    return "most seeds" if len(look.seeds) >= plan.most_seeds else None


_Arms = tuple[str, str]


def _by_arms(pairs: Sequence[SeenPair]) -> dict[_Arms, list[SeenPair]]:
    """The tests of each two arms."""
    found: dict[_Arms, list[SeenPair]] = {}
    for pair in pairs:
        found.setdefault((pair.first, pair.second), []).append(pair)
    return found


def list_open(pairs: Sequence[SeenPair]) -> list[_Arms]:
    """The two arms of each comparison that is not decided, and that more seeds may decide."""
    return [
        arms
        for arms, tests in _by_arms(pairs).items()
        if not _is_decided(tests) and any(pair.fate == "open" for pair in tests)
    ]


def _is_decided(tests: Sequence[SeenPair]) -> bool:
    """Whether two arms stand apart, as the verdict of the report has it (`standings`).

    One is better or worse as soon as a test separates the two. They are as good where every test
    shows it.
    """
    fates = {pair.fate for pair in tests}
    return "separated" in fates or fates == {"equivalent"}


def _is_lora_better(tests: Sequence[SeenPair]) -> bool:
    """Whether a LoRA arm is better than full fine-tuning, which stands first in its pairs.

    Whether other LoRA arms are better as well does not change the answer to full or LoRA.
    """
    lower = [pair.difference > 0 for pair in tests if pair.fate == "separated"]
    return bool(lower) and all(lower)


def find_fate(pair: Pair, look: Seen, most_seeds: int) -> Fate:
    """How a look leaves a pair.

    separated, equivalent   decided, as the report will show it
    left                    one of its arms takes no further part, or it cannot be judged
    out of reach            no later look has a chance of 10 % to decide it, if the true
                            difference is the observed one
    open                    anything else
    """
    if pair.is_equivalent:
        return "equivalent"
    if pair.is_separated:
        return "separated"
    if not pair.is_judged or look.arms is None or not {pair.first, pair.second} <= look.arms:
        return "left"
    assert pair.difference is not None
    assert pair.level is not None
    if len(pair.seeds) < _LEAST_FOR_HOPELESS:
        return "open"
    share, before = pair.level / look.significance, len(pair.seeds)
    for n_seeds in plan_looks(before, most_seeds):
        level = share * (spent_by(n_seeds) - spent_by(before))
        chance = chance_to_settle(pair.difference, pair.margin, n_seeds=n_seeds, level=level)
        if chance >= HOPELESS:
            return "open"
        before = n_seeds
    return "open" if before == len(pair.seeds) else "out of reach"
