"""The built package works outside of the repository: every file that it needs travels with it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lorastudy"
_SMALL = (
    *(
        "--set",
        "arms=[{name: baseline, method: baseline}, "
        "{name: full, method: full, learning_rates: [1.0e-3]}]",
    ),
    *("--set", "training.epochs=1", "--set", "seeds=[0]", "--set", "data.rows.length=24"),
    *("--set", "data.train.limit=16", "--set", "data.validation.limit=4"),
    *("--set", "benchmarks.python-reference.limit=4", "--set", "benchmarks.docstrings.limit=4"),
    *("--set", "benchmarks.licences.limit=4"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without the network from a copy that only has what building needs."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    copy = ("cp", "-r", str(ROOT / "src"), str(source / "src"))
    subprocess.run(copy, check=True)
    build = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q")
    subprocess.run([sys.executable, *build, "-w", str(out), str(source)], check=True)
    (found,) = out.glob("*.whl")
    return found


def test_a_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "lorastudy/py.typed" in files and files - inside == set()


@pytest.mark.slow
def test_an_installed_package_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    site, desk = tmp_path / "site", tmp_path / "desk"
    zipfile.ZipFile(wheel).extractall(site)
    desk.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def lorastudy(*words: str) -> str:
        command = [sys.executable, "-m", "lorastudy", *words]
        done = subprocess.run(
            command, cwd=desk, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-c", "import lorastudy; print(lorastudy.__file__)"]
    found = subprocess.run(where, cwd=desk, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(site)), "the source tree was imported"
    assert "demo.yaml" in lorastudy("init", "demo")
    assert "full" in lorastudy("check", "demo.yaml")
    lorastudy("run", "demo.yaml", *_SMALL, "--out", "out")
    assert (desk / "out" / "report" / "index.html").is_file()
