"""What a run may do with the files that an earlier process left in its folder."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resuming:
    """How `lorastudy run` was asked to continue; without options it resumes or refuses."""

    restart: bool = False  # set the run's files aside and train from the start
    allow_drift: bool = False  # continue in another environment; the report shows it
