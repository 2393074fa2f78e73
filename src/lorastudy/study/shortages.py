"""Check before the first run that disk and memory are large enough for the runs."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from lorastudy.config.spec import RunSpec
from lorastudy.errors import OutOfMemoryError, StorageError
from lorastudy.study.check import ArmCheck
from lorastudy.units import write_mib


def refuse_full_disk(missing: Iterable[RunSpec], arms: Iterable[ArmCheck], path: Path) -> None:
    """Check that there is room under `path` for everything that the runs will write.

    Raises:
        StorageError: There is not (exit 74); the message names both numbers.
    """
    by_arm = {arm.spec.arm.name: arm for arm in arms}
    runs = [by_arm[run.arm.name] for run in missing]
    in_the_making = max((arm.bytes_in_the_making for arm in runs), default=0)
    needed = sum(arm.disk_bytes for arm in runs) + in_the_making
    where = next(parent for parent in (path, *path.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(where).free
    if needed > free:
        raise StorageError(
            f"{path}: the {len(runs)} runs will write {needed:,} bytes, and {free:,} are free. "
            "Free space, choose another folder with --out, or run fewer arms at a time with --arm."
        )


def refuse_oversized(
    missing: Iterable[RunSpec], arms: Iterable[ArmCheck], *, total_bytes: int
) -> None:
    """Check that the device has the predicted peak memory of every missing run.

    Raises:
        OutOfMemoryError: It does not (exit 7); the message names the arm and what to do.
    """
    names = {run.arm.name for run in missing}
    largest = max(
        (arm for arm in arms if arm.spec.arm.name in names),
        key=lambda arm: arm.peak.total,
        default=None,
    )
    if largest is not None and largest.peak.total > total_bytes:
        raise OutOfMemoryError(
            f"{largest.spec.arm.name}: a micro-batch of {largest.spec.training.micro_batch} rows "
            f"of {largest.spec.data.rows.length} tokens needs about "
            f"{write_mib(largest.peak.total)} MiB, but there are only "
            f"{write_mib(total_bytes)} MiB. Lower training.micro_batch, or set "
            "training.token_budget, which divides it without changing the sums. With --probe "
            "this is measured instead of predicted."
        )
