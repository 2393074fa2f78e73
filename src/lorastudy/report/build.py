"""Writes the report of a study, and prints its results.

    report/index.html                the page; needs nothing else
    report/table1.{md,csv,tex}       Table I
    report/figures/fig1-....{svg,png,pdf} ...

Each file is replaced in one step, the figures together, the page last. A report can
be rebuilt at any time: it is made from `results.json` and `study.yaml` only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from lorastudy.report.contents import build_table1
from lorastudy.report.tables import render_csv, render_latex, render_markdown
from lorastudy.store.files import publish_folder, write_text
from lorastudy.store.records import StudyResults
from lorastudy.study_file import read_study_file

if TYPE_CHECKING:
    from lorastudy.report.figures import DrawnFigure

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
    figures = draw_figures(results)
    publish_folder(report / "figures", lambda folder: _write_figures(figures, folder))
    write_text(report / "table1.md", render_table(results, "md"))
    write_text(report / "table1.csv", render_table(results, "csv"))
    write_text(report / "table1.tex", render_table(results, "latex"))
    page = report / "index.html"
    write_text(page, render_page(results, figures, study))
    return page


def render_table(results: StudyResults, format: TableFormat) -> str:
    """Table I as text; "json" is all of `results.json`, as it is stored."""
    match format:
        case "md":
            return render_markdown(build_table1(results))
        case "csv":
            return render_csv(build_table1(results))
        case "latex":
            return render_latex(build_table1(results))
        case "json":
            return results.model_dump_json(indent=1) + "\n"
        case _:
            assert_never(format)


def _write_figures(figures: Sequence["DrawnFigure"], folder: Path) -> None:
    for figure in figures:
        for extension, content in figure.files.items():
            (folder / f"{figure.name}.{extension}").write_bytes(content)
