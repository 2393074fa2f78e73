"""Add arms or seeds to a study that was started; its finished runs stay as they are."""

from collections.abc import Sequence

from lorastudy.config.models import Study
from lorastudy.config.spec import expand_study
from lorastudy.config.study_file import extend_study
from lorastudy.config.two_studies import extends
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_study, write_extension
from lorastudy.store.decisions import read_decisions
from lorastudy.store.folders import StudyFolder


def extend_folder(
    folder: StudyFolder, arms: Sequence[tuple[str, str]], *, n_seeds: int
) -> list[str]:
    """Add arms, each (source name, YAML text), and seeds; return the ids of the new runs.

    Runs of an arm for which the study's budget is not planned have no id yet, and are left out.

    Raises:
        ConfigError: Nothing is added, or the study has mistakes after the addition, or it chooses
            its own runs.
    """
    before = read_study(folder)
    refuse_changes(folder)
    if before.data.is_elsewhere:
        raise ConfigError(
            f"{folder.path} compares what was trained elsewhere. Give more folders to the same "
            "`lorastudy compare`, as --adapter NAME=DIR."
        )
    after = extend_study(before, arms, n_seeds=n_seeds)
    known = {run.run_id for run in expand_study(before)}
    write_extension(folder, before, after)
    runs = (run for run in expand_study(after) if after.is_planned(run.arm))
    return [run.run_id for run in runs if run.run_id not in known]


def refuse_changes(folder: StudyFolder, study: Study | None = None) -> None:
    """Refuse to change by hand a study that chooses its own runs, whose folder may exist.

    Args:
        folder: The study's folder.
        study: What is to be carried out there; None: something would be added.

    Raises:
        ConfigError: It is not the study of the folder.
    """
    if not read_decisions(folder):
        return
    if study is None or not extends(study, read_study(folder)):
        raise ConfigError(
            f"{folder.path} runs until its question is decided and chooses its own runs, so arms, "
            "seeds and learning rates cannot be added by hand. More seeds are allowed with "
            f"`lorastudy run {folder.path} --until-decided --max-seeds N`; for anything else start "
            "a new folder."
        )
