"""The sentences of the verdict: each rule with numbers, and no sentence against a number."""

import math
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lorastudy.analysis.findings import Findings, make_findings
from lorastudy.analysis.pairs import Comparison
from lorastudy.analysis.recommendation import list_tests, recommend
from lorastudy.analysis.statistics import Interval
from lorastudy.analysis.summary import ScoreKey
from lorastudy.config.study_file import preset_text
from lorastudy.report.numerals import write_p
from lorastudy.report.page.details import compare_placements, state_forgetting, state_lead
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import state_verdict, write_ending
from lorastudy.report.tables.comparisons import build_reference_table
from lorastudy.report.tables.table1 import build_table1
from lorastudy.report.wording import write_difference, write_size
from support.made_studies import make_study, on_tests

EQUAL = {"lora-1": 20.004, "lora-2": 20.002, "full": 20.0}
CLOSE = {"lora-1": 0.001, "lora-2": 0.0, "full": 0.002}


def say(findings: Findings) -> dict[str, str]:
    return {
        statement.question: " ".join(statement.sentences) for statement in state_verdict(findings)
    }


def test_lora_that_is_as_good_is_named_by_its_placement_with_margin_and_costs(
    tmp_path: Path,
) -> None:
    (tmp_path / "study.yaml").write_text(preset_text("demo"))
    findings = make_study(tmp_path, EQUAL, spread=CLOSE)
    headline = state_headline(findings)
    assert headline.startswith(
        "Use LoRA on attention (lora-1): as good as full fine-tuning within 0.02 nats per token "
        "(2 % of perplexity) on wikitext-2, lambada and imdb, with 33 % of the trained parameters"
    )


def test_full_is_better_by_a_percentage_of_perplexity(tmp_path: Path) -> None:
    arms = {"lora-1": 30.0, "lora-2": 25.0, "full": 20.0}
    findings = make_study(tmp_path, arms, validation={"lora-2": 2.0})
    assert state_headline(findings).startswith(
        "Use full fine-tuning: the best LoRA arm by validation loss, lora-2, has a perplexity 25 % "
        "higher on wikitext-2, lambada and imdb; lora-2 has 67 % of the trained parameters"
    )
    assert (
        "On imdb, lora-2 is worse; lora-2 minus full is +0.223 nats per token"
        in (say(findings)["How sure?"])
    )


def test_lora_is_better_by_a_percentage_of_perplexity(tmp_path: Path) -> None:
    findings = make_study(tmp_path, {"lora-1": 18.0, "full": 20.0})
    assert "its perplexity is 10 % lower on wikitext-2" in state_headline(findings)


def test_an_open_pair_is_not_decided_and_says_what_is_known(tmp_path: Path) -> None:
    arms, wobble = {"lora-1": 20.5, "lora-2": 40.0, "full": 20.0}, {"lora-1": 0.02, "lora-2": 0.02}
    findings = make_study(tmp_path, arms, wobble=wobble)
    assert state_headline(findings).startswith("Not decided: lora-1 and full fine-tuning")
    sure = say(findings)["How sure?"]
    assert "not separated; lora-1 minus full is +0.0" in sure
    assert "higher on all 3 seeds and on 100 % of the documents" in sure
    assert re.search(r"3 seeds cannot confirm the difference, about \d+ would", sure)


def test_one_seed_speaks_of_checkpoints_and_not_of_methods(tmp_path: Path) -> None:
    findings = make_study(tmp_path, {"full": 20.0, "lora-1": 30.0}, seeds=(0,))
    headline = state_headline(findings)
    assert headline.startswith("One seed says nothing about the methods")
    assert "50 % higher on wikitext-2" in headline
    everything = " ".join([headline, *say(findings).values()])
    assert not re.search(r"\b(better|worse|Use)\b", everything)
    assert compare_placements(findings) == ()


def test_with_one_seed_nothing_is_bold_and_the_table_says_why(tmp_path: Path) -> None:
    arms = {"full": 20.0, "lora-1": 30.0, "lora-2": 25.0}
    table = build_table1(make_study(tmp_path, arms, seeds=(0,)))
    assert not any(cell.is_emphasised for row in table.rows for cell in row)
    assert [row[1].mark for row in table.rows] == ["‡", "", ""]
    assert any(note.mark == "‡" and "nothing is bold" in note.text for note in table.notes)


def test_better_on_one_text_and_worse_on_another_depends_on_the_text(tmp_path: Path) -> None:
    arms = {"lora-1": on_tests(18, 30, 30), "full": on_tests(20, 20, 20)}
    assert state_headline(make_study(tmp_path, arms)) == (
        "It depends on the text: the perplexity of lora-1 is 10 % lower on wikitext-2 and "
        "50 % higher on lambada and imdb than that of full fine-tuning."
    )


def test_the_base_model_is_kept_if_training_made_it_worse(tmp_path: Path) -> None:
    arms = {"baseline": 15.0, "lora-1": 30.0, "lora-2": 31.0, "full": 20.0}
    assert state_headline(make_study(tmp_path / "1", arms)) == (
        "Keep the base model: full fine-tuning is worse than it on some test and better on none."
    )
    # lora-1 is as good as full fine-tuning, which is as good as the base model, but not lora-1
    arms = {"baseline": 20.0, "lora-1": 20.465, "full": 20.363}
    study = make_study(tmp_path / "2", arms, spread={"lora-1": 0.001})
    assert state_headline(study) == (
        "Keep the base model: lora-1 is worse than it on some test and better on none."
    )


def test_a_test_without_sums_is_said_to_be_without_a_verdict(tmp_path: Path) -> None:
    arms = {"lora-1": 20.004, "full": 20.0}
    study = make_study(tmp_path, arms, spread=CLOSE)
    for path in tmp_path.glob("runs/lora-1-*/evaluations/imdb*"):
        path.unlink()
    headline = state_headline(make_findings(study.results, tmp_path))
    assert headline == (
        "Not decided: lora-1 and full fine-tuning are equal within the margin on wikitext-2 and "
        "lambada, and without a verdict on imdb."
    )


def test_a_terminal_gets_three_lines_and_the_last_has_the_command(tmp_path: Path) -> None:
    findings = make_study(tmp_path, {"lora-1": 30.0, "full": 20.0})
    lines = write_ending(findings, "studies/my study")
    assert len(lines) == 3 and not any("\n" in line for line in lines)
    assert lines[0] == state_headline(findings)
    assert lines[2].endswith("lorastudy export 'studies/my study' full --to MODEL")


def test_no_line_on_a_terminal_is_left_empty_if_nothing_can_be_judged(tmp_path: Path) -> None:
    lines = write_ending(make_study(tmp_path, {"lora-1": 30.0}), "studies/x")
    assert len(lines) == 3 and not any(line.endswith(":") for line in lines)


def test_forgotten_text_of_the_two_arms_is_a_cost(tmp_path: Path) -> None:
    arms = {"baseline": on_tests(40, 40, 40), "lora-1": on_tests(30, 30, 40.4)}
    arms |= {"lora-2": on_tests(31, 31, 44), "full": on_tests(20, 20, 48)}
    findings = make_study(tmp_path, arms, forgetting=("imdb",), validation={"lora-2": 2.0})
    # ln(44 / 40) and ln(48 / 40)
    assert (
        "worse than the base model: lora-2 (+0.095 nats per token) and full (+0.182"
        in (say(findings)["At what cost?"])
    )
    (sentence,) = state_forgetting(findings)
    assert "worse than the base model: lora-1, lora-2 and full" in sentence


@pytest.mark.parametrize(
    ("nats", "words"),
    [
        (math.log(1.12), "12 % higher"),
        (math.log(0.9), "10 % lower"),
        (0.003, "0.3 % higher"),
        (-0.0001, "0.01 % lower"),
        (math.log(21), "2,000 % higher"),
        (-0.00000304, "0.0003 % lower"),
    ],
)
def test_percentages_are_of_the_perplexity(nats: float, words: str) -> None:
    assert write_size(nats, ScoreKey("b", "rows-text", 1)) == words


@pytest.mark.parametrize(
    ("mean", "low", "high", "shown"),
    [
        (0.0121, 0.0002, 0.024, "+0.0121 nats per token [+0.0002, +0.0240]"),
        (-0.5, -1.0, -3e-9, "-0.500000000 nats per token [-1.000000000, -0.000000003]"),
        (0.0, 0.0, 0.0, "+0.000 nats per token [+0.000, +0.000]"),
    ],
)
def test_rounding_moves_no_end_of_an_interval_to_zero(
    mean: float, low: float, high: float, shown: str
) -> None:
    key = ScoreKey("b", "rows-text", 1)
    assert write_difference(mean, Interval(low, high), key) == shown


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.00002, "<0.0001"), (0.0321, "0.0321"), (0.049996, "0.049996"), (0.05, "0.0500")],
)
def test_rounding_moves_no_p_value_across_its_limit(p: float, shown: str) -> None:
    assert write_p(p) == shown


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """Arms that are alike or apart, with seeds and documents that spread a little or a lot."""
    names = ("lora-1", "lora-3", "lora-2", "full")[draw(st.integers(0, 1)) :]
    sizes = st.sampled_from([0.05, 0.005, 0.0005, 0.5, 0.0])
    signs = st.sampled_from([-1.0, 1.0])

    def draw_all(scale: float) -> dict[str, float]:
        return {name: scale * draw(sizes) * draw(signs) for name in names}

    tilt = {"full": draw(st.sampled_from([0.0, -0.5, 0.5]))}  # so that full is often apart
    levels = {
        name: on_tests(
            *(20 * math.exp(tilt.get(name, 0) + draw(sizes) * draw(signs)) for _ in range(3))
        )
        for name in names
    }
    if draw(st.booleans()):
        levels["baseline"] = on_tests(21, 30, 18)
    return {
        "perplexities": levels,
        "seeds": tuple(range(draw(st.sampled_from([3, 2, 4, 1])))),
        "spread": draw_all(1.0),
        "wobble": draw_all(0.2),
        "validation": {name: draw(st.floats(2, 3)) for name in names},
        "forgetting": draw(st.sampled_from([(), ("imdb",)])),
    }


_RESULT = re.compile(
    r"On (?P<where>\S+), (?:(?P<word>the two are tied|not separated|no verdict|\S+ is better|"
    r"\S+ is worse)[^;]*; )?\S+ minus \S+ is (?P<mean>[-+][\d.,]+) nats per token"
    r"(?: \[(?P<low>[-+][\d.,]+), (?P<high>[-+][\d.,]+)\])?"
)


def read_number(text: str) -> float:
    return float(text.replace(",", ""))


def check_sentence(sentence: str, findings: Findings) -> None:
    """Word and printed numbers of one test agree with each other and with p."""
    found = _RESULT.match(sentence)
    assert found is not None, sentence
    recommendation = recommend(findings)
    (pair,) = (t.pair for t in recommendation.tests if t.key.benchmark == found["where"])
    word = (found["word"] or "").rpartition(" is ")[2] or found["word"]
    if found["low"] is None:
        assert word == "no verdict"
        return
    low, high = read_number(found["low"]), read_number(found["high"])
    mean = read_number(found["mean"])
    assert low <= mean <= high
    if pair.p_holm is None:
        assert word in (None, "no verdict")
        return
    assert (pair.p_holm < 0.05) == (word in ("better", "worse")) == (not low <= 0 <= high)
    if word in ("better", "worse"):
        assert (word == "better") == (high < 0) == (mean < 0)
    elif word == "the two are tied":
        assert -pair.margin <= low and high <= pair.margin and pair.p_equivalence < 0.05
    else:
        assert word == "not separated" and not pair.is_equivalent


def check_marks(comparison: Comparison, findings: Findings) -> None:
    """Bold, dagger and double dagger of Table I follow from the pairs with the lowest loss."""
    table = build_table1(findings.restrict([comparison]))
    for row in table.rows:
        arm, cell = row[0].text, row[1]
        lead = comparison.ranked[0]
        pair = comparison.find_pair(lead, arm) if arm != lead else None
        if cell.is_emphasised:
            assert arm == lead and len(findings.results.seeds) > 1
            others = [comparison.find_pair(lead, other) for other in comparison.ranked[1:]]
            assert all(p.verdict == "lower" and p.p_holm < 0.05 for p in others)
        if cell.mark == "†" and pair is not None:
            assert pair.verdict != "lower"
        assert (cell.mark == "‡") <= (arm == lead)


_ALIKE = 20 * math.exp(-0.05)
# on imdb, the interval of lora-1 minus full ends at -0.00003
NEAR_ZERO: dict[str, Any] = {
    "perplexities": {
        "lora-1": on_tests(_ALIKE, _ALIKE, 20 * math.exp(-0.005)),
        "lora-3": on_tests(_ALIKE, _ALIKE, _ALIKE),
        "lora-2": on_tests(_ALIKE, _ALIKE, _ALIKE),
        "full": on_tests(20 * math.exp(0.45), 20 * math.exp(0.45), 20.0),
        "baseline": on_tests(21, 30, 18),
    },
    "spread": dict.fromkeys(("lora-1", "lora-3", "lora-2", "full"), -0.05),
    "wobble": {"lora-1": 0.001, "lora-3": -0.001, "lora-2": 0.001, "full": -0.0001},
}


@given(studies())
@example(NEAR_ZERO)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_sentence_word_or_mark_contradicts_a_number(study: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        findings = make_study(Path(folder), **study)
    found, headline = recommend(findings), state_headline(findings)
    said = {statement.question: statement.sentences for statement in state_verdict(findings)}
    for sentence in said.get("How sure?", ())[: len(found.tests)]:
        check_sentence(sentence, findings)
    # the words of the headline are those of the sentences below it
    verdicts = [t.pair.verdict for t in found.tests]
    assert headline.startswith("Use ") == (found.recommended is not None)
    if found.recommended is not None and found.recommended == found.reference:
        assert "higher" in verdicts and "lower" not in {
            t.pair.verdict for t in found.tests if not t.pair.is_equivalent
        }
    if found.outcome == "LoRA":
        assert all(t.pair.is_equivalent or t.pair.verdict != "higher" for t in found.tests)
        assert any(t.pair.is_equivalent or t.pair.verdict == "lower" for t in found.tests)
    for percent, side, where in re.findall(r"([\d.,]+) % (higher|lower) on ([^\s,;]+)", headline):
        (pair,) = (t.pair for t in found.tests if t.key.benchmark == where)
        assert (side == "higher") == (pair.mean >= 0)
        ratio = 100 * abs(math.expm1(pair.mean))
        last_place = 10.0 ** -len(percent.partition(".")[2])
        assert read_number(percent) == pytest.approx(ratio, rel=1e-9, abs=0.5 * last_place + 1e-9)
    for comparison in list_tests(findings):
        check_marks(comparison, findings)
        lead = state_lead(comparison)
        assert (f"{comparison.leader} is best" in lead) == (comparison.leader is not None)
    for row in build_reference_table(findings).rows:
        check_row([cell.text for cell in row])


def check_row(cells: list[str]) -> None:
    """Interval, p and word of one row of the differences."""
    _, _, _, difference, interval, p, _, word, _ = cells
    if word in ("one seed", "no verdict"):
        assert p == "–"
        return
    low, high = map(read_number, interval.strip("[]").split(", "))
    assert low <= read_number(difference) <= high
    has_zero = low <= 0 <= high
    assert (word in ("lower", "higher")) == (not has_zero)
    assert (p == "<0.0001" or float(p) < 0.05) == (not has_zero)
