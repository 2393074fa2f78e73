"""Add arms or seeds to a study that was started; its finished runs stay as they are."""

from collections.abc import Sequence

from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import extend_study
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_study, write_extension
from lorastudy.store.folders import StudyFolder


def extend_folder(
    folder: StudyFolder, arms: Sequence[tuple[str, str]], *, n_seeds: int
) -> list[str]:
    """Add arms, each (source name, YAML text), and seeds; return the ids of the new runs.

    Raises:
        ConfigError: Nothing is added, or the study has mistakes after the addition.
    """
    before = read_study(folder)
    if before.data.is_elsewhere:
        raise ConfigError(
            f"{folder.path} compares what was trained elsewhere. Give more folders to the same "
            "`lorastudy compare`, as --adapter NAME=DIR."
        )
    after = extend_study(before, arms, n_seeds=n_seeds)
    known = {run.run_id for run in expand_study(before)}
    write_extension(folder, before, after)
    return [run.run_id for run in expand_study(after) if run.run_id not in known]
