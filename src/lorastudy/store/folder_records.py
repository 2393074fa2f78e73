"""The content of files that keep folders in order: who works there, and what was written.

What a run found is in `records`.
"""

from lorastudy.store.records import Fingerprint, Record


class FoundAt(Record):
    """`.places.json`: where this machine found the inputs; not part of the results."""

    base: str  # folder from which relative paths of the study start
    mirror: str | None


class Lease(Record):
    """`.lease` of a run's folder: which process works in it."""

    host: str
    pid: int
    boot: str  # differs after a reboot, after which earlier process numbers mean nothing


class CheckpointFile(Record):
    """One file of a checkpoint, as it was written."""

    bytes: int
    sha256: str


class CheckpointManifest(Record):
    """`MANIFEST.json` of a checkpoint."""

    step: int
    identity: str  # of the run's spec
    environment: Fingerprint
    files: dict[str, CheckpointFile]
    seal: str = ""  # SHA-256 over the other fields


class WrittenRecords(Record):
    """`written.json` of a run: how its records began when it was last noted."""

    files: dict[str, CheckpointFile]  # by name in the run's folder
    seal: str = ""  # SHA-256 over the other fields
