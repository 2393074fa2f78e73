"""`study.lock.json`: what every run of a study must match, with a seal that shows later changes.

The seal is over the JSON as it is stored, not over its fields, so a version with more fields
reads the seals of earlier ones. Locks of early versions have none and are read as they are.
"""

import hashlib
import json

from pydantic import Field

from lorastudy.config.models import Study
from lorastudy.config.syntax import IfAny, IfGiven
from lorastudy.errors import StorageError
from lorastudy.store.counts import HeldOut, MixedRows, Overlap, TextCounts
from lorastudy.store.files import read_record, write_record
from lorastudy.store.folders import StudyFolder
from lorastudy.store.memory_parts import PredictedMemory
from lorastudy.store.records import Fingerprint, Record


class ProbedArm(Record):
    """The result of trying an arm on the longest rows before the study."""

    arm: str
    fits: bool
    peak_memory_bytes: dict[str, int]


class StudyLock(Record):
    """`study.lock.json`: contents that every run of the study must match."""

    base_digest: str
    tokenizer_digest: str
    corpora: dict[str, str]  # "train", "validation", "<benchmark>--<protocol>" -> digest
    # by the same names: how much of each text is read and known
    texts: dict[str, TextCounts] = Field(default_factory=dict)
    # what an epoch reads of each source of a mixture; none: there is one source
    mixture: IfAny[tuple[MixedRows, ...]] = ()
    # how documents of the training data were held out; None: validation has its own
    held_out: IfGiven[HeldOut] = None
    overlap: tuple[Overlap, ...] = ()  # documents of validation and benchmarks that are trained on
    # of start and end tokens and, where they matter, the chat template and settings of generation
    settings_digest: IfGiven[str] = None
    # "models/<hub id>@<branch or tag>", "datasets/..." -> commit
    revisions: dict[str, str] = Field(default_factory=dict)
    vocabulary_size: int | None = None  # rows of the base model's embedding
    # memory of each trained arm by part, on the device where the study was started
    predicted: IfAny[tuple[PredictedMemory, ...]] = ()
    # lines that decisions.jsonl has at least
    n_decisions: IfAny[int] = 0
    micro_batch: int | None = None  # rows at once for which every arm was seen to have memory
    probed: tuple[ProbedArm, ...] = ()
    # what study.yaml may contain: the study before and after the last extension
    studies: tuple[Study, ...] = ()
    environment: Fingerprint | None = None  # at the start; runs have their own
    seal: str = ""  # SHA-256 over the other keys


def write_lock(folder: StudyFolder, lock: StudyLock) -> None:
    """Write the lock of a study.

    Raises:
        StorageError: The disk refused the write.
    """
    seal = _seal_of(lock.model_dump_json())
    write_record(folder.lock, lock.model_copy(update={"seal": seal}))


def read_lock(folder: StudyFolder) -> StudyLock:
    """The lock of a study, which has to exist.

    Raises:
        StorageError: It is not what was written.
    """
    lock = read_record(folder.lock, StudyLock)
    if lock.seal and lock.seal != _seal_of(folder.lock.read_text(encoding="utf-8")):
        raise StorageError(
            f"{folder.lock} is not the file that was written. Restore it from a copy."
        )
    return lock


def _seal_of(text: str) -> str:
    """SHA-256 over all keys of a JSON object but `seal`."""
    content = {key: value for key, value in json.loads(text).items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
