"""What a shell offers for an argument; files are offered by the shell itself.

Completion must be fast and must never fail: if a file cannot be read, nothing is offered.
"""

from pathlib import Path

import typer

from lorastudy.config.study_file import list_presets
from lorastudy.errors import UserError
from lorastudy.store.collect import read_overview
from lorastudy.store.folders import StudyFolder


def complete_presets(incomplete: str) -> list[str]:
    """Presets that begin with the typed text."""
    return [name for name in list_presets() if name.startswith(incomplete)]


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Arms and run ids of the study folder on the line that begin with the typed text."""
    folder = context.params.get("folder")
    if folder is None:
        return []
    try:
        specs = [run.spec for run in read_overview(StudyFolder(Path(folder)))]
    except (UserError, OSError):
        return []
    names = dict.fromkeys([*(spec.arm.name for spec in specs), *(spec.run_id for spec in specs)])
    return [name for name in names if name.startswith(incomplete)]
