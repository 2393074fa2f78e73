"""How the tests are shared out between the processes of pytest-xdist.

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
LONG_FIRST = (  # files of 8 seconds and more
    "tests/reliability/test_killed_runs.py",
    "tests/reliability/test_killed_studies.py",
    "tests/reliability/test_storage.py",
    "tests/report/test_page.py",
    "tests/test_docs_commands.py",
    "tests/model/test_fast_compiled.py",
    "tests/model/test_fast_model.py",
    "tests/test_benchmark_scripts.py",
    "tests/test_wheel.py",
    "tests/reliability/test_security.py",
    "tests/evaluate/test_audit.py",
    "tests/api/test_study.py",
    "tests/launch/test_early_stop.py",
    "tests/cli/test_contract.py",
    "tests/reliability/test_faults.py",
    "tests/run/test_execute.py",
    "tests/run/test_resume.py",
    "tests/fuzz/test_fuzz_studies.py",
    "tests/train/test_against_trainer.py",
    "tests/report/test_browser.py",
    "tests/cli/test_exports.py",
    "tests/store/test_machine.py",
    "tests/model/test_families.py",
    "tests/model/test_adapters.py",
)


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
    ranks = {file: rank for rank, file in enumerate(LONG_FIRST, 1)}
    ranks |= dict.fromkeys(ONE_AFTER_THE_OTHER, 0)
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))
