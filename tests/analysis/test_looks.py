"""A study that was looked at while it grew: what its report says of arms with unequal seeds."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lorastudy.analysis import next_steps
from lorastudy.analysis.caveats import find_caveats
from lorastudy.analysis.findings import Findings, make_findings
from lorastudy.analysis.looks import list_looks, spent_by
from lorastudy.analysis.pairs import Pair
from lorastudy.analysis.recommendation import recommend
from lorastudy.analysis.until_decided import find_fate
from lorastudy.config.study_file import preset_text
from lorastudy.report.page.details import state_families
from lorastudy.report.page.verdict import state_verdict, write_ending
from lorastudy.store.decisions import End, Entry, Look, Plan, Seeds, append_decision
from lorastudy.store.folders import StudyFolder
from support.made_results import make_evaluations, make_results, make_run, write_sums

ARMS = ("baseline", "full", "lora-1", "lora-2", "lora-3")
PERPLEXITIES = {"baseline": 40.0, "full": 20.0, "lora-1": 90.0, "lora-2": 20.05, "lora-3": 60.0}
GOING = ("baseline", "full", "lora-2")
PARTS = {2: spent_by(2), 3: spent_by(3) - spent_by(2), 5: spent_by(5) - spent_by(3)}
N_SEEDS = {"baseline": 1, "full": 5, "lora-1": 2, "lora-2": 5, "lora-3": 2}


def look(n_seeds: int, arms: tuple[str, ...], going: tuple[str, ...]) -> Look:
    return Look(
        seeds=tuple(range(n_seeds)),
        arms=arms,
        significance=PARTS[n_seeds],
        pairs=(),
        going=going,
    )


DECISIONS: tuple[Entry, ...] = (
    Plan(question="full-or-lora", most_seeds=5),
    Seeds(arms=ARMS, n_seeds=2),
    look(2, ARMS, ("full", "lora-2")),
    Seeds(arms=("full", "lora-2"), n_seeds=3),
    look(3, GOING, ("full", "lora-2")),
    Seeds(arms=("full", "lora-2"), n_seeds=5),
    look(5, GOING, ("full", "lora-2")),
    End(why="most seeds"),
)


def make_grown(
    folder: Path,
    n_seeds: Mapping[str, int] = N_SEEDS,
    *,
    decisions: tuple[Entry, ...] = DECISIONS,
    later: float = 0.0,
) -> Findings:
    """Seeds of arms go up and down a little; from the third on, full has `later` nats more."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(preset_text("demo"))
    append_decision(StudyFolder(folder), *decisions)
    runs = []
    for place, arm in enumerate(ARMS):
        for seed in range(n_seeds[arm]):
            wobble = 0.002 * (-1) ** (seed * (place + 1)) + 0.001 * seed * place
            wobble = 0.02 * (-1) ** seed if arm == "lora-2" else wobble
            wobble += later if arm == "full" and seed >= 2 else 0.0
            value = PERPLEXITIES[arm] * math.exp(wobble)
            method = arm if arm in ("baseline", "full") else "lora"
            rate = None if arm == "baseline" else 1e-3
            scores = make_evaluations(value)
            runs.append(make_run(arm, seed, method=method, learning_rate=rate, evaluations=scores))
    seeds = tuple(range(max(n_seeds.values())))
    decided = [{"arm": arm, "n_seeds": n_seeds[arm], "learning_rate": None} for arm in ARMS]
    results = make_results(runs, arms=ARMS, seeds=seeds, decided=tuple(decided))
    write_sums(folder, results, lambda arm: 0.0002 * ARMS.index(arm))
    return make_findings(results, folder, with_bootstrap=False)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return make_grown(tmp_path_factory.mktemp("grown"))


def pair_of(findings: Findings, first: str, second: str) -> Pair:
    pair = findings.main[0].find_pair(first, second)
    assert pair is not None
    return pair


def test_a_decided_pair_stays_as_its_look_found_it(grown: Findings, tmp_path: Path) -> None:
    pair = pair_of(grown, "lora-1", "full")
    assert (pair.seeds, pair.verdict, pair.is_asked) == ((0, 1), "higher", True)
    # whatever the seeds say that were added for another pair
    later = make_grown(tmp_path / "later", later=0.4)
    assert pair_of(later, "lora-1", "full") == pair
    assert pair_of(later, "lora-2", "full") != pair_of(grown, "lora-2", "full")
    # nor does a look change what an earlier one saw
    first = make_grown(tmp_path / "first", dict.fromkeys(ARMS, 2) | {"baseline": 1},
                       decisions=DECISIONS[:3])  # fmt: skip
    assert pair_of(first, "lora-1", "full") == pair


def test_an_open_pair_is_as_the_last_look_found_it(grown: Findings, tmp_path: Path) -> None:
    pair = pair_of(grown, "lora-2", "full")
    assert pair.seeds == (0, 1, 2, 3, 4) and not pair.is_separated
    # runs of a look that is not taken yet are not looked at
    early = make_grown(tmp_path, decisions=DECISIONS[:-3])
    assert pair_of(early, "lora-2", "full").seeds == (0, 1, 2)
    assert recommend(early).step.write_command() == "lorastudy run DIR"


def test_a_pair_is_out_of_reach_if_no_look_that_is_allowed_is_likely_to_decide_it(
    grown: Findings, tmp_path: Path
) -> None:
    first, _, last = list_looks((e.seeds, e.arms) for e in DECISIONS if isinstance(e, Look))
    pair = pair_of(grown, "lora-2", "full")
    assert (pair.seeds_for_observed, pair.seeds_for_equivalence) == (1001, 32)
    assert [find_fate(pair, last, most) for most in (8, 50)] == ["out of reach", "open"]
    assert find_fate(pair, last, 5) == "open"  # no seeds are left to spend
    assert find_fate(pair_of(grown, "lora-1", "full"), last, 5) == "separated"
    # two seeds tell too little about the spread
    early = make_grown(tmp_path, decisions=DECISIONS[:3])
    assert find_fate(pair_of(early, "lora-2", "full"), first, 3) == "open"
    gone = replace(last, arms=frozenset(ARMS) - {"lora-2"})
    assert find_fate(pair, gone, 50) == "left"


def test_word_interval_and_p_value_of_every_pair_agree_at_the_level_of_its_look(
    grown: Findings,
) -> None:
    judged = [pair for c in grown.comparisons for pair in c.pairs]
    assert {len(pair.seeds) for pair in judged} == {2, 5}
    for pair in judged:
        assert pair.is_judged and pair.interval is not None and pair.level is not None
        assert pair.p_holm is not None
        has_zero = pair.interval.low <= 0 <= pair.interval.high
        assert pair.is_separated == (not has_zero) == (pair.p_holm < 0.05)
        assert pair.is_equivalent == ((pair.p_equivalence or 1.0) < 0.05)
        assert PARTS[len(pair.seeds)] / pair.n_family <= pair.level * (1 + 1e-9)
        assert pair.level <= PARTS[len(pair.seeds)] * (1 + 1e-9)


def test_arms_that_stopped_are_ranked_and_not_called_incomplete(grown: Findings) -> None:
    for comparison in grown.comparisons:
        assert comparison.incomplete == () and set(comparison.ranked) == set(ARMS)
        assert {level.arm: level.n_seeds for level in comparison.levels} == N_SEEDS
    found = recommend(grown)
    kinds = {caveat.kind for caveat in find_caveats(grown, found)}
    assert not kinds & {"incomplete arms", "missing runs"}
    assert "no verdict" not in {pair.verdict for c in grown.comparisons for pair in c.pairs}


def test_the_page_says_how_the_runs_were_chosen(
    grown: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {statement.question: statement for statement in state_verdict(grown)}
    sentences = " ".join(said["How were the runs chosen?"].sentences)
    assert "Not decided with as many seeds as are allowed." in sentences
    assert "2 for lora-1 and lora-3; 5 for full and lora-2" in sentences
    assert "2 seeds (0.62 %), 3 seeds (0.26 %) and 5 seeds (0.43 %)" in sentences
    assert said["What next?"].command == "lorastudy decide DIR --margin NATS"
    monkeypatch.setattr(next_steps, "_MOST_SEEDS", 1000)
    assert "lorastudy run DIR --until-decided --max-seeds" in recommend(grown).step.write_command()
    assert "adjusted for the looks" in state_families(grown)
    assert [line.split(":")[0] for line in write_ending(grown, "DIR")[1:]] == [
        "How sure",
        "How decided",
        "Next",
    ]


def test_before_the_first_look_nothing_is_judged(tmp_path: Path) -> None:
    findings = make_grown(tmp_path, decisions=DECISIONS[:2])
    assert {pair.verdict for c in findings.comparisons for pair in c.pairs} == {"one seed"}
