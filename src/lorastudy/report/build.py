"""Writes the report of a study, and prints its results.

    report/index.html                the page; needs nothing else
    report/table1.{md,csv,tex}       Table I
    report/comparisons.{md,csv,json} every pair of arms
    report/claims.{md,csv}           the paper's claims, answered
    report/learning_rates.{md,csv,json}
    report/figures/fig1-....{svg,png,pdf} ...

Each file is replaced in one step, the figures together, the page last. A report can
be rebuilt at any time: it is made from `results.json`, `study.yaml` and the sums by document
in the run folders; without the sums, differences have no intervals.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from lorastudy.config import Study
from lorastudy.report.answers import answer_claims
from lorastudy.report.claim_table import build_claim_table
from lorastudy.report.compare import compare_study
from lorastudy.report.comparison_tables import (
    build_all_pairs,
    build_group_table,
    build_pair_table,
    write_comparisons_json,
)
from lorastudy.report.contents import build_table1
from lorastudy.report.pairs import Comparison
from lorastudy.report.rates import build_rate_table, write_rates_json
from lorastudy.report.tables import render_csv, render_latex, render_markdown
from lorastudy.store.files import publish_folder, write_text
from lorastudy.store.records import StudyResults
from lorastudy.study_file import read_study_file

if TYPE_CHECKING:
    from lorastudy.report.figures_style import DrawnFigure

TableFormat = Literal["md", "csv", "latex", "json"]


def write_report(results: StudyResults, study_dir: Path) -> Path:
    """Write the report of `results` under `study_dir` and return the path of its page.

    What was compared is read from `study_dir/study.yaml`, where there is one.

    Raises:
        ConfigError: `study.yaml` is there but is no study file.
        StorageError: The disk refused a write; files already there are whole.
    """
    from lorastudy.report.figures import draw_figures  # slow to import, not needed by `table`
    from lorastudy.report.page import render_page

    study_file = study_dir / "study.yaml"
    study = read_study_file(study_file) if study_file.is_file() else None
    report = study_dir / "report"
    comparisons = compare_study(results, study_dir)
    figures = draw_figures(results, comparisons)
    publish_folder(report / "figures", lambda folder: _write_figures(figures, folder))
    for name, text in _write_tables(results, comparisons, study).items():
        write_text(report / name, text)
    page = report / "index.html"
    write_text(page, render_page(results, comparisons, figures, study))
    return page


def _write_tables(
    results: StudyResults, comparisons: Sequence[Comparison], study: Study | None
) -> dict[str, str]:
    """The content of every table's file, by name."""
    pairs = (build_group_table(comparisons), *map(build_pair_table, comparisons))
    claims = build_claim_table(answer_claims(results, comparisons, study))
    rates = build_rate_table(results)
    return {
        "table1.md": render_table(results, comparisons, "md"),
        "table1.csv": render_table(results, comparisons, "csv"),
        "table1.tex": render_table(results, comparisons, "latex"),
        "comparisons.md": "\n".join(map(render_markdown, pairs)),
        "comparisons.csv": render_csv(build_all_pairs(comparisons)),
        "comparisons.json": write_comparisons_json(comparisons),
        "claims.md": render_markdown(claims),
        "claims.csv": render_csv(claims),
        "learning_rates.md": render_markdown(rates),
        "learning_rates.csv": render_csv(rates),
        "learning_rates.json": write_rates_json(results),
    }


def render_table(
    results: StudyResults, comparisons: Sequence[Comparison], format: TableFormat
) -> str:
    """Table I as text; "json" is all of `results.json`, as it is stored."""
    match format:
        case "md":
            return render_markdown(build_table1(results, comparisons))
        case "csv":
            return render_csv(build_table1(results, comparisons))
        case "latex":
            return render_latex(build_table1(results, comparisons))
        case "json":
            return results.model_dump_json(indent=1) + "\n"
        case _:
            assert_never(format)


def _write_figures(figures: Sequence["DrawnFigure"], folder: Path) -> None:
    for figure in figures:
        for extension, content in figure.files.items():
            (folder / f"{figure.name}.{extension}").write_bytes(content)
