"""Writes the report of a study, and prints its results.

    report/index.html                the page; needs nothing else
    report/NAME.{md,csv,tex,json}    every table: table1, comparisons, claims, padding,
                                     learning_rates, tuned_minus_baseline, fronts, documents, times,
                                     answer_classes where answers are scored, flips of tasks,
                                     explanations after `lorastudy explain`, memory by part,
                                     budget where a study has one
    report/figures/fig1-....{svg,png,pdf} ...

Each file is replaced in one step, the figures together, the page last. A report can
be rebuilt at any time: everything in it is made from `Findings`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorastudy.analysis.findings import Findings
from lorastudy.report.page.integrity import write_results_json
from lorastudy.report.tables.answer_classes import build_answer_class_table
from lorastudy.report.tables.budget import build_budget_table
from lorastudy.report.tables.claims import build_claim_table
from lorastudy.report.tables.comparisons import (
    build_all_pairs,
    build_group_table,
    build_pair_table,
    build_reference_table,
)
from lorastudy.report.tables.comparisons_json import write_comparisons_json
from lorastudy.report.tables.documents import build_document_table
from lorastudy.report.tables.explanations import build_explanation_table
from lorastudy.report.tables.flips import build_flip_table
from lorastudy.report.tables.forgetting import build_change_table
from lorastudy.report.tables.formats import (
    render_csv,
    render_json,
    render_latex,
    render_markdown,
)
from lorastudy.report.tables.fronts import build_front_table
from lorastudy.report.tables.memory_parts import build_memory_table
from lorastudy.report.tables.padding import build_padding_table
from lorastudy.report.tables.rates import build_rate_table, write_rates_json
from lorastudy.report.tables.side_by_side import build_sample_table, build_side_by_side
from lorastudy.report.tables.table import Table
from lorastudy.report.tables.table1 import build_table1
from lorastudy.report.tables.times import build_time_table
from lorastudy.store.files import publish_folder, write_text

if TYPE_CHECKING:
    from lorastudy.report.figures.writing import DrawnFigure

TableFormat = Literal["md", "csv", "latex", "json"]
_RENDERERS: dict[str, Callable[[Table], str]] = {
    "md": render_markdown,
    "csv": render_csv,
    "tex": render_latex,
    "json": render_json,
}


def write_report(findings: Findings, study_dir: Path, *, with_plain: bool = False) -> Path:
    """Write the report of `findings` under `study_dir` and return the path of its page.

    `with_plain` shows the interval of each pair by itself beside the adjusted one.

    Raises:
        StorageError: The disk refused a write; files already there are whole.
    """
    from lorastudy.report.figures.draw import draw_figures  # slow to import, not needed by `table`
    from lorastudy.report.page.render import Report, render_page

    folder = study_dir / "report"
    tables = build_tables(findings, with_plain=with_plain)
    files = _write_tables(findings, tables, with_plain=with_plain)
    figures = draw_figures(findings)
    publish_folder(folder / "figures", lambda folder: _write_figures(figures, folder))
    for name, text in files.items():
        write_text(folder / name, text)
    page = folder / "index.html"
    write_text(page, render_page(Report(findings, tables, files, with_plain), figures))
    return page


def build_tables(findings: Findings, *, with_plain: bool = False) -> dict[str, Table]:
    """Every table that is also written to files, by the name of its files."""
    sometimes = {
        "answer_classes": build_answer_class_table(findings.answer_scores),
        "flips": build_flip_table(findings),
        "samples": build_sample_table(findings.samples),
        "explanations": build_explanation_table(findings.explanations),
        "memory": build_memory_table(findings.memory),
        "budget": build_budget_table(findings.budget),
    }
    return {
        "table1": build_table1(findings),
        "comparisons": build_all_pairs(findings, with_plain=with_plain),
        "claims": build_claim_table(findings.answers),
        "padding": build_padding_table(findings.padded),
        "learning_rates": build_rate_table(findings),
        "tuned_minus_baseline": build_change_table(findings.changes),
        "fronts": build_front_table(findings.fronts),
        "documents": build_document_table(findings),
        "times": build_time_table(findings),
        **{name: table for name, table in sometimes.items() if table.rows},
    }


def _write_tables(
    findings: Findings, tables: Mapping[str, Table], *, with_plain: bool
) -> dict[str, str]:
    """The content of every table's file, by name."""
    pairs = [build_pair_table(c, with_plain=with_plain) for c in findings.comparisons]
    beside = map(build_side_by_side, findings.side_by_side)
    files = {
        f"{name}.{extension}": render(table)
        for name, table in tables.items()
        for extension, render in _RENDERERS.items()
    }
    richer = {
        "comparisons.md": "\n".join(map(render_markdown, (build_group_table(findings), *pairs))),
        "comparisons.json": write_comparisons_json(findings),
        "learning_rates.json": write_rates_json(findings.rates),
        **(
            {"side_by_side.md": "\n".join(map(render_markdown, beside))}
            if findings.side_by_side
            else {}
        ),
    }
    return files | richer


def render_table(findings: Findings, format: TableFormat) -> str:
    """Table I as text; "json" is all of `results.json`, as it is stored."""
    if format == "json":
        return write_results_json(findings.results)
    return _render(build_table1(findings), format)


def render_differences(findings: Findings, format: TableFormat) -> str:
    """Every arm minus the reference arm as text, with adjusted and plain intervals."""
    return _render(build_reference_table(findings, with_plain=True), format)


def _render(table: Table, format: TableFormat) -> str:
    return _RENDERERS["tex" if format == "latex" else format](table)


def _write_figures(figures: Sequence["DrawnFigure"], folder: Path) -> None:
    for figure in figures:
        for extension, content in figure.files.items():
            (folder / f"{figure.name}.{extension}").write_bytes(content)
