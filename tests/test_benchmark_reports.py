"""The numbers in a benchmark's README come out of its committed records, by today's code.

Reports are not committed: `lorastudy report` makes them from the records.
"""

import csv
import re
import shutil
from pathlib import Path

import pytest

from support.command_line import call

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "scored-padding_2cores_202611"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BENCHMARKS = {"WikiText-2": "wikitext-2", "LAMBADA": "lambada", "IMDB": "imdb"}
ARMS = ("baseline", "full", "lora-1", "lora-2")


@pytest.fixture(scope="module")
def padding(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of `report/padding.csv` of SmolLM2 trained with padding scored, by arm and benchmark."""
    study = tmp_path_factory.mktemp("benchmark") / "study"
    shutil.copytree(FOLDER / "smol-scored", study, ignore=shutil.ignore_patterns("report"))
    answer = call("report", study)
    assert answer.code == 0, answer.err
    with (study / "report" / "padding.csv").open(newline="") as stream:
        return {(row["arm"], row["benchmark"]): row for row in csv.DictReader(stream)}


def numbers_of(pattern: str) -> list[str]:
    """The cells after a README row's beginning that matches `pattern`; one row has to."""
    (row,) = re.findall(rf"^\| {pattern} \|(.*)\|$", README, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def is_rounded(printed: str, exact: str) -> bool:
    """Whether `printed` is `exact` with fewer decimals."""
    n_decimals = len(printed.partition(".")[2])
    return abs(float(printed.replace(",", "")) - float(exact)) <= 0.5001 * 10**-n_decimals


@pytest.mark.parametrize("arm", ARMS)
def test_perplexities_of_text_are_those_of_the_records(
    arm: str, padding: dict[tuple[str, str], dict[str, str]]
) -> None:
    trained = "nothing" if arm == "baseline" else "padding scored"
    printed = numbers_of(rf"{trained} \| {arm}")[1::2]  # beside each padded one
    exact = [padding[arm, name]["text_perplexity"] for name in BENCHMARKS.values()]
    assert all(map(is_rounded, printed, exact)), (printed, exact)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_difference_to_full_fine_tuning_splits_as_the_page_says(
    benchmark: str, padding: dict[tuple[str, str], dict[str, str]]
) -> None:
    row = padding["lora-1", BENCHMARKS[benchmark]]
    exact = [row[key] for key in ("minus_full", "minus_full_text", "minus_full_padding")]
    printed = numbers_of(rf"SmolLM2 \| {benchmark}")
    assert len(printed) == 3 and all(map(is_rounded, printed, exact)), (printed, exact)
