"""Whole studies through the command line, with workers that are forks of the test process.

Nothing is imported again, since this module imports what commands import when they need it, and
fault handlers that a test installs reach the workers; else they execute what the fork server's do.
Figures of these studies are blank.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jinja2
import pytest
import torch

from lorastudy import faults
from lorastudy.launch import local, worker  # noqa: F401
from lorastudy.report.figures import draw  # noqa: F401
from lorastudy.report.page import render  # noqa: F401
from lorastudy.run import probe  # noqa: F401
from lorastudy.store.folders import StudyFolder
from support.command_line import Answer, blank_figures, call
from support.tiny_runs import best_tensors, outcome, remember_templates, start_child


@contextmanager
def forked_workers(handler: Callable[[str], None] | None = None) -> Iterator[None]:
    """Runs are executed in forks; `handler` is called at every point of the code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "process_context", lambda: multiprocessing.get_context("fork"))
        patch.setattr(local, "warm_up", lambda: None)
        patch.setattr(local, "_POLL_SECONDS", 0.01)
        patch.setattr(faults, "handler", handler)
        patch.setattr(jinja2.Environment, "from_string", remember_templates())
        yield


def in_run(arm: str, point: str, nth: int, act: Callable[[], object]) -> Callable[[str], None]:
    """A handler that acts the nth time (from 0) at `point`, in the runs of `arm` alone."""
    count = iter(range(10**9))

    def handler(reached: str) -> None:
        name = multiprocessing.current_process().name
        if name.startswith(f"{arm}-s") and reached == point and next(count) == nth:
            act()

    return handler


def call_study(*arguments: object, handler: Callable[[str], None] | None = None) -> Answer:
    with forked_workers(handler), blank_figures():
        return call(*arguments)


def start_study(*arguments: object, handler: Callable[[str], None] | None = None) -> int:
    """Process id of a fork that carries out the command, in a process group of its own."""

    def carry_out() -> None:
        os.setsid()
        answer = call_study(*arguments, handler=handler)
        os._exit(answer.code)

    return start_child(carry_out)


def digest_study(folder: Path) -> str:
    """SHA-256 over all that a finished study says, without clocks and memory meters."""
    digest = hashlib.sha256()
    study = StudyFolder(folder)
    for path in sorted((folder / "runs").iterdir()):
        run = study.run(path.name)
        digest.update(json.dumps([path.name, outcome(run)], sort_keys=True).encode())
        for name, tensor in sorted(best_tensors(run).items()):
            assert isinstance(tensor, torch.Tensor)
            digest.update(name.encode() + tensor.numpy().tobytes())
    results = json.loads(study.results.read_text())
    digest.update(json.dumps(without_measurements(results), sort_keys=True).encode())
    digest.update(",".join(sorted(path.name for path in study.report.iterdir())).encode())
    return digest.hexdigest()


def without_measurements(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: without_measurements(part)
            for key, part in value.items()
            if not key.endswith(("seconds", "_per_second"))
            and key not in ("peak_memory_bytes", "libraries", "waited_share")
        }
    return [without_measurements(part) for part in value] if isinstance(value, list) else value
