"""Sizes and durations as people read them; one function writes each form.

Records keep bytes and seconds. Everything that prints them goes through here, so that a
table, a live view and an error message write the same number in the same way.
"""

import json
import math

MIB = 2**20


def write_mib(n_bytes: float) -> str:
    """Bytes as whole MiB with grouped thousands and without the unit: "1,234"."""
    return f"{n_bytes / MIB:,.0f}"


def write_clock(seconds: float) -> str:
    """Time that is left, in whole seconds: "0:42", "12:05", "3:04:59"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def write_duration(seconds: float) -> str:
    """Time that was taken, as H:MM:SS: "0:12:05"; below ten seconds with a tenth: "0:00:04.2"."""
    if not math.isfinite(seconds):
        return "not finite"
    tenths = f".{round(seconds * 10) % 10}" if 0 < seconds < 9.95 else ""
    whole = int(round(seconds, 1)) if tenths else round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}{tenths}"


def write_json(value: object, *, indent: int) -> str:
    """A value as strict JSON, which has no NaN and no infinity: null stands for both.

    What JSON does not know, such as a path, becomes text.
    """
    return json.dumps(_without_infinities(value), indent=indent, allow_nan=False, default=str)


def _without_infinities(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(part) for part in value]
    return value
