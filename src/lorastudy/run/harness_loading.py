"""Tasks of lm-evaluation-harness, loaded; and errors of the harness, with the name of the task."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from lorastudy.errors import ConfigError, InputError, UserError, reason_of


def load_task(named: str, base: Path, num_fewshot: int | None) -> tuple[str, Any]:
    """The name of a task and the task; a YAML file is sought from the folder `base`.

    Raises:
        ConfigError: The extra is not installed, or the task is a group.
        InputError: The harness cannot load it.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(
            "tasks of lm-evaluation-harness need the extra `lmeval`: "
            "pip install 'lorastudy[lmeval]'."
        ) from error
    with naming(named):
        is_file = named.endswith((".yaml", ".yml"))
        manager = TaskManager(include_defaults=not is_file)
        found = manager.load([str(base / named) if is_file else named])["tasks"]
        if len(found) != 1:
            raise ConfigError(
                f"task {named!r} is a group of {len(found)} tasks. Name each of them as a "
                "benchmark of its own."
            )
        ((name, task),) = found.items()
        if num_fewshot is not None:
            task.set_config(key="num_fewshot", value=num_fewshot)
    return name, task


@contextmanager
def naming(task: str) -> Iterator[None]:
    """Name the task in errors of the harness, and keep what it prints apart from results."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except Exception as error:
        raise InputError(
            f"task {task}: lm-evaluation-harness says: {reason_of(error)}. Look at the task, and "
            "whether its data can be reached."
        ) from error
