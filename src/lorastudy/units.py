"""Sizes and durations as people read them; one function writes each form.

Records keep bytes and seconds. Everything that prints them goes through here, so that a
table, a live view and an error message write the same number in the same way. Options that take
an amount, such as 12GB or 1.5h, are read here too.
"""

import json
import math
import re
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal

MIB = 2**20
GPU_CONTEXT_BYTES = 500 * MIB  # of a GPU, for its driver's context and kernels; roughly

_AMOUNT = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?) ?(?P<unit>[A-Za-z]+)")
_BYTES = {
    f"{prefix}{middle}b": base**power
    for middle, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("kmgt", start=1)
}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
COUNT_PATTERN = r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?) ?([kKMBGTP]?)"
_COUNTS = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "B": 10**9,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
}
_SHOWN_BYTES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_SHOWN_SECONDS = (("h", 3600), ("min", 60), ("s", 1))
_DIGITS = 3  # of an amount that is rounded up


def read_bytes(text: str) -> int | None:
    """The bytes that "12GB", "11.5GiB" or "50 MB" says; None if it has another form, or is zero.

    GB is 10^9 bytes and GiB is 2^30, as everywhere.
    """
    amount = _read_amount(text, _BYTES)
    return None if amount is None else int(amount) or None


def read_seconds(text: str) -> float | None:
    """The seconds that "1.5h", "90min" or "45s" says; None if it has another form, or is zero."""
    amount = _read_amount(text, _SECONDS)
    return None if amount is None else float(amount)


def read_count(text: str) -> float | None:
    """The number that "2M", "1.6e6" or "500k" says; None if it has another form, or is zero.

    It is a whole number wherever it has no fraction.
    """
    found = re.fullmatch(COUNT_PATTERN, text)
    if found is None:
        return None
    number = Decimal(found[1]) * _COUNTS[found[2]]
    return (int(number) if number == number.to_integral_value() else float(number)) or None


def _read_amount(text: str, units: dict[str, int]) -> Decimal | None:
    found = _AMOUNT.fullmatch(text.strip())
    unit = units.get(found["unit"].lower()) if found else None
    if found is None or unit is None:
        return None
    return Decimal(found["number"]) * unit or None


def write_bytes_up(n_bytes: float) -> str:
    """The next amount of three digits that is not smaller: "9.87GB"; `read_bytes` reads it."""
    return _write_up(n_bytes, _SHOWN_BYTES)


def write_seconds_up(seconds: float) -> str:
    """The next duration of three digits that is not shorter: "1.27h"; `read_seconds` reads it."""
    return _write_up(seconds, _SHOWN_SECONDS)


def write_nats_up(nats: float) -> str:
    """The next number of three digits that is not smaller: "0.0213"."""
    return _write_up(nats, (("", 1),))


def _write_up(value: float, units: Sequence[tuple[str, int]]) -> str:
    """In the first unit of which there is one at least, or in the last."""
    unit, size = next((u for u in units if value >= u[1]), units[-1])
    exact = Decimal(str(value)) / size  # as it is written: 0.1 is not a little more than that
    place = Decimal(1).scaleb(exact.adjusted() - _DIGITS + 1)
    rounded = exact.quantize(place, rounding=ROUND_CEILING) if exact else exact
    return f"{rounded.normalize():f}{unit}"


def write_mib(n_bytes: float) -> str:
    """Bytes as whole MiB with grouped thousands and without the unit: "1,234"."""
    return f"{n_bytes / MIB:,.0f}"


def write_count(n: int, noun: str) -> str:
    """A number of things: "1 run", "2,000 runs"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def write_portion(share: float, decimals: int = 0) -> str:
    """A share from 0 to 1 as a percentage: "8 %", "7.5 %"."""
    return f"{100 * share:.{decimals}f} %"


def write_perplexity(perplexity: float, form: str = ".4f") -> str:
    """A perplexity in words where no float holds it, as per word of a text without spaces."""
    return f"{perplexity:{form}}" if math.isfinite(perplexity) else "more than the largest number"


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
