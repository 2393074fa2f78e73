"""Writes the report of a study, and prints its results.

    report/index.html                the page; needs nothing else
    report/NAME.{md,csv,tex,json}    every table: table1, comparisons, claims, padding,
                                     learning_rates, tuned_minus_baseline, fronts, documents, times
    report/figures/fig1-....{svg,png,pdf} ...

Each file is replaced in one step, the figures together, the page last. A report can
be rebuilt at any time: it is made from `results.json`, `study.yaml` and the run folders;
without the sums in these, differences have no intervals.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from lorastudy.analysis.answers import answer_claims
from lorastudy.analysis.compare import compare_study
from lorastudy.analysis.evidence import Evidence, read_evidence
from lorastudy.analysis.forgetting import build_change_table, measure_changes
from lorastudy.analysis.fronts import build_front_table, find_fronts
from lorastudy.analysis.padding import build_padding_table
from lorastudy.analysis.pairs import Comparison
from lorastudy.analysis.rates import build_rate_table, write_rates_json
from lorastudy.config.models import Study
from lorastudy.config.study_file import read_study_file
from lorastudy.report.page.integrity import write_results_json
from lorastudy.report.tables.claims import build_claim_table
from lorastudy.report.tables.comparisons import (
    build_all_pairs,
    build_group_table,
    build_pair_table,
)
from lorastudy.report.tables.comparisons_json import write_comparisons_json
from lorastudy.report.tables.documents import build_document_table
from lorastudy.report.tables.table import (
    Table,
    render_csv,
    render_json,
    render_latex,
    render_markdown,
)
from lorastudy.report.tables.table1 import build_table1
from lorastudy.report.tables.times import build_time_table
from lorastudy.store.files import publish_folder, write_text
from lorastudy.store.records import StudyResults

if TYPE_CHECKING:
    from lorastudy.report.figures.style import DrawnFigure

TableFormat = Literal["md", "csv", "latex", "json"]


def write_report(results: StudyResults, study_dir: Path) -> Path:
    """Write the report of `results` under `study_dir` and return the path of its page.

    What was compared is read from `study_dir/study.yaml`, where there is one.

    Raises:
        ConfigError: `study.yaml` is there but is no study file.
        StorageError: The disk refused a write; files already there are whole.
    """
    from lorastudy.report.figures.draw import draw_figures  # slow to import, not needed by `table`
    from lorastudy.report.page.render import Report, render_page

    study_file = study_dir / "study.yaml"
    study = read_study_file(study_file) if study_file.is_file() else None
    folder = study_dir / "report"
    comparisons, evidence = compare_study(results, study_dir), read_evidence(results, study_dir)
    tables = build_tables(results, comparisons, evidence, study)
    files = _write_tables(tables, results, comparisons)
    figures = draw_figures(results, comparisons, evidence)
    report = Report(results, study, comparisons, evidence, tables, files)
    publish_folder(folder / "figures", lambda folder: _write_figures(figures, folder))
    for name, text in files.items():
        write_text(folder / name, text)
    page = folder / "index.html"
    write_text(page, render_page(report, figures))
    return page


def build_tables(
    results: StudyResults,
    comparisons: Sequence[Comparison],
    evidence: Evidence,
    study: Study | None,
) -> dict[str, Table]:
    """Every table that has files of its own, by the name of these."""
    changes = measure_changes(results, comparisons)
    return {
        "table1": build_table1(results, comparisons),
        "comparisons": build_all_pairs(comparisons),
        "claims": build_claim_table(answer_claims(results, comparisons, study)),
        "padding": build_padding_table(results, [c.key for c in comparisons]),
        "learning_rates": build_rate_table(results),
        "tuned_minus_baseline": build_change_table(changes),
        "fronts": build_front_table(find_fronts(results, comparisons, evidence)),
        "documents": build_document_table(results, comparisons),
        "times": build_time_table(results, evidence),
    }


def _write_tables(
    tables: Mapping[str, Table], results: StudyResults, comparisons: Sequence[Comparison]
) -> dict[str, str]:
    """The content of every table's file, by name."""
    pairs = (build_group_table(comparisons), *map(build_pair_table, comparisons))
    renderers = {
        "md": render_markdown,
        "csv": render_csv,
        "tex": render_latex,
        "json": render_json,
    }
    files = {
        f"{name}.{extension}": render(table)
        for name, table in tables.items()
        for extension, render in renderers.items()
    }
    changes = measure_changes(results, comparisons)
    richer = {
        "comparisons.md": "\n".join(map(render_markdown, pairs)),
        "comparisons.json": write_comparisons_json(comparisons, changes),
        "learning_rates.json": write_rates_json(results),
    }
    return files | richer


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
            return write_results_json(results)
        case _:
            assert_never(format)


def _write_figures(figures: Sequence["DrawnFigure"], folder: Path) -> None:
    for figure in figures:
        for extension, content in figure.files.items():
            (folder / f"{figure.name}.{extension}").write_bytes(content)
