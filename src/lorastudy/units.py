"""Sizes and durations as people read them; one function writes each form.

Records keep bytes and seconds. Everything that prints them goes through here, so that a
table, a live view and an error message write the same number in the same way.
"""

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
