"""Runs small enough to be repeated hundreds of times, and children that can be killed in them.

A child is a fork of the test process, so nothing is imported again; it leaves by `os._exit`
and tells how it went by its exit code.
"""

import copy
import functools
import hashlib
import json
import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file

from lorastudy import faults
from lorastudy.config.models import Arm, Study
from lorastudy.config.spec import RunSpec, expand_study
from lorastudy.errors import UserError
from lorastudy.interrupts import StopFlag
from lorastudy.machine.team import ALONE, Team
from lorastudy.model.base import load_base, quieten_libraries
from lorastudy.run import setup
from lorastudy.run.context import RunContext
from lorastudy.run.execute import execute_run
from lorastudy.run.inputs import Reader
from lorastudy.store.document_sums import DocumentSums
from lorastudy.store.folders import RunFolder
from lorastudy.store.lines import read_records
from lorastudy.store.places import Places
from lorastudy.store.records import EpochRecord, RunResult, StepRecord, ValidationRecord
from lorastudy.store.resuming import Resuming
from lorastudy.study.check import check_study

CPU = torch.device("cpu")
KILLED = 99
CRASHED = 98
TRAIN = [f"{word} went over the hill with {n} sheep." for n, word in enumerate("abcdefghijk")]
TRAIN[3] = "Nobody."  # rows of different lengths, one of them cut
TRAIN[8] = "A longer line, which is cut where the row ends, says nothing new about the sheep."
OTHER = ["The sheep came back without them.", "Rain.", "A bell rang twice, and then once more."]

POINTS = (
    "train:after-forward",
    "train:after-backward",
    "train:after-optimizer",
    "run:after-step-line",
    "checkpoint:before-weights.safetensors",
    "checkpoint:before-optimizer.safetensors",
    "checkpoint:before-trainer.json",
    "checkpoint:before-manifest",
    "publish:before-rename",
    "publish:between-renames",
    "checkpoint:before-delete-old",
    "run:after-validation",
    "run:after-epoch-line",
    "append:before-line",
    "write:before-bytes",
    "write:before-rename",
)  # all of faults.hit; tests/run/test_resume.py compares them with the source

SOUND = {
    "epochs": 3,
    "rows_per_step": 4,
    "micro_batch": 2,
    "optimizer": {"name": "adamw"},
}
PAPER = {
    "epochs": 3,
    "rows_per_step": 8,
    "micro_batch": 2,
    "schedule": {"warmup": 0.1, "counted_in": "micro-batches"},
    "optimizer": {"name": "adamw", "max_grad_norm": None, "eps": 1e-9},
    "padding": "scored",
    "accumulation": "micro-batch-means",
    "first_group": "one",
}
ARMS = {
    "lora": {
        "name": "lora",
        "method": "lora",
        "placement": ("attention", "projection"),
        "rank": 2,
        "alpha": 4.0,
        "dropout": 0.1,
        "learning_rates": (2e-2,),
    },
    "full": {"name": "full", "method": "full", "learning_rates": (2e-3,)},
    "baseline": {"name": "baseline", "method": "baseline"},
}


def write_texts(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text("\n".join(TRAIN) + "\n")
    (folder / "validation.txt").write_text("\n".join(OTHER) + "\n")
    (folder / "test.txt").write_text("\n".join(reversed(OTHER)) + "\n")
    return folder


def make_study(
    base_model: Path, training: dict = SOUND, arm: str = "lora", **changes: Any
) -> Study:
    settings = {
        "name": "tiny",
        "base_model": {"path": str(base_model)},
        "data": {
            "train": {"path": "train.txt"},
            "validation": {"path": "validation.txt"},
            "rows": {"cut": "lines", "length": 48},
        },
        "training": training,
        "seeds": (3,),
        "arms": (ARMS[arm],),
        "benchmarks": (
            {
                "name": "tale",
                "path": "test.txt",
                "protocols": ("rows-text", "paper-padded", "blocks-32"),
            },
        ),
    }
    return Study.model_validate({**settings, **changes})


class Case:
    """One run and the inputs it is made from; folders of it are made side by side."""

    def __init__(self, study: Study, texts: Path, cache: Path) -> None:
        checked = check_study(study, Places(texts, offline=True, cache=cache), CPU)
        self.reader: Reader = checked.reader  # and the corpora are in the cache now
        self.spec: RunSpec = expand_study(study)[0]
        self._base = load_base(self.reader.base.folder, device=CPU)  # for children: see below
        remember_templates()

    def folder(self, parent: Path, name: str) -> RunFolder:
        return RunFolder(parent / name / self.spec.run_id)

    def execute(
        self,
        folder: RunFolder,
        stop: StopFlag | None = None,
        resuming: Resuming | None = None,
        until_epoch: int | None = None,
    ) -> RunResult:
        quieten_libraries()  # as every engine does
        context = self.context(folder, stop=stop, resuming=resuming)
        return execute_run(replace(context, until_epoch=until_epoch))

    def context(
        self,
        folder: RunFolder,
        *,
        stop: StopFlag | None = None,
        resuming: Resuming | None = None,
        team: Team = ALONE,
    ) -> RunContext:
        return RunContext(
            spec=self.spec,
            folder=folder,
            reader=self.reader,
            device=CPU,
            stop=stop or StopFlag(),
            resuming=resuming or Resuming(),
            team=team,
        )

    def child(
        self,
        folder: RunFolder,
        handler: Callable | None = None,
        resuming: Resuming | None = None,
        until_epoch: int | None = None,
    ) -> int:
        """Exit code of a process that executes the run; `handler(point, stop)` may end it."""
        return in_child(lambda: self.execute_with(folder, handler, resuming, until_epoch))

    def execute_with(
        self,
        folder: RunFolder,
        handler: Callable | None,
        resuming: Resuming | None = None,
        until_epoch: int | None = None,
    ) -> None:
        """Execute the run in this process, a fork that is not used for anything else."""
        jinja2.Environment.from_string = remember_templates()  # type: ignore[method-assign]
        setup.load_base = lambda *_, **__: copy.deepcopy(self._base)
        stop = StopFlag()
        faults.handler = None if handler is None else lambda point: handler(point, stop)
        self.execute(folder, stop, resuming, until_epoch)

    def with_arm(self, **changes: Any) -> "Case":
        other = object.__new__(Case)
        other.reader, other._base = self.reader, self._base
        arm = Arm.model_validate({**self.spec.arm.model_dump(), **changes})
        other.spec = self.spec.model_copy(update={"arm": arm})
        return other


@functools.cache
def remember_templates() -> Callable[..., jinja2.Template]:
    """`jinja2.Environment.from_string`, which knows the template of a model card already.

    PEFT reads it again for every adapter that it saves, which is a fifth of a tiny run's time.
    """
    remembering = functools.cache(jinja2.Environment.from_string)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "from_string", remembering)
        ModelCard.from_template(ModelCardData())
    return remembering


def in_child(work: Callable[[], object]) -> int:
    """Exit code of a fork that does `work`: 0, the code of a UserError, or CRASHED."""
    return wait_for_child(start_child(work))


def start_child(work: Callable[[], object]) -> int:
    """Process id of a fork that does `work`; see `in_child`."""
    process = os.fork()
    if process == 0:
        code = CRASHED
        try:
            work()
            code = 0
        except UserError as error:
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def wait_for_child(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_at(point: str, nth: int) -> Callable:
    """A handler that ends the process, without clean-up, the nth time (from 0) at `point`."""
    return _at(point, nth, lambda stop: os._exit(KILLED))


def stop_at(point: str, nth: int) -> Callable:
    """A handler that asks for an orderly end, as a signal does, the nth time at `point`."""
    return _at(point, nth, lambda stop: setattr(stop, "requested", True))


def note_in(log: Path) -> Callable:
    def handler(point: str, _stop: object) -> None:
        with log.open("a") as stream:
            stream.write(f"{point}\n")

    return handler


def _at(wanted: str, nth: int, act: Callable) -> Callable:
    count = iter(range(10**9))

    def handler(point: str, stop: StopFlag) -> None:
        if point == wanted and next(count) == nth:
            act(stop)

    return handler


_OF_A_CLOCK = ("seconds", "ran_seconds", "waited_seconds")


def outcome(folder: RunFolder) -> dict[str, object]:
    """All that a run leaves behind except what a clock or a memory meter says."""
    result = folder.read_result()
    assert result is not None
    timing = {
        *("train_seconds", "total_seconds", "train_and_validate_seconds", "waited_share"),
        *("tokens_per_second", "steps_per_second"),
    }
    return {
        "steps": [
            s.model_dump(exclude={*_OF_A_CLOCK, "peak_memory_bytes"})
            for s in read_records(folder.steps, StepRecord)
        ],
        "epochs": [
            e.model_dump(exclude={"train_seconds"})
            for e in read_records(folder.epochs, EpochRecord)
        ],
        "validations": [v.model_dump() for v in read_records(folder.validations, ValidationRecord)],
        "evaluations": {
            path.name: DocumentSums.model_validate_json(path.read_bytes()).model_dump(
                exclude={"evaluation": {"seconds"}}
            )
            for path in sorted(folder.evaluations.iterdir())
        },
        "result": result.model_dump(
            exclude={
                **dict.fromkeys(timing, True),
                "peak_memory_bytes": True,
                "held": {"libraries"},
                "epochs": True,  # compared above
                "evaluations": True,
            }
        ),
    }


def best_tensors(folder: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.best.glob("*.safetensors")):
        found.update(load_file(path))
    return found


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    """Losses, scores and trained tensors are bitwise equal."""
    a, b = outcome(one), outcome(other)
    for key in a:
        assert a[key] == b[key], key
    tensors, others = best_tensors(one), best_tensors(other)
    assert tensors.keys() == others.keys() and tensors
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def digest_run(folder: RunFolder) -> str:
    """SHA-256 over all that a run leaves behind except what a clock or a memory meter says."""
    digest = hashlib.sha256(json.dumps(outcome(folder), sort_keys=True).encode())
    for name, tensor in sorted(best_tensors(folder).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
