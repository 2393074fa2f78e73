"""The store of a study against a model in memory: append, commit, crash, corrupt, resume, extend.

hypothesis draws the sequences. What is checked after every step: lines are whole and never fewer
than were acknowledged, a resume goes back to the newest checkpoint that nobody damaged, and
damaged ones are set aside or refused, never used. The study has the seeds it was extended to,
wholly or not at all, and whatever else study.yaml says is refused.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import BaseModel

from lorastudy import faults
from lorastudy.config.models import Study
from lorastudy.config.study_file import dump_study, extend_study
from lorastudy.errors import ConfigError, InputError
from lorastudy.store.checkpoints import (
    KEPT,
    list_checkpoints,
    newest_sound_checkpoint,
    write_checkpoint,
)
from lorastudy.store.collect import read_study, write_extension
from lorastudy.store.files import write_record, write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.store.lines import append_record, read_records, replace_records
from lorastudy.store.locks import StudyLock
from lorastudy.store.records import Fingerprint

ENVIRONMENT = Fingerprint(
    lorastudy="0",
    python="3",
    libraries={},
    device="cpu",
    precision="float32",
    threads=1,
    attention="sdpa",
    micro_batch=1,
)
CRASHES = (
    "checkpoint:before-weights",
    "checkpoint:before-manifest",
    "publish:before-rename",
    "publish:between-renames",
    "checkpoint:before-delete-old",
)


STUDY = Study.model_validate(
    {
        "name": "tiny",
        "base_model": {"builtin": "demo"},
        "data": {
            "train": {"path": "a.txt"},
            "validation": {"path": "b.txt"},
            "rows": {"cut": "lines", "length": 8},
        },
        "training": {"epochs": 1, "rows_per_step": 1, "micro_batch": 1},
        "seeds": (0,),
        "arms": ({"name": "full", "method": "full", "learning_rates": (0.1,)},),
        "benchmarks": (),
    }
)


class Line(BaseModel):
    step: int


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it, nothing is tidied up after it."""


class StoreMachine(RuleBasedStateMachine):
    """One run's folder and what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.study = StudyFolder(self.root)
        write_text(self.study.study, dump_study(STUDY))
        lock = StudyLock(base_digest="", tokenizer_digest="", corpora={}, studies=(STUDY,))
        write_record(self.study.lock, lock)
        self.n_seeds = 1
        self.folder = self.study.run("a-s0-00")
        self.folder.path.mkdir(parents=True)
        self.step = 0  # the process's own count
        self.lines: list[int] = []  # acknowledged
        self.sound: list[int] = []  # committed and undamaged, oldest first
        self.damaged: list[int] = []  # committed, then damaged, and not yet found

    @rule(n=st.integers(1, 4))
    def append(self, n: int) -> None:
        for _ in range(n):
            self.step += 1
            append_record(self.folder.steps, Line(step=self.step))
            self.lines.append(self.step)

    @rule()
    def commit(self) -> None:
        self._write()
        self._note_commit()

    def _write(self) -> None:
        text = json.dumps(self.step)
        files = {"weights": lambda path: path.write_text(text), "trainer.json": _write_nothing}
        write_checkpoint(
            self.folder.checkpoints, self.step, files, identity="x", environment=ENVIRONMENT
        )

    def _note_commit(self) -> None:
        all_steps = sorted({*self.sound, *self.damaged, self.step})
        kept = all_steps[-KEPT:]
        self.damaged = [s for s in self.damaged if s in kept and s != self.step]
        self.sound = [s for s in kept if s not in self.damaged]

    @rule(point=st.sampled_from(CRASHES))
    def crash_in_a_commit(self, point: str) -> None:
        """The process ends at `point`; a new one owns the folder and resumes."""

        def die(reached: str) -> None:
            if reached == point:
                os._exit(99)

        before = {path.name for path in list_checkpoints(self.folder.checkpoints)}
        child = os.fork()
        if child == 0:
            faults.handler = die
            self._write()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99
        if point == "checkpoint:before-delete-old":
            self.damaged = [s for s in self.damaged if s != self.step]
            self.sound = sorted({*self.sound, self.step})
        else:
            name = f"step-{self.step:08d}"
            now = {path.name for path in list_checkpoints(self.folder.checkpoints)}
            assert before - now <= {name}
        self._resume()

    @rule()
    def crash_in_an_append(self) -> None:
        with self.folder.steps.open("ab") as stream:
            stream.write(b'{"step": 99')
        self._resume()

    @rule()
    def crash_and_resume(self) -> None:
        self._resume()

    @precondition(lambda self: len(self.sound) > 1)
    @rule(
        name=st.sampled_from(["weights", "trainer.json", "MANIFEST.json"]),
        kind=st.sampled_from(["flip", "cut", "empty", "delete"]),
    )
    def corrupt_the_newest(self, name: str, kind: str) -> None:
        step = self.sound.pop()
        path = self.folder.checkpoints / f"step-{step:08d}" / name
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        changed = {"flip": bytes(raw), "cut": path.read_bytes()[:-1], "empty": b"", "delete": None}
        content = changed[kind]
        path.unlink() if content is None else path.write_bytes(content)
        self.damaged.append(step)

    @rule(is_killed=st.booleans())
    def extend(self, is_killed: bool) -> None:
        before = read_study(self.study)
        after = extend_study(before, (), n_seeds=1)
        if not is_killed:
            write_extension(self.study, before, after)
            self.n_seeds += 1
            return
        child = os.fork()
        if child == 0:
            hits = iter(range(10**9))
            faults.handler = lambda point: next(hits) == 2 and os._exit(99)  # of study.yaml
            write_extension(self.study, before, after)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99

    @rule()
    def edit_by_hand(self) -> None:
        text = self.study.study.read_text()
        self.study.study.write_text(text.replace("epochs: 1", "epochs: 2"))
        with pytest.raises(ConfigError, match=r"training\.epochs: 1 -> 2"):
            read_study(self.study)
        self.study.study.write_text(text)

    def _resume(self) -> None:
        """What a new process does: claim, find the checkpoint, cut the lines after it."""
        assert read_study(self.study).seeds == tuple(range(self.n_seeds))
        with self.folder.claim():
            if not self.sound and self.damaged:
                with pytest.raises(InputError):
                    newest_sound_checkpoint(self.folder.checkpoints)
                self.folder.set_aside()
                self.damaged, self.lines, self.step = [], [], 0
                return
            found = newest_sound_checkpoint(self.folder.checkpoints)
            self.step = self.sound[-1] if self.sound else 0
            assert found == (
                self.folder.checkpoints / f"step-{self.step:08d}" if self.sound else None
            )
            if found is not None:
                assert json.loads((found / "weights").read_text()) == self.step
            self.damaged = [step for step in self.damaged if step < self.step]
            self.lines = [n for n in self.lines if n <= self.step]
            replace_records(self.folder.steps, tuple(Line(step=n) for n in self.lines))

    @invariant()
    def no_acknowledged_line_is_lost(self) -> None:
        assert [line.step for line in read_records(self.folder.steps, Line)] == self.lines

    @invariant()
    def every_sound_checkpoint_is_there(self) -> None:
        there = {path.name for path in list_checkpoints(self.folder.checkpoints)}
        assert {f"step-{step:08d}" for step in self.sound[-KEPT:]} <= there

    def teardown(self) -> None:
        shutil.rmtree(self.root)


def _write_nothing(path: Path) -> None:
    path.write_text("{}")


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
