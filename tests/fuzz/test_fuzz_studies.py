"""Damaged study folders: every number and sentence is the one of before, or the damage is named.

A sample runs with the other tests. `LORASTUDY_FUZZ=1000 pytest tests/fuzz` tries as many cases.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lorastudy.analysis.findings import read_findings
from lorastudy.cli import app
from lorastudy.config import study_file
from lorastudy.errors import UserError
from lorastudy.report.build import build_tables
from lorastudy.report.page.headline import state_headline
from lorastudy.report.page.integrity import (
    build_digest_table,
    describe_environments,
    describe_resumes,
    list_warnings,
)
from lorastudy.report.page.verdict import state_verdict
from lorastudy.report.tables.formats import render_markdown
from lorastudy.store.folders import StudyFolder
from lorastudy.store.hashes import hash_files, write_hashes
from lorastudy.store.locks import read_lock, write_lock
from support.command_line import ROOT, Answer, call
from support.fuzzing import tried_often

FINISHED = ROOT / "tests" / "support" / "finished_study" / "study"
UNREAD = (".places.json", "results.json", "log.txt")  # by what is compared here
CODES = {0, 2, 3, 74}
# a smaller case says nothing more, and takes minutes
tried_unreduced = settings(tried_often, phases=[Phase.generate])


@pytest.fixture(scope="module", autouse=True)
def made_once() -> Iterator[None]:
    """What is the same for every folder is made once: options, and the study of a text.

    Nothing waits for the disk either. All that is read of a folder is read again for every case.
    """
    commands = typer.main.get_command(app)
    remembered = lru_cache(maxsize=16)(study_file.load_study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", lambda _: commands)
        patch.setattr(study_file, "load_study", remembered)
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study with weights, sealed as the version of today seals it."""
    study = shutil.copytree(FINISHED, tmp_path_factory.mktemp("sound") / "study")
    write_lock(StudyFolder(study), read_lock(StudyFolder(study)))
    for path in (study / "runs").iterdir():
        run = StudyFolder(study).run(path.name)
        if run.best.is_dir():
            name = "model" if path.name.startswith("full") else "adapter_model"
            weights = os.urandom(64 if name == "model" else 16)
            head = json.dumps({"w": {"data_offsets": [0, len(weights)]}}).encode()
            content = len(head).to_bytes(8, "little") + head + weights
            (run.best / f"{name}.safetensors").write_bytes(content)
            write_hashes(run.best)
        if run.result.exists():
            changing = ("checkpoints/", "written.json")
            found = hash_files(path).items()
            write_hashes(path, {n: digest for n, digest in found if not n.startswith(changing)})
        else:
            run.note_written()
    assert call("report", study).code == 0
    shutil.rmtree(study / "report")
    return study


def list_files(study: Path) -> list[str]:
    """What can be damaged: everything but checkpoints, whose tensors the folder does not have."""
    found = (
        path for path in study.rglob("*") if path.is_file() and "checkpoints" not in path.parts
    )
    return sorted(path.relative_to(study).as_posix() for path in found)


def read_page(study: Path) -> Answer:
    """Every table and sentence of the report, without pictures and bootstrap."""
    try:
        findings = read_findings(study, with_bootstrap=False)
    except UserError as error:
        return Answer(error.exit_code, "", str(error))
    tables = [*build_tables(findings).values(), build_digest_table(findings.evidence)]
    said = [
        *(render_markdown(table) for table in tables if table is not None),
        state_headline(findings),
        *(str(statement) for statement in state_verdict(findings)),
        *map(str, describe_environments(findings.evidence)),
        *describe_resumes(findings.evidence),
        *list_warnings(findings),
    ]
    return Answer(0, "\n".join(said), "")


def look(study: Path) -> dict[str, Answer]:
    """What commands say about the folder; a traceback is an error of the test."""
    out = study.parent / "exported"
    shutil.rmtree(out, ignore_errors=True)
    answers = {
        "table": call("table", study, "--format", "md"),
        "status": call("status", study, "--json"),
        "page": read_page(study),
        "export": call("export", study, "--to", "lm-eval", "--out", out),
    }
    files = sorted(out.iterdir()) if out.is_dir() else []
    texts = (json.loads(path.read_text()) | {"date": None} for path in files)
    exported = "\n".join(map(json.dumps, texts)) + answers["export"].err
    return answers | {"export": Answer(answers["export"].code, exported, answers["export"].err)}


KINDS = ("flip", "digit", "cut", "empty", "swap", "delete", "repeat")


@dataclass(frozen=True)
class Damage:
    name: str
    kind: str
    where: int
    other: str  # the file that a swap exchanges it with


def damage(study: Path, how: Damage) -> bool:
    """Damage a file; whether the folder is now another one."""
    path, where = study / how.name, how.where
    raw = path.read_bytes()
    at = where % len(raw)
    match how.kind:
        case "flip":
            new = raw[:at] + bytes([raw[at] ^ (1 << where % 8)]) + raw[at + 1 :]
        case "digit":
            digits = [i for i, byte in enumerate(raw) if chr(byte).isdigit()] or [at]
            at = digits[where % len(digits)]
            new = raw[:at] + (b"7" if raw[at : at + 1] != b"7" else b"8") + raw[at + 1 :]
        case "cut":
            new = raw[:at]
        case "empty":
            new = b""
        case "repeat":
            new = raw + raw
        case "swap":
            new = (study / how.other).read_bytes()
            (study / how.other).write_bytes(raw)
        case _:
            path.unlink()
            return True
    path.write_bytes(new)
    return new != raw


def check(folder: Path, sound: Path, before: dict[str, Answer], how: Damage) -> None:
    """Damage a file of `folder`, a copy of `sound`, and see that what is said now is true."""
    is_changed = damage(folder, how)
    name, kind = how.name, how.kind
    named = {Path(name).name, *([Path(how.other).name] if kind == "swap" else [])}
    if "SHA256SUMS" in named:  # a file may differ from a changed hash of it, or nothing is verified
        named |= {"is not the file that was written", "is missing", "not verified"}
    for command, answer in look(folder).items():
        said = answer.out + answer.err
        assert answer.code in CODES, (command, said)
        is_same = answer.out.replace(str(folder), str(sound)) == before[command].out
        assert is_same or any(n in said for n in named), (command, how, said)
    fsck = call("fsck", folder)
    assert fsck.code in CODES
    if is_changed and name.startswith("runs/") and not named & set(UNREAD):
        is_as_of_old = kind == "delete" and name.endswith("written.json")
        assert is_as_of_old or (fsck.code != 0 and any(n in fsck.err for n in named)), fsck


@pytest.fixture(scope="module")
def before(sound: Path) -> dict[str, Answer]:
    return look(sound)


@tried_unreduced
@given(data=st.data())
def test_damage_to_a_study_changes_nothing_unsaid(
    sound: Path, before: dict[str, Answer], data: Any
) -> None:
    names = list_files(sound)
    name, other = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    kind, where = data.draw(st.sampled_from(KINDS)), data.draw(st.integers(0, 10**6))
    folder = sound.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    check(folder, sound, before, Damage(name, kind, where, other))
