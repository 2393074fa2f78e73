"""How the tests are shared out between the processes of pytest-xdist, one for each core.

A file stays on one worker, so what its fixtures make is made once. Tests that measure seconds
or start processes on every core follow each other on one worker: they would disturb each other.
Long files come first, so that short ones fill what is left at the end.
"""

from typing import Any

import pytest

ONE_AFTER_THE_OTHER = (
    "tests/cli/test_failures.py",
    "tests/launch/test_engines.py",
    "tests/reliability/test_bounds.py",
    "tests/team/test_team.py",
)
LONG_FIRST = ("tests/reliability", "tests/test_docs_commands.py", "tests/cli", "tests/report")


def make_scheduler(config: pytest.Config, log: object) -> Any:
    """A scheduler that shares out files, with `ONE_AFTER_THE_OTHER` as if they were one file."""
    from xdist.scheduler import LoadScopeScheduling

    class FilesOnOneWorker(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "one after the other" if file in ONE_AFTER_THE_OTHER else file

    config.option.loadscopereorder = False  # in the order of `sort_long_first`
    return FilesOnOneWorker(config, log)


def sort_long_first(items: list[pytest.Item]) -> None:
    """Order tests in place, all of a file together: the order in which workers get them."""

    def rank(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        if file in ONE_AFTER_THE_OTHER:
            return 0
        found = (n for n, start in enumerate(LONG_FIRST, 1) if file.startswith(start))
        return next(found, 1 + len(LONG_FIRST))

    items.sort(key=rank)
