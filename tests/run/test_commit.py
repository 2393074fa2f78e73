"""Results name this package's commit. Another one stops no run, but other data do."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorastudy.errors import InputError
from lorastudy.machine import environment
from lorastudy.machine.environment import find_commit
from lorastudy.run.drift import settle_drift
from lorastudy.store.files import write_record
from lorastudy.store.folders import RunFolder, StudyFolder
from lorastudy.store.records import Manifest
from support.command_line import ROOT

FINISHED = ROOT / "tests" / "support" / "finished_study" / "study"
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Git]:
    """A checkout whose file environment.py is this package's."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")

    def run(*words: str) -> str:
        command = ("git", "-c", "user.name=n", "-c", "user.email=e@x", *words)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    run("init", "-q")
    (tmp_path / "environment.py").write_text("1\n")
    run("add", "environment.py")
    run("commit", "-qm", "first")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    find_commit.cache_clear()
    yield run
    find_commit.cache_clear()


def test_the_commit_of_a_checkout_is_found_and_changes_to_it_too(git: Git, tmp_path: Path) -> None:
    assert find_commit() == git("rev-parse", "HEAD")
    (tmp_path / "environment.py").write_text("2\n")
    find_commit.cache_clear()
    assert find_commit() == f"{git('rev-parse', 'HEAD')}-dirty"


def test_a_checkout_of_the_user_around_an_installed_package_is_not_ours(git: Git) -> None:
    git("rm", "-q", "--cached", "environment.py")
    git("commit", "-qm", "the user's own work", "--allow-empty")
    assert find_commit() is None


@pytest.fixture
def scored(tmp_path: Path) -> tuple[RunFolder, Manifest]:
    """A run that can go on, since it has scores, and its manifest."""
    source = next((FINISHED / "runs").glob("baseline-*"))
    run = StudyFolder(tmp_path).run(source.name)
    shutil.copytree(source / "evaluations", run.evaluations)
    before = Manifest.model_validate_json((source / "manifest.json").read_bytes())
    write_record(run.manifest, before)
    return run, before


@pytest.mark.parametrize("allow_drift", [False, True])
def test_other_inputs_are_refused_also_where_another_environment_is_allowed(
    scored: tuple[RunFolder, Manifest], allow_drift: bool
) -> None:
    run, before = scored
    now = before.model_copy(update={"train_digest": "f" * 64})
    said = rf"train_digest: '{before.train_digest}' then, 'f+' now.*--restart"
    with pytest.raises(InputError, match=said):
        settle_drift(run, now, allow_drift=allow_drift)


def test_another_commit_is_noted_and_not_refused(scored: tuple[RunFolder, Manifest]) -> None:
    run, before = scored
    later = before.environment.model_copy(update={"commit": "abc"})
    now = before.model_copy(update={"environment": later})
    settled = settle_drift(run, now, allow_drift=False)
    assert settled.drift == ("environment.commit: None then, 'abc' now",)
    assert settle_drift(run, before, allow_drift=False).drift == ()
