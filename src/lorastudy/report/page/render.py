"""The report page: one file that needs no network and no other file, and is read without script.

Every word from outside (names, paths, reasons) goes through Jinja's autoescape; the only
markup let through is our own tables, matplotlib's SVG, which escapes its text itself, and
`page.css` and `page.js`. The page's policy names the script's hash, so no other script runs.
No clock and no program version: the same results give the same bytes.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lorastudy.analysis.answers import Answer
from lorastudy.analysis.claims import is_paper_study
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.recommendation import list_tests
from lorastudy.report.figures.style import INK, colour_of, outline_of
from lorastudy.report.figures.writing import FORMATS, DrawnFigure
from lorastudy.report.page.describe import describe_study, summarise_study
from lorastudy.report.page.details import (
    compare_placements,
    state_families,
    state_forgetting,
    state_lead,
    state_limits,
)
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.integrity import (
    build_digest_table,
    cite,
    describe_environments,
    describe_resumes,
    list_commands,
    list_warnings,
)
from lorastudy.report.page.verdict import state_verdict
from lorastudy.report.tables.answer_classes import build_answer_class_table
from lorastudy.report.tables.budget import state_budget
from lorastudy.report.tables.claims import build_claim_table
from lorastudy.report.tables.comparisons import (
    build_group_table,
    build_pair_table,
    build_reference_table,
)
from lorastudy.report.tables.documents import build_document_table
from lorastudy.report.tables.explanations import build_explanation_table
from lorastudy.report.tables.flips import build_flip_table
from lorastudy.report.tables.forgetting import build_change_table
from lorastudy.report.tables.html import render_html
from lorastudy.report.tables.runs import build_failure_table, build_run_table
from lorastudy.report.tables.settings import build_difference_table, build_module_table
from lorastudy.report.tables.side_by_side import build_sample_table, build_side_by_side
from lorastudy.report.tables.table import Table
from lorastudy.report.tables.table1 import build_table1
from lorastudy.report.wording import label_arm

TEMPLATE = "page.html.jinja"
_FOLDER = Path(__file__).parent
# names of arms such as lora-4, and shares such as 95 %; longer ones have to break on a phone
_WHOLE = re.compile(r"(?<![\w/-])(?:\w{1,12}-\w{1,4}(?![\w/-])|[+-]?\d[\d.,]* %)")
_TYPES = {"csv": "text/csv", "json": "application/json"}
SECTIONS = {
    "verdict": "Verdict",
    "table1": "Table I",
    "differences": "Differences",
    "curves": "Curves",
    "costs": "Costs",
    "fronts": "Quality against cost",
    "forgetting": "Forgetting",
    "why": "What training changed",
    "trust": "How far to trust this",
    "documents": "By document",
    "rates": "Learning rates",
    "compared": "What was compared",
    "claims": "The paper’s claims",
    "runs": "All runs",
    "data": "Data",
    "citation": "Citation",
}


@dataclass(frozen=True, slots=True)
class Swatch:
    """How an arm is drawn: its position in the study, its names and its colour."""

    position: int
    name: str
    label: str  # the name with its placement
    colour: str
    outline: str  # of its marker, an SVG path from -10 to 10


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure as the page shows it."""

    title: str
    caption: str
    svg: Markup
    logarithmic: Markup | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page shows of a study."""

    findings: Findings
    tables: Mapping[str, Table]  # those that are also written to files, by file name
    files: Mapping[str, str]  # the content of every table's file
    with_plain: bool = False  # tables of differences also have intervals that are not adjusted


def render_page(report: Report, figures: Sequence[DrawnFigure]) -> str:
    """The whole page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = _keep_words_whole
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        sections=list_sections(report.findings),
        formats=FORMATS,
        figures={figure.name: _chart(figure) for figure in figures},
        swatches=[
            Swatch(
                *(position, arm, label_arm(report.findings, arm)),
                colour=colour_of(position),
                outline=outline_of(position),
            )
            for position, arm in enumerate(report.findings.results.arms)
        ],
        **_words(report),
        **_tables(report),
    )


def list_sections(findings: Findings) -> list[tuple[str, str]]:
    """Ids and titles of the sections in their order, without those that have nothing to show."""
    is_shown = {
        "claims": is_paper_study(findings.results.name, findings.results.benchmarks),
        "why": bool(findings.explanations),
    }
    return [(id, title) for id, title in SECTIONS.items() if is_shown.get(id, True)]


def inline_svg(figure: DrawnFigure, svg: bytes, prefix: str) -> Markup:
    """The figure as an element of a page: its own ids, the page's text colour, no prologue."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}-", text)
    text = text.replace(INK, "currentColor")
    label = Markup('<svg role="img" aria-label="{}. {}" ').format(figure.title, figure.caption)
    return Markup(text.replace("<svg ", label, 1))


def _keep_words_whole(text: str) -> Markup:
    """`text` as HTML in which no line ends within a short name or before a percent sign."""
    return Markup(_WHOLE.sub(r'<span class="word">\g<0></span>', str(escape(text))))


def _chart(figure: DrawnFigure) -> Chart:
    prefix = figure.name.partition("-")[0]
    return Chart(
        title=figure.title,
        caption=figure.caption,
        svg=inline_svg(figure, figure.files["svg"], prefix),
        logarithmic=inline_svg(figure, figure.logarithmic, f"{prefix}log")
        if figure.logarithmic
        else None,
    )


def _words(report: Report) -> dict[str, object]:
    findings = report.findings
    return {
        "results": findings.results,
        "is_elsewhere": findings.is_elsewhere,
        "summary": summarise_study(findings),
        "headline": state_headline(findings),
        "verdict": state_verdict(findings),
        "placements": compare_placements(findings),
        "leads": tuple(map(state_lead, list_tests(findings))),
        "families": state_families(findings),
        "forgotten": state_forgetting(findings),
        "limits": state_limits(findings),
        "facts": describe_study(findings),
        "budget": state_budget(findings.budget),
        "environments": describe_environments(findings.evidence),
        "resumes": describe_resumes(findings.evidence),
        "warnings": list_warnings(findings),
        "commands": list_commands(findings.results.name, is_elsewhere=findings.is_elsewhere),
        "shares": findings.text_shares,
        "downloads": _downloads(report),
        "tables": [(name, _formats(name, report.files)) for name in report.tables],
        "citation": cite(findings),
    }


def _tables(report: Report) -> dict[str, object]:
    """Every table of the page; None if it would be empty."""
    findings, stored = report.findings, report.tables
    comparisons, main = findings.comparisons, findings.restrict(findings.main)
    padded = [c for c in comparisons if c.key.scores_padding]
    sound = [c for c in comparisons if not c.key.scores_padding] or padded
    is_both = bool(padded) and len(sound) + len(padded) == len(comparisons)
    answers, padded_answers = _part_answers(findings.answers, is_both=is_both)
    is_paper = is_paper_study(findings.results.name, findings.results.benchmarks)
    digests, study = build_digest_table(findings.evidence), findings.study
    return {
        "claims": render_html(build_claim_table(answers)) if is_paper else None,
        "padded_claims": _render_rows(build_claim_table(padded_answers)),
        "fronts": render_html(stored["fronts"]),
        "documents": render_html(build_document_table(main)),
        "sound": render_html(build_table1(findings.restrict(sound))),
        "published": render_html(build_table1(findings.restrict(padded))) if is_both else None,
        "padding": _render_rows(stored["padding"]),
        "side_by_side": [render_html(build_side_by_side(each)) for each in findings.side_by_side],
        "samples": _render_rows(build_sample_table(findings.samples)),
        "flips": _render_rows(build_flip_table(findings)),
        "answer_classes": _render_rows(build_answer_class_table(findings.answer_scores)),
        "explanations": _render_rows(build_explanation_table(findings.explanations)),
        "groups": _render_rows(build_group_table(findings)),
        "beside_reference": _render_rows(
            build_reference_table(findings, with_plain=report.with_plain)
        ),
        "pairs": [
            render_html(build_pair_table(c, with_plain=report.with_plain)) for c in comparisons
        ],
        "rates": render_html(stored["learning_rates"]),
        "runs": render_html(build_run_table(findings)),
        "times": render_html(stored["times"]),
        "memory": render_html(stored["memory"]) if "memory" in stored else None,
        "budgets": render_html(stored["budget"]) if "budget" in stored else None,
        "failures": _render_rows(build_failure_table(findings.results)),
        "changes": _render_rows(build_change_table(main.changes)),
        "differing": render_html(build_difference_table(study)) if study else None,
        "modules": render_html(build_module_table(findings)),
        "digests": render_html(digests) if digests else None,
    }


def _part_answers(answers: Sequence[Answer], *, is_both: bool) -> tuple[list[Answer], list[Answer]]:
    """The answers from sound scores, and those from padded ones if there are both kinds."""
    padded = [a for a in answers if is_both and a.key is not None and a.key.scores_padding]
    return [a for a in answers if a not in padded], padded


def _render_rows(table: Table) -> Markup | None:
    return render_html(table) if table.rows else None


def _downloads(report: Report) -> list[tuple[str, str]]:
    """Names and data addresses of the files that are inside the page."""
    of_results = report.findings.results.model_dump_json(exclude_defaults=True)
    carried = {name: text for name, text in report.files.items() if name.endswith(".csv")}
    return [(name, _data_address(name, text)) for name, text in carried.items()] + [
        ("results.json", _data_address("results.json", of_results))
    ]


def _data_address(name: str, text: str) -> str:
    kind = _TYPES[name.rpartition(".")[2]]
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _formats(name: str, files: Mapping[str, str]) -> list[tuple[str, str]]:
    words = {"md": "Markdown", "csv": "CSV", "tex": "LaTeX", "json": "JSON"}
    return [(words[e], f"{name}.{e}") for e in words if f"{name}.{e}" in files]
