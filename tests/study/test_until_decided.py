"""A tiny study that runs until its question is decided, from its file to its report."""

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorastudy.analysis.findings import read_findings
from lorastudy.analysis.spending import measure_spending
from lorastudy.config.study_file import read_study_file
from lorastudy.errors import ConfigError
from lorastudy.report.story import state_story
from lorastudy.store.collect import read_overview, read_study
from lorastudy.store.decisions import Choose, End, Look, Search, Seeds, Stop, read_decisions
from lorastudy.store.files import write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import list_runs
from lorastudy.store.records import StudyResults
from lorastudy.study.decision_plan import UntilDecided, plan_study
from lorastudy.study.open import open_study
from lorastudy.study.wanted import Wanted
from support.command_line import Answer, call, without_page, write_study
from support.forked_studies import call_study, start_study
from support.tiny_runs import KILLED, wait_for_child


@dataclass(frozen=True)
class CarriedOut:
    file: Path
    folder: StudyFolder
    answer: Answer  # of the command that went on after the kill


def write_searching_study(folder: Path, base: Path) -> Path:
    """Full and LoRA, of which the second has three rates and its best at the end of the list."""
    file = write_study(folder, base)
    text = file.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\ntuning_seeds: [9]")
    text = text.replace("[1.0e-2]", "[1.0e-7, 1.0e-5, 1.0e-3]").replace("epochs: 2", "epochs: 4")
    file.write_text(text)
    return file


def kill_conductor(point: str, nth: int) -> Callable[[str], None]:
    """A handler that ends the process that conducts the study, and no run."""
    count = iter(range(10**9))

    def handler(reached: str) -> None:
        is_conductor = multiprocessing.current_process().name == "MainProcess"
        if is_conductor and reached == point and next(count) == nth:
            os._exit(KILLED)

    return handler


@pytest.fixture(scope="module")
def study(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> CarriedOut:
    file = write_searching_study(tmp_path_factory.mktemp("file"), tiny_gpt2)
    out = tmp_path_factory.mktemp("out") / "study"
    command = ("run", file, "--until-decided", "--max-seeds", "3", "--out", out, "--device", "cpu")
    with without_page():
        # killed between a decision to add a learning rate and the study file that has it
        killed = kill_conductor("write:before-rename", 9)
        assert wait_for_child(start_study(*command, handler=killed)) == KILLED
        answer = call_study(*command)
    return CarriedOut(file, StudyFolder(out), answer)


def test_the_same_command_goes_on_after_a_kill_and_ends(study: CarriedOut) -> None:
    assert study.answer.code == 0, study.answer.err
    decisions = read_decisions(study.folder)
    assert isinstance(decisions[-1], End)
    assert "How decided:" in study.answer.out and "of the full grid" in study.answer.out
    # every rate and seed that was asked for is in the study, and in nothing else
    now, declared = read_study(study.folder), read_study_file(study.file)
    rates = {rate for e in decisions if isinstance(e, Search) for rate in e.rates}
    assert set(now.arms[2].learning_rates) == rates > set(declared.arms[2].learning_rates)
    n_seeds = max(e.n_seeds for e in decisions if isinstance(e, Seeds))
    assert now.seeds == tuple(range(n_seeds))
    assert next(len(e.seeds) for e in decisions if isinstance(e, Look)) == 3


def test_stopped_runs_are_shown_with_a_reason_and_counted_as_cost(study: CarriedOut) -> None:
    stops = [e for e in read_decisions(study.folder) if isinstance(e, Stop)]
    (choice,) = (e for e in read_decisions(study.folder) if isinstance(e, Choose))
    states = {
        o.spec.learning_rate: o.status for o in read_overview(study.folder) if o.spec.seed == 9
    }
    assert stops and all(states[stop.rate].status == "stopped" for stop in stops)
    assert "stopped after epoch 1 of 4: lowest validation loss" in str(states[stops[0].rate].reason)
    found = read_findings(study.folder.path, with_bootstrap=False)
    spending = measure_spending(found)
    assert spending is not None
    # an epoch of the tiny texts has the same tokens in every run
    n_epochs = sum(len(run.epochs) for run in (*found.results.runs, *found.results.stopped))
    per_epoch = spending.grid_tokens / (4 * (3 + 2 * 3))
    assert spending.tokens == pytest.approx(per_epoch * n_epochs)
    assert spending.search_tokens < spending.tokens
    lora = next(arm for arm in found.arms if arm.arm == "lora")
    assert lora.learning_rate == choice.rate == lora.runs[0].learning_rate
    assert any("stopped early by their validation loss" in line for line in state_story(found))
    stored = StudyResults.model_validate_json(study.folder.results.read_bytes())
    assert {run.status for run in stored.stopped} == {"stopped"} and not stored.missing


def test_the_study_without_the_flag_trains_nothing_that_was_dropped(study: CarriedOut) -> None:
    before = sorted(p.name for p in (study.folder.path / "runs").iterdir())
    decided = study.folder.decisions.read_bytes()
    with without_page():
        again = call_study("run", study.folder.path)
        by_file = call_study("run", study.file, "--out", study.folder.path)
    assert (again.code, by_file.code) == (0, 0), again.err + by_file.err
    assert "0 of " in again.out
    assert sorted(p.name for p in (study.folder.path / "runs").iterdir()) == before
    assert study.folder.decisions.read_bytes() == decided
    assert call("fsck", study.folder.path).code == 0
    status = json.loads(call("status", study.folder.path, "--json").out)
    assert {run["status"] for run in status["runs"]} == {"done", "stopped"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("extend", "DIR", "--seeds", "1"), "chooses its own runs"),
        (("run", "DIR", "--arm", "full"), "--arm: a study that runs until"),
        (("run", "DIR", "--until-decided", "--seed", "0"), "--seed: a study that runs until"),
        (("run", "DIR", "--until-decided", "--question", "all"), "cannot be changed"),
        (("run", "DIR", "--until-decided", "--max-seeds", "2"), "or a larger one"),
        (("run", "DIR", "--max-seeds", "9"), "is for --until-decided"),
        (("run", "DIR", "--until-decided", "--max-seeds", str(10**20)), "1,000 seeds are the most"),
        (
            ("run", "DIR", "--until-decided", "--min-seeds", "4", "--max-seeds", "5"),
            "was planned with 3 seeds",
        ),
        (("submit", "DIR", "--engine", "slurm"), "can conduct"),
    ],
)
def test_what_a_study_that_chooses_its_runs_cannot_do_is_refused(
    study: CarriedOut, command: tuple[str, ...], said: str
) -> None:
    words = [study.folder.path if word == "DIR" else word for word in command]
    answer = call(*words)
    assert (answer.code, said in answer.err) == (2, True), answer.err


def test_a_folder_whose_results_may_have_been_seen_is_refused(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    file, out = write_searching_study(tmp_path, tiny_gpt2), tmp_path / "out"
    opened = open_study(str(file), out=out)
    runs = {run.arm.name: run.run_id for run in list_runs(opened.study, opened.folder)}
    for arm in ("baseline", "lora"):  # the second one's runs search learning rates
        write_text(StudyFolder(out).run(runs[arm]).result, "{}")
    Wanted(opened, until_decided=UntilDecided())
    write_text(StudyFolder(out).run(runs["full"]).result, "{}")
    with pytest.raises(ConfigError, match=f"{runs['full']} finished"):
        Wanted(opened, until_decided=UntilDecided())


@pytest.mark.parametrize(
    ("change", "wish", "said"),
    [
        (("tuning_seeds: [9]", ""), UntilDecided(), "no tuning_seeds to search among them"),
        (("method: full", "method: bitfit"), UntilDecided(), "--question where"),
        (("", ""), UntilDecided(question="where"), "two arms with method: lora"),
        (("", ""), UntilDecided(question=("full", "lorra")), "two arms of these names"),
        (("", ""), UntilDecided(most_seeds=2), "needs 3 seeds for its first look"),
        (("", ""), UntilDecided(most_seeds=4, least_seeds=5), "at most 4 seeds"),
        (("[rows-text, paper-padded]", "[paper-padded]"), UntilDecided(), "no test to decide on"),
        (("length: 40}", "length: 40}\n  best_by: {protocol: exact-match}"), UntilDecided(),
         "data.best_by chooses by right answers"),
        (("tuning_seeds", "question: [full, lora]\ntuning_seeds"), UntilDecided(question="all"),
         "the study file has the question"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_run_until_it_is_decided_is_refused(
    tiny_gpt2: Path, tmp_path: Path, change: tuple[str, str], wish: UntilDecided, said: str
) -> None:
    file = write_searching_study(tmp_path, tiny_gpt2)
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ConfigError, match=said):
        plan_study(read_study_file(file), wish)
