"""The written report: same bytes each time, nothing from outside unescaped or fetched."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.config.study_file import preset_text
from lorastudy.report.build import write_report
from lorastudy.report.figures.draw import draw_figures
from lorastudy.report.figures.writing import FORMATS
from lorastudy.report.page.render import SECTIONS
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import append_record
from lorastudy.store.records import StepRecord, StudyResults
from support.command_line import blank_figures
from support.made_results import (
    ARMS,
    TRAINABLE,
    make_epochs,
    make_failed_run,
    make_results,
    make_run,
    write_sums,
)

HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=y> -->"
FIGURES = (
    "fig0-verdict",
    "fig1-trainable-parameters",
    "fig2-losses",
    "fig3-peak-memory",
    "fig4-training-time",
    "fig5-differences",
    "fig6-fronts",
    "fig7-documents",
)
TABLES = (
    *("table1", "comparisons", "claims", "padding", "learning_rates"),
    *("tuned_minus_baseline", "fronts", "documents", "times"),
)


def read_all(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.yaml").write_text(preset_text("paper-sound"))
    write_sums(folder, make_results(), lambda arm: ARMS.index(arm) / 100)
    write_report(make_findings(make_results(), folder), folder)
    return folder


def hostile_results() -> StudyResults:
    epochs = make_epochs((3.0, 2.0))
    runs = [
        make_run(HOSTILE, 0, epochs=epochs, device=HOSTILE),
        make_failed_run("b", 1, HOSTILE),
    ]
    return make_results(runs, name=HOSTILE, arms=(HOSTILE, "b"), missing=(f"{HOSTILE}-s1-00",))


def test_report_has_the_promised_files(study_dir: Path) -> None:
    figures = [f"figures/{name}.{extension}" for name in FIGURES for extension in FORMATS]
    tables = [f"{name}.{form}" for name in TABLES for form in ("md", "csv", "tex", "json")]
    expected = {"index.html", *tables, *figures}
    assert set(read_all(study_dir / "report")) == expected


def test_rebuilding_in_another_process_gives_the_same_bytes(
    study_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(make_results().model_dump_json())
    (tmp_path / "study.yaml").write_text(preset_text("paper-sound"))
    shutil.copytree(study_dir / "runs", tmp_path / "runs")
    code = (
        "import sys; from pathlib import Path; from lorastudy.report.build import write_report\n"
        "from lorastudy.analysis.findings import make_findings\n"
        "from lorastudy.store.records import StudyResults; folder = Path(sys.argv[1])\n"
        "text = (folder / 'results.json').read_text()\n"
        "results = StudyResults.model_validate_json(text)\n"
        "write_report(make_findings(results, folder), folder)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert read_all(tmp_path / "report") == read_all(study_dir / "report")


def test_rebuilding_over_an_old_report_changes_nothing(study_dir: Path) -> None:
    before = read_all(study_dir / "report")
    write_report(make_findings(make_results(), study_dir), study_dir)
    assert read_all(study_dir / "report") == before


def test_page_names_base_model_data_and_every_section(study_dir: Path) -> None:
    page = (study_dir / "report" / "index.html").read_text()
    for text in ("openai-community/gpt2", "wikitext-2-raw-v1", "attention, projection", "25.0 %"):
        assert text in page
    found = re.findall(r'<section id="([^"]+)">', page)
    # the order in which a reader needs them; no run of this study was explained
    assert found == [section for section in SECTIONS if section != "why"]
    assert found == re.findall(r'<a href="#([^"]+)">', page[page.index("<nav") :])


def test_page_fetches_nothing(study_dir: Path) -> None:
    page = (study_dir / "report" / "index.html").read_text()
    outside = set(re.findall(r"https?://[^\"'<> ]+", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert len(policy) == 1 and policy[0].startswith("default-src 'none'; script-src 'sha256-")


def test_policy_names_the_one_script_that_is_there(study_dir: Path) -> None:
    page = (study_dir / "report" / "index.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and page.count("<script") == 1


def test_tables_and_results_travel_inside_the_page(study_dir: Path) -> None:
    page = (study_dir / "report" / "index.html").read_text()
    found = dict(re.findall(r'<a download="([^"]+)" href="data:[^"]*base64,([^"]+)"', page))
    texts = {name: base64.b64decode(data).decode() for name, data in found.items()}
    assert StudyResults.model_validate_json(texts.pop("results.json")) == make_results()
    assert set(texts) == {f"{name}.csv" for name in TABLES}
    for name, text in texts.items():
        assert text == (study_dir / "report" / name).read_text()


def test_points_say_their_numbers_under_the_pointer(study_dir: Path) -> None:
    svg = (study_dir / "report" / "figures" / "fig2-losses.svg").read_text()
    (group,) = re.findall(r'<g class="arm-1">\s*<path.*?</g>\s*</g>', svg, flags=re.DOTALL)[:1]
    titles = re.findall(r"<use [^>]*><title>([^<]+)</title></use>", group)
    # full: means over seeds of 3.55 + 0.3, 3.20 and 3.22 + 0.3, and 3.19 + 0.3
    assert titles[0] == "full, training loss, epoch 1: 3.8500 nats, seeds from 3.8500 to 3.8500"
    assert [title.split(":")[0][-1] for title in titles] == ["1", "2", "3"]


def test_page_of_a_study_of_the_papers_size_stays_below_a_megabyte(paper_page: Path) -> None:
    assert paper_page.stat().st_size < 1_000_000


def test_page_has_no_id_twice(study_dir: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', (study_dir / "report" / "index.html").read_text())
    assert len(ids) == len(set(ids))


def test_figures_are_well_formed_and_their_text_stays_text(study_dir: Path) -> None:
    folder = study_dir / "report" / "figures"
    for path in folder.glob("*.svg"):
        words = " ".join(ElementTree.parse(path).getroot().itertext())
        assert "lora-3" in words, path.name


def test_bars_of_parameters_are_as_long_as_their_numbers(study_dir: Path) -> None:
    svg = (study_dir / "report" / "figures" / "fig1-trainable-parameters.svg").read_text()
    lengths = {}
    for arm, path in re.findall(
        r'<g class="arm-(\d)"><title>[^<]*</title>\s*<path d="([^"]*)"', svg
    ):
        x_values = [float(x) for x in re.findall(r"[ML] ([\d.]+)", path)]
        lengths[int(arm)] = max(x_values) - min(x_values)
    for arm in (2, 3, 4, 5):
        share = TRAINABLE[arm] / TRAINABLE[1]
        assert lengths[arm] / lengths[1] == pytest.approx(share, abs=1e-4)


def test_the_papers_claims_are_asked_of_studies_like_the_papers(
    study_dir: Path, tmp_path: Path
) -> None:
    page = (study_dir / "report" / "index.html").read_text()  # scores all three test sets
    assert "A comparative study of applying LoRA" in page[page.index('id="claims"') :]
    other = make_results(name="mine", benchmarks=("wikitext-2", "notes"))
    write_sums(tmp_path, other)
    with blank_figures():
        page = write_report(make_findings(other, tmp_path), tmp_path).read_text()
    assert 'id="claims"' not in page and 'href="#claims"' not in page


def test_losses_by_step_are_drawn_where_steps_are_stored(study_dir: Path, tmp_path: Path) -> None:
    assert not (study_dir / "report" / "figures" / "fig9-losses-by-step.svg").exists()
    results = make_results()
    for run in results.runs:
        folder = RunFolder(tmp_path / "runs" / run.run_id)
        folder.path.mkdir(parents=True)
        for step in range(1, 122):
            values = {"loss": 5 - step / 100, "n_tokens": 10, "n_positions": 12, "seconds": 1.0}
            rest = {"epoch": 1, "learning_rate": 1e-3, "gradient_norm": 1.0}
            append_record(folder.steps, StepRecord(step=step, **values, **rest))
    findings = make_findings(results, tmp_path)
    (figure,) = (f for f in draw_figures(findings) if f.name == "fig9-losses-by-step")
    # stretches of three steps; the last has one, at 5 - 1.21
    losses = findings.evidence.runs[0].losses
    assert [loss.step for loss in losses[:2]] == [3, 6] and losses[0].loss == pytest.approx(4.98)
    assert "full: training loss, lowest 3.7900 nats" in figure.files["svg"].decode()


def test_files_carry_no_date(study_dir: Path) -> None:
    for name, content in read_all(study_dir / "report" / "figures").items():
        assert not re.search(rb"CreationDate|<dc:date|tEXtDate", content), name


def test_markup_from_outside_never_reaches_the_page(tmp_path: Path) -> None:
    page = write_report(make_findings(hostile_results(), tmp_path), tmp_path).read_text()
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    for path in (tmp_path / "report" / "figures").glob("*.svg"):
        ElementTree.parse(path)


@pytest.mark.parametrize(
    "results",
    [
        make_results([]),
        make_results([make_failed_run("full", 0, "out of memory")], arms=("full",)),
        make_results([make_run("full", 0, epochs=make_epochs((3.0,)))], arms=("full",)),
        make_results([], arms=("full",), benchmarks=(), missing=("full-s0-0123abcd",)),
        make_results(
            [make_run("_x", 0, trainable_parameters=None, peak_memory_bytes={}, evaluations=())],
            arms=("_x", "$y$"),
        ),
        make_results([make_run("full", 0, epochs=make_epochs((float("nan"), 3.0)))]),
        make_results([make_run("full", 0, epochs=make_epochs((float("inf"),)))]),
    ],
    ids=["no-runs", "only-failed", "one-epoch", "missing", "bare", "nan", "all-infinite"],
)
def test_report_is_written_for_incomplete_studies(tmp_path: Path, results: StudyResults) -> None:
    assert write_report(make_findings(results, tmp_path), tmp_path).is_file()


def test_arm_names_are_drawn_as_they_are() -> None:
    runs = [make_run(arm, 0) for arm in ("_x", "$y$")]
    results = make_results(runs, arms=("_x", "$y$"))
    for figure in draw_figures(make_findings(results)):
        words = " ".join(ElementTree.fromstring(figure.files["svg"]).itertext())
        assert "_x" in words, figure.name
        assert "$y$" in words, figure.name


def test_baseline_is_said_to_be_not_trained_and_to_train_nothing() -> None:
    figures = {figure.name: figure for figure in draw_figures(make_findings(make_results()))}
    words = {
        name: list(ElementTree.fromstring(figure.files["svg"]).itertext())
        for name, figure in figures.items()
    }
    assert "not trained" in words["fig4-training-time"]
    assert "no result" not in words["fig4-training-time"]
    assert "0" in words["fig1-trainable-parameters"]
