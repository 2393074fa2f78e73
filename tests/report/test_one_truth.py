"""Everything in a report comes from one `Findings`, which is computed once."""

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lorastudy.report
from lorastudy.analysis.answers import answer_claims
from lorastudy.analysis.compare import compare_study
from lorastudy.analysis.evidence import find_doubts, read_evidence
from lorastudy.analysis.findings import make_findings
from lorastudy.analysis.forgetting import measure_changes
from lorastudy.analysis.fronts import find_fronts
from lorastudy.analysis.rates import summarise_rates
from lorastudy.analysis.score_parts import split_padded_scores
from lorastudy.analysis.score_sums import read_sums
from lorastudy.analysis.summary import list_score_keys, summarise_arms
from lorastudy.report.build import write_report
from support.counted_calls import counted_calls
from support.made_results import make_results, write_sums

COMPUTATIONS: tuple[Callable[..., Any], ...] = (
    *(summarise_arms, list_score_keys, compare_study, read_evidence, find_doubts),
    *(measure_changes, find_fronts, split_padded_scores, summarise_rates, answer_claims),
)
# what describes a whole study; a part such as one comparison or one arm is no such thing
WHOLE = re.compile(
    r"(\bFindings\b|\bStudyResults\b|\bEvidence\b|\bStudy\b|"
    r"(Sequence|Iterable|tuple)\[[\w.]*(Comparison|ArmSummary)\b[^\[]*\])"
)


@pytest.fixture(scope="module")
def modules() -> list[Any]:
    found = pkgutil.walk_packages(lorastudy.report.__path__, "lorastudy.report.")
    return [importlib.import_module(module.name) for module in found]


def test_a_report_computes_every_finding_once(modules: list[Any], tmp_path: Path) -> None:
    results = make_results()
    write_sums(tmp_path, results)
    with counted_calls(*COMPUTATIONS, read_sums) as counts:
        write_report(make_findings(results, tmp_path), tmp_path)
    n_scores = len(list_score_keys(results))
    assert counts == Counter(
        {function.__name__: 1 for function in COMPUTATIONS} | {"read_sums": n_scores}
    )


def test_no_function_of_the_report_takes_two_descriptions_of_a_study(modules: list[Any]) -> None:
    wrong = [
        f"{module.__name__}.{name}({', '.join(taken)})"
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and len(taken := wholes_of(function)) > 1
    ]
    assert wrong == []


def wholes_of(function: Callable[..., Any]) -> list[str]:
    """The parameters that describe a whole study."""
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if WHOLE.search(str(each.annotation))]


def test_descriptions_of_a_study_are_recognised() -> None:
    assert wholes_of(find_fronts) == ["arms", "comparisons", "evidence"]
    assert wholes_of(answer_claims) == ["arms", "comparisons", "study"]
    assert wholes_of(make_findings) == ["results"]
