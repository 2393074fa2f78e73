"""Runs that nothing happens to, with which interrupted runs are compared."""

from dataclasses import dataclass
from pathlib import Path

from lorastudy.store.folders import RunFolder
from lorastudy.store.records import RunResult
from support.tiny_runs import Case, note_in


@dataclass(frozen=True)
class Reference:
    """A run that nothing happened to, and the points it passed."""

    case: Case
    folder: RunFolder
    result: RunResult
    points: tuple[str, ...]


def make_reference(case: Case, parent: Path) -> Reference:
    """Execute `case` in a folder of `parent`, and note the points that it passes."""
    folder, log = case.folder(parent, "reference"), parent / "points"
    log.touch()
    assert case.child(folder, note_in(log)) == 0
    result = folder.read_result()
    assert result is not None
    return Reference(case, folder, result, tuple(log.read_text().split()))
