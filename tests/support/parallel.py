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
    "tests/report/test_page.py",
    "tests/model/test_methods.py",
    "tests/reliability/test_killed_studies.py",
    "tests/model/test_fast_model.py",
    "tests/reliability/test_storage.py",
    "tests/model/test_fast_compiled.py",
    "tests/test_benchmark_scripts.py",
    "tests/test_wheel.py",
    "tests/test_docs_commands.py",
    "tests/evaluate/test_audit.py",
    "tests/model/test_families.py",
    "tests/api/test_study.py",
    "tests/reliability/test_security.py",
    "tests/run/test_execute.py",
    "tests/model/test_base_weights.py",
    "tests/fuzz/test_fuzz_studies.py",
    "tests/cli/test_contract.py",
    "tests/launch/test_early_stop.py",
    "tests/run/test_resume.py",
    "tests/api/test_pages.py",
    "tests/reliability/test_faults.py",
    "tests/model/test_adapters.py",
    "tests/store/test_machine.py",
    "tests/run/test_held_bases.py",
    "tests/cli/test_exports.py",
    "tests/train/test_against_trainer.py",
    "tests/model/test_fast_products.py",
    "tests/test_import_table.py",
    "tests/evaluate/test_score.py",
    "tests/model/test_adapter_files.py",
    "tests/report/test_browser.py",
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
