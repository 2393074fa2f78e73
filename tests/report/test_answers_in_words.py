"""The verdict, what tuning changed, fronts and documents: words and tables from comparisons."""

import json
import math
from pathlib import Path

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.config.study_file import load_study, preset_text
from lorastudy.report.page.details import compare_placements, state_forgetting, state_limits
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.integrity import list_warnings
from lorastudy.report.page.verdict import state_verdict
from lorastudy.report.tables.comparisons import build_reference_table
from lorastudy.report.tables.comparisons_json import write_comparisons_json
from lorastudy.report.tables.documents import build_document_table
from lorastudy.report.tables.forgetting import build_change_table
from lorastudy.report.tables.formats import render_csv, render_json
from lorastudy.report.tables.html import render_html
from lorastudy.report.tables.settings import build_difference_table, fold_modules
from lorastudy.report.tables.table import Cell, Column, Table
from lorastudy.report.tables.table1 import build_table1
from support.made_results import (
    make_evaluations,
    make_failed_run,
    make_results,
    make_run,
    write_sums,
)
from support.made_studies import SEEDS, make_study


def test_what_the_design_allows_is_said_with_the_smallest_difference(tmp_path: Path) -> None:
    findings = make_study(tmp_path, {"full": 20.0, "lora-1": 30.0}, wobble={"full": 0.02})
    said = " ".join(state_limits(findings))
    assert "There are 3 seeds" in said and "(2 % of perplexity)" in said
    low, _ = findings.comparisons[0].smallest_shown
    assert f"differences of {low:.3f} nats per token or more" in said
    assert "count padding as text take no part" in said
    sure = make_study(tmp_path / "sure", {"full": 20.0, "lora-1": 30.0}, wobble={"full": 1e-4})
    assert 0 < sure.comparisons[0].smallest_shown[0] < 0.0005
    assert "differences of 0.000 " not in " ".join(state_limits(sure))
    one_seed = make_study(tmp_path / "one", {"full": 20.0, "lora-1": 30.0}, seeds=(0,))
    assert state_limits(one_seed)[0].startswith("There is one seed")


def test_no_statement_is_of_a_padded_score(tmp_path: Path) -> None:
    findings = make_study(tmp_path, {"baseline": 40.0, "full": 20.0, "lora-1": 30.0})
    said = [text for statement in state_verdict(findings) for text in statement.sentences]
    assert said and "paper-padded" not in " ".join([state_headline(findings), *said])
    table = build_reference_table(findings)
    assert {row[1].text for row in table.rows} == {"rows-text v1"}


def test_placements_are_worse_tied_or_not_separated(tmp_path: Path) -> None:
    arms = {"full": 20.0, "lora-1": 30.0, "lora-2": 25.0, "lora-3": 25.001}
    findings = make_study(tmp_path, arms, spread={"lora-3": 0.0005})
    assert compare_placements(findings)[0] == (
        "On wikitext-2, lora-2 has the lowest loss of the LoRA placements: lora-1 is separated "
        "from it; lora-3 is tied with it."
    )


def test_forgetting_is_tuned_minus_baseline_and_has_an_interval(tmp_path: Path) -> None:
    arms = {"baseline": 20.0, "full": 30.0}
    findings = make_study(tmp_path, arms, forgetting=("imdb",))
    changes = findings.changes
    first = changes[0]
    assert (first.key.benchmark, first.role, first.pair.first) == ("imdb", "forgetting", "full")
    expected = sum(math.log(30 + 0.001 * s) - math.log(20) for s in SEEDS) / 3
    assert first.pair.mean == pytest.approx(expected, abs=1e-9)
    assert first.pair.interval.low < expected < first.pair.interval.high
    assert [c.role for c in changes].count("test") == 4  # two benchmarks, two protocols
    stored = json.loads(write_comparisons_json(findings))["tuned_minus_baseline"][0]
    assert stored["difference"] == first.pair.mean and stored["role"] == "forgetting"
    assert "On imdb, worse than the base model: full." in state_forgetting(findings)[0]
    assert build_change_table(changes).rows[0][7].text == "worse than the base model"


def test_an_arm_is_excluded_only_by_a_cheaper_one_that_is_separated(tmp_path: Path) -> None:
    arms = {"lora-1": 20.0, "lora-2": 30.0, "lora-3": 20.001, "full": 19.9}
    spread = {"lora-1": 0.0, "lora-2": 0.0, "lora-3": 0.1, "full": 0.0}
    findings = make_study(tmp_path, arms, spread=spread)
    (front,) = (f for f in findings.fronts if f.key.benchmark == "lambada" and "param" in f.cost)
    assert [(p.arm, p.standing) for p in front.points] == [
        ("lora-1", "front"),
        ("lora-2", "excluded"),
        ("lora-3", "not excluded"),
        ("full", "front"),
    ]


def test_documents_are_counted_once_each_and_read_off_at_quantiles(tmp_path: Path) -> None:
    # ten documents of 100 targets; full has 100 (i - 4.5) / 10 nats more on the i-th
    arms, spread = {"full": 20.0, "lora-1": 20.0}, {"full": 0.1, "lora-1": 0.0}
    findings = make_study(tmp_path, arms, spread=spread)
    row = build_document_table(findings).rows[0]
    assert [cell.text for cell in row[2:5]] == ["lora-1 - full", "10", "50 %"]
    assert row[7].values == pytest.approx((0.0,))  # the median of -0.45, -0.35, ... 0.45
    pair = findings.comparisons[0].find_pair("full", "lora-1")
    assert pair.documents.quantiles[0] == pytest.approx(-0.45)


def test_an_arms_own_interval_is_that_of_its_seeds_where_documents_are_alike(
    tmp_path: Path,
) -> None:
    values = {0: 20.0, 1: 20.0 * math.exp(0.02)}
    runs = [make_run("full", s, evaluations=make_evaluations(v)) for s, v in values.items()]
    results = make_results(runs, arms=("full",), seeds=(0, 1))
    write_sums(tmp_path, results)
    findings = make_findings(results, tmp_path)
    level = findings.comparisons[0].find_level("full")
    # seeds at +-0.01 around the mean: standard error 0.01, t quantile of one degree 12.706
    assert level.interval.high - level.mean == pytest.approx(0.01 * 12.7062, rel=1e-4)
    cell = build_table1(findings).rows[0][1]
    low, high = 20 * math.exp(0.01 - 0.127062), 20 * math.exp(0.01 + 0.127062)
    assert cell.detail == f"[{low:.2f}, {high:.2f}]"
    assert cell.hint == "± 0.29 over 2 seeds"  # of 20 and 20.404


def test_a_cell_of_fewer_seeds_than_wanted_says_so_and_a_failed_arm_is_visible(
    tmp_path: Path,
) -> None:
    runs = [make_run("full", 0), make_failed_run("full", 1, "x"), make_failed_run("b", 0, "y")]
    results = make_results(runs, arms=("full", "b"))
    first, second = (row[1] for row in build_table1(make_findings(results)).rows)
    assert first.detail == "(1 of 2)"
    assert (second.text, second.is_bad) == ("failed", True)


def test_only_settings_that_differ_have_a_column() -> None:
    study = load_study(preset_text("demo"), "demo")
    table = build_difference_table(study)
    assert [c.title for c in table.columns][:3] == ["arm", "method", "placement"]
    loras = study.model_copy(update={"arms": study.arms[2:]})
    table = build_difference_table(loras)
    assert [c.title for c in table.columns] == ["arm", "placement"]
    assert "rank 16, alpha 32, dropout 0.1, learning rates 5e-3" in table.notes[0].text


def test_modules_are_folded_over_layers() -> None:
    modules = [f"h.{layer}.attn.c_proj" for layer in range(12)] + ["lm_head"]
    assert fold_modules(modules) == ("h.*.attn.c_proj (12)", "lm_head")


def test_warnings_name_missing_seeds_and_runs(tmp_path: Path) -> None:
    runs = [make_run("full", 0), make_run("full", 1), make_run("lora-1", 0)]
    results = make_results(runs, arms=("full", "lora-1"), missing=("lora-1-s1-0123abcd",))
    found = " ".join(list_warnings(make_findings(results)))
    assert "1 run not finished yet" in found
    assert "Some seeds are missing or failed: lora-1." in found


def make_table() -> Table:
    rows = [(Cell(a, (a,)), Cell(str(v), (v,))) for a, v in (("x", 1.5), ("x", math.inf))]
    return Table("t", (Column("arm", ("arm",)), Column("v", ("value",))), tuple(rows))


def test_json_has_the_rows_of_csv_and_null_for_what_is_not_finite() -> None:
    rows = json.loads(render_json(make_table()))["rows"]
    assert rows == [{"arm": "x", "value": 1.5}, {"arm": "x", "value": None}]
    assert render_csv(make_table()).splitlines()[0] == "arm,value"


def test_neighbouring_rows_share_their_first_cell_in_html() -> None:
    text = render_html(make_table())
    assert text.count('rowspan="2"') == 1 and text.count(">x<") == 1
