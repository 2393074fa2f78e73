"""What the report says of right and wrong answers, from records made by hand."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lorastudy.analysis.findings import Findings, make_findings
from lorastudy.analysis.flips import Flips, count_flips
from lorastudy.errors import StorageError
from lorastudy.report.build import write_report
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.verdict import write_ending
from lorastudy.report.tables.comparisons import build_reference_table
from lorastudy.report.tables.flips import build_flip_table
from lorastudy.report.tables.formats import render_markdown
from lorastudy.report.tables.side_by_side import build_side_by_side
from lorastudy.report.tables.table1 import build_table1
from lorastudy.store.document_sums import DocumentSums, ItemRecord, read_document_sums
from lorastudy.store.files import write_record
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import EvaluationRecord
from support.made_results import make_results, make_run

N_ITEMS = 400
SHARES = {"baseline": 0.2, "full": 0.8, "lora-1": 0.5}  # of right answers


def make_items(share: float, seed: int) -> tuple[ItemRecord, ...]:
    """The easiest items are right; seeds differ in every fiftieth item."""
    limit = share * N_ITEMS
    return tuple(
        ItemRecord(
            place=f"items.jsonl, line {n + 1}",
            prompt=f"prompt {n} | x",
            answer=str(n),
            text=f"<b>{n}</b>",
            right=float((n < limit) != (n % 50 == 7 + seed and share > 0.2)),
        )
        for n in range(N_ITEMS)
    )


def make_score(items: tuple[ItemRecord, ...]) -> EvaluationRecord:
    return EvaluationRecord(
        benchmark="sums",
        protocol="exact-match",
        protocol_version=1,
        cross_entropy=None,
        perplexity=None,
        sum_nats=None,
        n_tokens=900,
        n_documents=len(items),
        seconds=1.0,
        averaged_over="documents",
        accuracy=sum(item.right for item in items) / len(items),
        n_population=900,
        standard_error=0.0123,
        n_cut=len(items) // 4 if items[N_ITEMS // 2].right == 0 else 0,
    )


def make_study(folder: Path, shares: Mapping[str, float], seeds: tuple[int, ...]) -> Findings:
    runs = []
    for arm, share in shares.items():
        for seed in seeds[:1] if arm == "baseline" else seeds:
            items = make_items(share, seed)
            score = make_score(items)
            method = arm if arm in ("full", "baseline") else "lora"
            runs.append(make_run(arm, seed, method=method, evaluations=(score,)))
            path = StudyFolder(folder).run(runs[-1].run_id).evaluations
            path.mkdir(parents=True)
            stored = DocumentSums(evaluation=score, unit="item", items=items)
            write_record(path / "sums--exact-match.json", stored)
    results = make_results(runs, arms=tuple(shares), seeds=seeds, benchmarks=("sums",))
    return make_findings(results, folder)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return make_study(tmp_path_factory.mktemp("tasks"), SHARES, (0, 1, 2))


def test_fewer_wrong_answers_are_better(findings: Findings) -> None:
    (comparison,) = findings.comparisons
    assert comparison.ranked == ("full", "lora-1", "baseline")
    pair = comparison.find_pair("lora-1", "full")
    assert pair is not None and pair.verdict == "higher"
    assert pair.mean == pytest.approx(0.3, abs=0.02)
    assert comparison.leader == "full"


def test_accuracies_are_shown_with_intervals_around_them(findings: Findings) -> None:
    table = build_table1(findings)
    assert table.columns[1].title == "exact-match v1, accuracy"
    assert table.title.endswith(": accuracy and cost of every arm")
    notes = " ".join(note.text for note in table.notes)
    assert "of 400 and of the worst seed: baseline 100, lora-1 100." in notes
    assert "a random part of 900 items" in notes and "accuracies have a standard error of" in notes
    for row, (arm, share) in zip(table.rows, SHARES.items(), strict=True):
        accuracy, _, _, low, high, error_rate = row[1].values
        assert row[0].text == arm and low < accuracy < high
        assert accuracy == pytest.approx(share, abs=0.02)
        assert error_rate == pytest.approx(1 - accuracy)


def test_an_interval_of_an_accuracy_stays_between_none_and_all(tmp_path: Path) -> None:
    table = build_table1(make_study(tmp_path, {"full": 0.0, "lora-1": 0.005}, (0,)))
    ends = [row[1].values[3:5] for row in table.rows]
    assert ends[0] == (None, None)  # no answer is right, which says little of other items
    assert ends[1][0] == 0.0 and 0.005 < ends[1][1] < 0.05


def test_sentences_speak_of_error_rates_and_wrong_answers(findings: Findings) -> None:
    assert state_headline(findings).startswith("Use full fine-tuning: the best LoRA arm")
    assert "has an error rate 28 points higher on sums" in state_headline(findings)
    known = " ".join(write_ending(findings, "DIR"))
    assert "+0.285 wrong answers per item [" in known and "nats" not in known
    text = render_markdown(build_reference_table(findings))
    assert "error rate is" in text and "28 points higher" in text
    assert "lora-1 repairs 1 % and breaks 29 % of the answers of full" in text
    assert "0.02 wrong answers per item (2 points of error rate)" in text


def test_what_an_arm_repairs_and_breaks_is_counted_beside_baseline_and_full(
    findings: Findings,
) -> None:
    table = build_flip_table(findings)
    rows = {row[2].text: [cell.values[0] for cell in row[3:]] for row in table.rows}
    assert set(rows) == {"full - baseline", "lora-1 - baseline", "lora-1 - full"}
    repaired, broken, both_right, both_wrong, n_seeds = rows["lora-1 - full"]
    assert repaired + broken + both_right + both_wrong == 3 * N_ITEMS and n_seeds == 3
    for seed in range(3):
        ours, theirs = make_items(SHARES["lora-1"], seed), make_items(SHARES["full"], seed)
        pairs = [(a.right, b.right) for a, b in zip(ours, theirs, strict=True)]
        repaired -= pairs.count((1.0, 0.0))
        broken -= pairs.count((0.0, 1.0))
    assert repaired == broken == 0


def test_one_seed_has_mcnemars_exact_test(tmp_path: Path) -> None:
    one = make_study(tmp_path, SHARES, (0,))
    assert build_flip_table(one).columns[-1].names == ("p_exact",)
    flips = Flips(both_right=50, repaired=8, broken=2, both_wrong=40, n_seeds=1)
    two_sided = 2 * sum(math.comb(10, k) for k in range(3)) / 2**10  # on paper
    assert flips.p_exact == pytest.approx(two_sided)
    assert flips.turned_round().broken == 8
    counted = count_flips(np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 1.0, 0.0, 1.0]]))
    assert counted == Flips(1, 1, 1, 1, 1) and counted.p_exact == 1.0


def test_items_on_which_arms_disagree_come_first_after_the_first_ones(findings: Findings) -> None:
    (found,) = findings.side_by_side
    assert [item.prompt for item in found.first] == [f"prompt {n} | x" for n in range(3)]
    assert all(item.disagreement == 1 for item in found.apart)
    cells = build_side_by_side(found).rows[-1]
    assert {cell.detail for cell in cells[3:]} == {"✓", "✗"}


def test_a_page_of_tasks_escapes_what_models_wrote(findings: Findings, tmp_path: Path) -> None:
    page = write_report(findings, tmp_path).read_text()
    assert "Answers repaired and broken" in page and "answers side by side" in page
    assert "&lt;b&gt;" in page and "<b>0</b>" not in page
    assert (tmp_path / "report" / "flips.csv").exists()
    rates = json.loads((tmp_path / "report" / "learning_rates.json").read_text())
    assert rates["rates"][1]["perplexities"] == []
    table = (tmp_path / "report" / "side_by_side.md").read_text()
    assert r"prompt 0 \| x" in table


def test_answers_to_other_items_are_not_compared(tmp_path: Path) -> None:
    results = make_study(tmp_path, SHARES, (0,)).results
    folder = StudyFolder(tmp_path).run("lora-1-s0-0123abcd").evaluations
    path = folder / "sums--exact-match.json"
    path.write_text(path.read_text().replace("items.jsonl, line 7", "items.jsonl, line 700"))
    found = make_findings(results, tmp_path)
    assert "lora-1, seed 0: other documents than" in " ".join(found.comparisons[0].notes)
    assert not found.side_by_side


def test_items_that_do_not_add_up_to_their_score_are_damaged(
    findings: Findings, tmp_path: Path
) -> None:
    make_study(tmp_path, SHARES, (0,))
    folder = StudyFolder(tmp_path).run("full-s0-0123abcd")
    path = folder.evaluations / "sums--exact-match.json"
    content = json.loads(path.read_text())
    (evaluation,) = findings.results.runs[1].evaluations
    for change in (
        lambda items: items[0].update(right=0.0),
        lambda items: items.pop(),
    ):
        damaged = json.loads(json.dumps(content))
        change(damaged["items"])
        path.write_text(json.dumps(damaged))
        with pytest.raises(StorageError, match="its score"):
            read_document_sums(folder, evaluation)
