"""The set-up script decides rightly what to do, survives being killed, and says what is wrong."""

import ast
import fcntl
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "run"


def load_script(path: Path) -> ModuleType:
    """The script as a module that takes the folder of `path` for its root."""
    loader = importlib.machinery.SourceFileLoader("run_script", str(path))
    spec = importlib.util.spec_from_loader("run_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with the script, a lock file and a project file, and no environment."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    shutil.copy(SCRIPT, folder / "run")
    (folder / "requirements.lock").write_text("torch==2.13.0\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    return folder


@pytest.fixture
def script(root: Path) -> ModuleType:
    return load_script(root / "run")


@pytest.fixture
def ready(root: Path, script: ModuleType) -> ModuleType:
    """The script beside an environment that looks complete."""
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    script.write_stamp(script.VENV, script.wanted_stamp(root))
    return script


def plan(script: ModuleType) -> str:
    answer = script.plan_setup(script.VENV, script.wanted_stamp(script.ROOT))
    assert isinstance(answer, str)
    return answer


def run_in(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "run"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_fresh_checkout_is_set_up_from_nothing(script: ModuleType) -> None:
    assert plan(script) == "all"


def test_a_complete_environment_is_used_as_it_is(ready: ModuleType) -> None:
    assert plan(ready) == "nothing"


def test_a_changed_lock_file_installs_everything_again(ready: ModuleType, root: Path) -> None:
    (root / "requirements.lock").write_text("torch==2.14.0\n")
    assert plan(ready) == "all"


def test_a_changed_project_file_installs_only_the_package(ready: ModuleType, root: Path) -> None:
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert plan(ready) == "project"


def test_another_python_installs_everything_again(
    ready: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    assert plan(ready) == "all"


def test_a_moved_checkout_installs_everything_again(ready: ModuleType, root: Path) -> None:
    moved = root.rename(root.parent / "moved")
    assert plan(load_script(moved / "run")) == "all"


def test_an_environment_whose_python_is_gone_is_made_again(ready: ModuleType) -> None:
    (ready.VENV / "bin" / "python").unlink()
    (ready.VENV / "bin" / "python").symlink_to("/no/such/python")
    assert plan(ready) == "all"


@pytest.mark.parametrize("stamp", ['{"ready": false}', "", "{", "[]", '{"ready": tr', "\xff\x00"])
def test_a_half_made_environment_is_made_again(ready: ModuleType, stamp: str) -> None:
    (ready.VENV / "setup.json").write_text(stamp, encoding="latin-1")
    assert plan(ready) == "all"


def test_an_empty_folder_left_by_a_kill_is_used(script: ModuleType) -> None:
    script.VENV.mkdir()
    assert plan(script) == "all"


def test_an_environment_of_someone_else_is_not_touched(script: ModuleType, root: Path) -> None:
    script.VENV.mkdir()
    (script.VENV / "pyvenv.cfg").write_text("home = /usr/bin\n")
    done = run_in(root, "setup")
    assert done.returncode == 1
    assert "was not made by ./run" in done.stderr
    assert [path.name for path in script.VENV.iterdir()] == ["pyvenv.cfg"]


def test_the_stamp_says_half_made_from_before_the_first_change_until_all_is_installed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def record(name: str, command: list[str], lock: int) -> None:
        seen.append((name, (script.read_stamp(script.VENV) or {}).get("ready")))

    monkeypatch.setattr(script, "_execute", record)
    script.ensure_environment()
    names = ["venv", "pip", "pip", "compile", "import"]
    assert seen == [(name, False) for name in names]
    assert script.read_stamp(script.VENV) == script.wanted_stamp(script.ROOT)


def test_a_failing_step_leaves_the_environment_half_made(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, command: list[str], lock: int) -> None:
        raise script.SetupError(name)

    monkeypatch.setattr(script, "_execute", fail)
    with pytest.raises(script.SetupError):
        script.ensure_environment()
    assert plan(script) == "all"


def test_making_again_removes_what_was_there_but_nothing_behind_links(
    script: ModuleType, root: Path
) -> None:
    outside = root / "outside"
    outside.mkdir()
    (outside / "kept.txt").touch()
    script.VENV.mkdir()
    (script.VENV / "setup.json").write_text("{}")
    (script.VENV / "lib").mkdir()
    (script.VENV / "lib" / "old.py").touch()
    (script.VENV / "lib64").symlink_to(outside)
    script.empty_folder(script.VENV, keep="setup.json")
    assert [path.name for path in script.VENV.iterdir()] == ["setup.json"]
    assert (outside / "kept.txt").exists()


def test_a_second_call_waits_for_the_first_and_then_has_nothing_to_do(root: Path) -> None:
    script = load_script(root / "run")
    (script.VENV / "bin").mkdir(parents=True)
    script.write_stamp(script.VENV, {"ready": False})
    with (root / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [sys.executable, str(root / "run"), "setup"], stderr=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "Waiting for another ./run" in second.stderr.readline()
        assert second.poll() is None
        (script.VENV / "bin" / "python").touch()
        script.write_stamp(script.VENV, script.wanted_stamp(root))
    assert second.wait(timeout=30) == 0
    assert second.stderr.read() == ""
    second.stderr.close()


def test_the_lock_is_held_until_the_installer_is_gone(script: ModuleType, root: Path) -> None:
    script.VENV.mkdir()
    with (root / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = "import subprocess, sys; subprocess.Popen(['sleep', '10'], close_fds=False)"
        script._execute("pip", [sys.executable, "-c", code], lock.fileno())
    with (root / ".venv.lock").open("w") as again, pytest.raises(BlockingIOError):
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 8, 18), (3, 10, 13)])
def test_an_old_python_is_told_what_is_needed(script: ModuleType, version: tuple[int, ...]) -> None:
    with pytest.raises(script.SetupError, match=r"is too old: 3\.11 or newer is needed"):
        script.check_python(version)


def test_new_pythons_are_taken(script: ModuleType) -> None:
    script.check_python((3, 11, 0))
    script.check_python((4, 0, 0))


def test_the_script_parses_on_old_pythons_so_that_they_can_be_told() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.NamedExpr, ast.Match))]
    notes = [n.annotation for n in ast.walk(tree) if isinstance(n, ast.arg) and n.annotation]
    assert not [n for n in notes if isinstance(n, (ast.Subscript, ast.BinOp))]  # evaluated there


def test_a_python_without_venv_is_told_the_package(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name[0] == "e" else 1)
    with pytest.raises(script.SetupError, match=r"no module ensurepip[^$]*install python3-venv"):
        script.check_venv_module()


def test_a_failing_step_shows_its_exit_code_and_last_lines(script: ModuleType) -> None:
    script.VENV.mkdir()
    code = "print(*range(100), sep='\\n'); raise SystemExit(9)"
    with pytest.raises(script.SetupError) as caught, (script.ROOT / "lock").open("w") as lock:
        script._execute("pip", [sys.executable, "-c", code], lock.fileno())
    message = str(caught.value)
    assert "pip ended with exit code 9" in message
    assert "| 99" in message and "| 88" in message and "| 87" not in message
    assert str(script.VENV / "setup.log") in message


@pytest.mark.parametrize(
    ("output", "hint"),
    [
        ("WARNING: Retrying: NewConnectionError('Errno -3')", "package index cannot be reached"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this Python"),
    ],
)
def test_known_failures_say_what_to_do(script: ModuleType, output: str, hint: str) -> None:
    message = script.explain_failure("pip", 1, output, Path("setup.log"))
    assert hint in message.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--out", "studies/demo", "--jobs", "3"]),
        (["--jobs", "2"], ["--out", "studies/demo", "--jobs", "2"]),
        (["--out", "x"], ["--jobs", "3", "--out", "x"]),
        (["--out=x"], ["--jobs", "3", "--out=x"]),
    ],
)
def test_the_demo_goes_where_the_user_says_with_a_run_for_each_core(
    script: ModuleType,
    arguments: list[str],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert script.inside("demo", arguments)[1:] == ["run", "demo", *expected]


def test_arguments_of_test_come_after_those_that_ask_for_all_cores(script: ModuleType) -> None:
    assert script.inside("test", ["-n", "0"]) == ["-m", "pytest", "-n", "auto", "-n", "0"]


def test_the_exit_code_of_the_command_passes_through(ready: ModuleType, root: Path) -> None:
    python = root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(sys.executable)
    assert run_in(root, "python", "-c", "raise SystemExit(75)").returncode == 75
    killed = run_in(root, "python", "-c", "import os; os.kill(os.getpid(), 15)")
    assert killed.returncode == -15


def test_what_tests_need_is_installed_on_their_first_use_and_again_after_a_change(
    ready: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed, installed = root / "requirements-tests.lock", []

    def pip(arguments: list[str], lock: int) -> None:
        installed.append(arguments)
        if len(installed) == 1:
            raise ready.SetupError("the package index cannot be reached")

    monkeypatch.setattr(ready, "_pip", pip)
    monkeypatch.setattr(os, "execv", lambda *_: None)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # `test` changes this and the folder
    monkeypatch.chdir(root)
    needed.write_text("trl==1.16.0\n")
    codes = [ready.main([command]) for command in ("demo", "test", "test", "test")]
    assert codes == [None, 1, None, None]
    assert len(installed) == 2
    needed.write_text("trl==1.17.0\n")
    codes = [ready.main([command]) for command in ("lorastudy", "test", "test")]
    assert codes == [None, None, None]
    assert len(installed) == 3
    versions = ["-r", str(needed), "-c", str(root / "requirements.lock")]
    assert all(arguments[-4:] == versions for arguments in installed)


def test_an_unknown_command_changes_nothing(root: Path) -> None:
    done = run_in(root, "tset")
    assert done.returncode == 2
    assert "unknown command 'tset'" in done.stderr
    assert not (root / ".venv").exists()


def test_the_lock_file_has_every_dependency_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((SCRIPT.parent / "pyproject.toml").read_text())["project"]
    lines = (SCRIPT.parent / "requirements.lock").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and line[0] != "#")
    asked = [dependency.lower().split(">=") for dependency in project["dependencies"]]
    for name, lowest in asked:
        assert _numbers(pins[name]) >= _numbers(lowest), name


def test_torch_is_pinned_without_a_build_suffix() -> None:
    lines = (SCRIPT.parent / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if line.startswith("torch")] == ["torch==2.13.0"]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
