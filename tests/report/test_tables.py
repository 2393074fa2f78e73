"""Tables: numbers of Table I, failures that stay visible, and escaping in every format."""

import csv
import io
from pathlib import Path

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.report.build import TableFormat, render_table
from lorastudy.report.numerals import ABSENT, write_number, write_rate, write_share
from lorastudy.report.tables.formats import render_latex, render_markdown
from lorastudy.report.tables.html import render_html
from lorastudy.report.tables.runs import build_failure_table, build_run_table
from lorastudy.report.tables.table import Cell, Column, Table
from lorastudy.report.tables.table1 import build_table1
from lorastudy.report.tables.times import build_time_table
from lorastudy.store.records import RunResult, ServedScore, StudyResults
from support.made_results import (
    make_evaluations,
    make_failed_run,
    make_results,
    make_run,
    write_sums,
)

HOSTILE = "<script>alert(1)</script> & a|b_c $x$ 100% \\input{x} ~^# `c`"


def hostile_table() -> Table:
    return Table(HOSTILE, (Column("t", ("t",), "left"),), ((Cell(HOSTILE, (HOSTILE,)),),))


def render(results: StudyResults, format: TableFormat = "md") -> str:
    return render_table(make_findings(results), format)


def build_table(results: StudyResults, folder: Path | None = None) -> Table:
    return build_table1(make_findings(results, folder))


def markdown_row(results: StudyResults, arm: str) -> list[str]:
    lines = render(results).splitlines()
    row = next(line for line in lines if line.startswith(f"| {arm} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_table_one_shows_the_perplexity_of_the_mean_loss_and_the_deviation_of_seeds() -> None:
    # perplexities 20 and 22: sqrt(20 x 22), sample sd sqrt(2); seconds 9500 and 9800
    row = markdown_row(make_results(), "full")
    assert row[:2] == ["full", "20.98 ± 1.41 (2)"]
    assert row[7:11] == ["124,439,808", "100 %", "1e-4", "2–3"]
    assert row[11] == "9,650 ± 212 (2)"
    assert row[12] == "9,402 ± 4 (2)"  # 9400 and 9405 MiB


def test_arms_that_waited_for_the_cpu_are_named_with_their_share() -> None:
    runs = [
        make_run("full", 0, waited_share=0.12),
        make_run("full", 1, waited_share=0.3),
        make_run("lora-1", 0, waited_share=0.01),
    ]
    assert "waited for it: full (up to 30%)." in render(make_results(runs))
    assert "used the CPU" not in render(make_results(runs[2:]))


def test_forms_in_which_an_arm_would_be_served_are_rows_of_scores_below_it() -> None:
    scored = [
        ServedScore(merged=form, evaluation=evaluation)
        for form, value in (("bfloat16", 24.5), ("nf4", 27.0))
        for evaluation in make_evaluations(value)
    ]
    results = make_results([make_run("lora-1", seed, served=scored) for seed in (0, 1)])
    lines = render(results).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("| lora-1 |"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[at + 1 : at + 3]]
    assert [row[:2] for row in rows] == [
        ["lora-1, merged to bfloat16", "24.50 ± 0.00 (2)"],
        ["lora-1, merged to nf4", "27.00 ± 0.00 (2)"],
    ]
    assert {cell for row in rows for cell in row[7:]} == {ABSENT}
    assert "\nlora-1 merged bfloat16,24.5" in render(results, "csv").replace("24.49999", "24.5")


def two_arms(*perplexities: float) -> list[RunResult]:
    """Arms `full` and `lora-1` with the given perplexities for each seed in turn."""
    return [
        make_run(arm, seed, evaluations=make_evaluations(value + 0.001 * seed))
        for arm, value in zip(("full", "lora-1"), perplexities, strict=True)
        for seed in (0, 1, 2)
    ]


def test_a_lead_that_is_separated_from_every_arm_is_bold(tmp_path: Path) -> None:
    results = make_results(two_arms(20.0, 30.0), arms=("full", "lora-1"), seeds=(0, 1, 2))
    write_sums(tmp_path, results)
    cells = [row[1] for row in build_table(results, tmp_path).rows]
    assert [(cell.is_emphasised, cell.mark) for cell in cells] == [(True, ""), (False, "")]


def test_where_nothing_is_separated_nothing_is_bold_and_the_arms_are_named(tmp_path: Path) -> None:
    results = make_results(two_arms(20.0, 20.0001), arms=("full", "lora-1"), seeds=(0, 1, 2))
    write_sums(tmp_path, results, lambda arm: 0.1 if arm == "full" else 0.0)
    table = build_table(results, tmp_path)
    assert [(row[1].is_emphasised, row[1].mark) for row in table.rows] == [(False, "†")] * 2
    lead = "wikitext-2, rows-text v1: not separated: full, lora-1."
    assert lead in [note.text for note in table.notes]


def test_without_sums_by_document_nothing_is_bold_and_a_note_says_why() -> None:
    table = build_table(make_results())
    assert not any(cell.is_emphasised for row in table.rows for cell in row)
    assert any("not judged: sums by document" in note.text for note in table.notes)


def test_one_seed_is_said_to_support_no_claim(tmp_path: Path) -> None:
    runs = [make_run("full", 1), make_run("lora-1", 1, evaluations=make_evaluations(90.0))]
    results = make_results(runs, arms=("full", "lora-1"))
    write_sums(tmp_path, results, lambda arm: 0.1 if arm == "full" else 0.0)
    table = build_table(results, tmp_path)
    assert [(row[1].is_emphasised, row[1].mark) for row in table.rows] == [
        (False, "‡"),
        (False, ""),
    ]
    assert any("one seed: no claim about training" in note.text for note in table.notes)


def test_arms_come_in_the_order_of_the_study_and_padding_is_labelled() -> None:
    table = build_table(make_results())
    assert [row[0].text for row in table.rows] == list(make_results().arms)
    padded = [c for c in table.columns if c.title.startswith("paper-padded")]
    assert [c.warning for c in padded] == ["padding scored"] * 3


def test_arm_whose_runs_all_failed_keeps_its_row_with_the_reason() -> None:
    runs = [make_run("full", 0), make_failed_run("lora-1", 0, "loss is not a number.")]
    row = markdown_row(make_results(runs, arms=("full", "lora-1")), "lora-1")
    assert row[1] == "failed"
    assert row[-1] == "0 of 1 seed 0 diverged: loss is not a number."


def test_the_published_time_has_a_column_only_where_it_was_recorded() -> None:
    results = make_results(two_arms(3.0, 4.0))
    key = ("train_and_validate_seconds",)
    columns = [column.names for column in build_time_table(make_findings(results)).columns]
    assert key not in columns
    timed = results.runs[0].model_copy(update={"train_and_validate_seconds": 90.0})
    table = build_time_table(make_findings(make_results([timed, *results.runs[1:]])))
    assert [column.names for column in table.columns] == [*columns, key]
    shown = {row[0].text: row[-1].values for row in table.rows}
    assert (shown["full"], shown["lora-1"]) == ((90.0,), (None,))


def test_missing_runs_are_listed_as_not_run_yet() -> None:
    results = make_results([make_run("full", 0)], arms=("full",), missing=("full-s1-0123abcd",))
    assert build_table(results).rows[0][-1].detail == "1 not run yet"
    assert [row[4].text for row in build_run_table(make_findings(results)).rows] == [
        "done",
        "not run yet",
    ]


def test_versions_of_a_protocol_are_never_mixed_in_one_column() -> None:
    old = make_run("full", 0)
    new = [e.model_copy(update={"protocol_version": 2}) for e in old.evaluations]
    runs = [old, make_run("full", 1, evaluations=new)]
    titles = [c.title for c in build_table(make_results(runs, arms=("full",))).columns]
    assert titles.count("rows-text v1") == titles.count("rows-text v2") == 3


def test_csv_holds_values_at_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(render(make_results(), "csv"))))
    full = rows[1]
    assert float(full["wikitext-2 rows-text v1 perplexity"]) == pytest.approx(440**0.5, rel=1e-12)
    assert float(full["wikitext-2 rows-text v1 sd"]) == 2**0.5
    assert full["wikitext-2 rows-text v1 n"] == "2"
    assert rows[5]["remark"].startswith("seed 1 diverged")


def test_json_is_the_stored_record() -> None:
    results = make_results()
    assert StudyResults.model_validate_json(render(results, "json")) == results


def test_failure_table_keeps_the_whole_reason() -> None:
    reason = "first line\n" + "x" * 500
    results = make_results([make_failed_run("full", 0, reason)], arms=("full",))
    assert build_failure_table(results).rows[0][2].text == reason


def test_latex_escapes_every_special_character() -> None:
    text = render_latex(hostile_table())
    escaped = (
        r"\textless{}script\textgreater{}alert(1)"
        r"\textless{}/script\textgreater{} \& a\textbar{}b\_c "
        r"\$x\$ 100\% \textbackslash{}input\{x\} \textasciitilde{}\textasciicircum{}\# `c`"
    )
    assert text.count(escaped) == 2
    assert r"\input" not in text


def test_html_escapes_markup() -> None:
    text = render_html(hostile_table())
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 3


def test_markdown_escapes_cell_borders_and_markup() -> None:
    row = render_markdown(hostile_table()).splitlines()[4]
    assert r"a\|b\_c \$x\$" in row
    assert "<" not in row.replace(r"\<", "")


@pytest.mark.parametrize("format", ["md", "csv", "latex", "json"])
def test_study_without_runs_has_a_table(format: str) -> None:
    assert render(make_results([]), format)


def test_numbers_are_written_as_they_are_said() -> None:
    assert [write_rate(rate) for rate in (1e-4, 2.5e-3, 0.5)] == ["1e-4", "2.5e-3", "5e-1"]
    assert write_share(589_824, 124_439_808) == "0.47 %"
    assert write_number(float("inf"), 2) == "not finite"
