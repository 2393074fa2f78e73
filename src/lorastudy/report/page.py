"""The report page: one file that needs no network, no script and no other file.

Every word from outside (names, paths, reasons) goes through Jinja's autoescape; the only
markup let through is our own tables and matplotlib's SVG, which escapes its text itself.
No clock and no program version: the same results give the same bytes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lorastudy.config import Arm, BaseModelRef, Source, Study
from lorastudy.report.answers import answer_claims
from lorastudy.report.claim_table import build_claim_table
from lorastudy.report.comparison_tables import build_group_table, build_pair_table
from lorastudy.report.contents import build_failure_table, build_run_table, build_table1
from lorastudy.report.figures_style import FORMATS, INK, DrawnFigure
from lorastudy.report.numerals import write_rate
from lorastudy.report.pairs import Comparison
from lorastudy.report.rates import build_rate_table
from lorastudy.report.summary import list_scores, summarise_arms, text_share
from lorastudy.report.tables import render_html
from lorastudy.store.records import StudyResults

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of what was compared."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class TextShare:
    """How much of what a padded score averages over is text."""

    benchmark: str
    protocol: str
    percent: float


def render_page(
    results: StudyResults,
    comparisons: Sequence[Comparison],
    figures: tuple[DrawnFigure, ...],
    study: Study | None = None,
) -> str:
    """The whole page as HTML; `study` adds what was compared on which data."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    failures = build_failure_table(results)
    return environment.get_template(TEMPLATE).render(
        results=results,
        facts=describe_study(results, study),
        arms=[Fact(arm.name, describe_arm(arm)) for arm in study.arms] if study else [],
        table1=render_html(build_table1(results, comparisons)),
        groups=render_html(build_group_table(comparisons)) if comparisons else None,
        pairs=[(c.score, render_html(build_pair_table(c))) for c in comparisons],
        claims=render_html(build_claim_table(answer_claims(results, comparisons, study))),
        rates=render_html(build_rate_table(results)),
        has_several_rates=any(arm.n_rates_tried > 1 for arm in summarise_arms(results)),
        runs=render_html(build_run_table(results)),
        failures=render_html(failures) if failures.rows else None,
        shares=_text_shares(results),
        has_padding=any(score.scores_padding for score in list_scores(results)),
        figures=[(figure, inline_svg(figure)) for figure in figures],
        formats=FORMATS,
    )


def describe_study(results: StudyResults, study: Study | None) -> list[Fact]:
    """What was compared, from the study file if there is one and from the runs."""
    n_done = sum(run.status == "done" for run in results.runs)
    n_expected = len(results.runs) + len(results.missing)
    facts = [
        Fact("arms", ", ".join(results.arms)),
        Fact("seeds", ", ".join(map(str, results.seeds))),
        Fact("runs", f"{n_done} of {n_expected} finished"),
        Fact("benchmarks", ", ".join(results.benchmarks)),
        Fact("training protocol", results.training_protocol),
        Fact("device", _distinct(run.device for run in results.runs)),
        Fact("precision", _distinct(run.precision for run in results.runs)),
    ]
    before = _describe_inputs(study) if study else []
    return [fact for fact in (*before, *facts) if fact.text]


def describe_arm(arm: Arm) -> str:
    """The arm in one line: method, placement, hyperparameters, rates that were tried."""
    if arm.method == "baseline":
        return "the base model as it is, nothing trained"
    rates = "learning rate " + ", ".join(map(write_rate, arm.learning_rates))
    if arm.method == "full":
        return f"all parameters trained; {rates}"
    where = ", ".join(arm.placement)
    return (
        f"LoRA on {where}; rank {arm.rank}, alpha {arm.alpha:g}, dropout {arm.dropout:g}; {rates}"
    )


def inline_svg(figure: DrawnFigure) -> Markup:
    """The figure as an element of a page: its own ids, the page's text colour, no prologue."""
    text = figure.files["svg"].decode()
    text = text[text.index("<svg") :]
    prefix = figure.name.partition("-")[0]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}-", text)
    text = text.replace(INK, "currentColor")
    label = Markup('<svg role="img" aria-label="{}" ').format(figure.title)
    return Markup(text.replace("<svg ", label, 1))


def _describe_inputs(study: Study) -> list[Fact]:
    data, training = study.data, study.training
    rows = "one row a document" if data.rows.cut == "lines" else "text joined, full rows only"
    return [
        Fact("base model", describe_source(study.base_model)),
        Fact("training data", describe_source(data.train)),
        Fact("validation data", describe_source(data.validation)),
        Fact("rows", f"{rows}, at most {data.rows.length:,} tokens"),
        Fact(
            "training",
            f"{training.epochs} epochs, {training.rows_per_step} rows an optimizer step, "
            f"{training.schedule.shape} schedule, padding {training.padding}",
        ),
    ]


def describe_source(source: BaseModelRef | Source) -> str:
    """Where a model or data set comes from: hub id with its parts, path, or builtin name."""
    name = source.id or source.path or f"{source.builtin} (comes with lorastudy)"
    details = [getattr(source, key, None) for key in ("config", "split")]
    revision = source.revision if source.id else None
    known = [detail for detail in details if detail]
    known += [f"revision {revision}"] if revision else []
    return f"{name} ({', '.join(known)})" if known else f"{name}"


def _text_shares(results: StudyResults) -> list[TextShare]:
    shares = [(score, text_share(results, score)) for score in list_scores(results)]
    return [
        TextShare(score.benchmark, score.protocol_name, 100 * share)
        for score, share in shares
        if share is not None and score.scores_padding
    ]


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value}))
