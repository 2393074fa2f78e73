"""What a shell is offered for an argument; files it offers by itself.

Completion must be fast and never fail: whatever cannot be read offers nothing.
"""

from pathlib import Path

import typer

from lorastudy.config.study_file import list_presets
from lorastudy.errors import UserError
from lorastudy.store.collect import read_overview
from lorastudy.store.folders import StudyFolder


def complete_presets(incomplete: str) -> list[str]:
    """Presets that begin so."""
    return [name for name in list_presets() if name.startswith(incomplete)]


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Arms and run ids of the study folder before the cursor that begin so."""
    folder = context.params.get("folder")
    if folder is None:
        return []
    try:
        specs = [run.spec for run in read_overview(StudyFolder(Path(folder)))]
    except (UserError, OSError):
        return []
    names = dict.fromkeys([*(spec.arm.name for spec in specs), *(spec.run_id for spec in specs)])
    return [name for name in names if name.startswith(incomplete)]
