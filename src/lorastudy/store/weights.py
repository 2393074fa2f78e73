"""The weights of a run's best epoch: whether they are what was written, and how large they are.

Their hashes are compared before they are loaded or exported, which reads all of them. A report
needs only their size, and looks only at the heads of the files.
"""

import json
import os
from pathlib import Path

from lorastudy.errors import StorageError
from lorastudy.store.folders import BEST, RESTORE, RunFolder
from lorastudy.store.hashes import HASHES, Change, find_changes, read_hashes

_SUFFIX = ".safetensors"


def find_weight_changes(run: RunFolder) -> list[Change]:
    """What differs from the files of `best/` that the run wrote; reads all of its weights."""
    changes: dict[str, Change] = {}
    is_old = run.result.exists() and not run.is_verifiable
    if (run.best / HASHES).exists() or (run.best.exists() and not is_old):
        found = find_changes(run.best)
        changes |= {f"{BEST}{c.name}": Change(f"{BEST}{c.name}", c.problem) for c in found}
    if run.result.exists() and run.is_verifiable:
        found = find_changes(run.path, lambda name: name.startswith(BEST))
        changes |= {change.name: change for change in found}
    return list(changes.values())


def refuse_changed_weights(run: RunFolder) -> None:
    """Check that `best/` is as the run wrote it, before its weights are used.

    Raises:
        StorageError: It is not.
    """
    is_there = run.best.is_dir()
    if changes := find_weight_changes(run) if is_there else [Change(BEST, "is missing")]:
        raise StorageError(f"{run.path.name}: {'; '.join(map(str, changes))}. {RESTORE}")


def measure_stored_bytes(run: RunFolder) -> int | None:
    """Bytes of the best epoch's weight files; None where there are none, as of a baseline.

    Raises:
        StorageError: A file is missing, or is not as long as its own head says.
    """
    paths = {run.best / name for name in _list_names(run)} | set(run.best.glob(f"*{_SUFFIX}"))
    for path in sorted(paths):
        if not path.is_file():
            raise StorageError(f"{path} is missing. {RESTORE}")
        if not _is_whole(path):
            raise StorageError(f"{path} is not the file that was written. {RESTORE}")
    return sum(path.stat().st_size for path in paths) if paths else None


def _list_names(run: RunFolder) -> set[str]:
    """Weight files that the hashes in `best/` name; none where they cannot be read."""
    try:
        return {name for name in read_hashes(run.best) if name.endswith(_SUFFIX)}
    except StorageError:
        return set()


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            n_head = int.from_bytes(stream.read(8), "little")
            size = os.fstat(stream.fileno()).st_size
            if n_head > size:
                return False
            head: dict[str, dict[str, list[int]]] = json.loads(stream.read(n_head))
        ends = [part["data_offsets"][1] for name, part in head.items() if name != "__metadata__"]
        return size == 8 + n_head + max(ends, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
