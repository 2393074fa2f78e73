"""How numbers are written for people: one place, so that tables and figures agree."""

import math
from collections.abc import Sequence

from lorastudy.analysis.paired import SIGNIFICANCE
from lorastudy.analysis.statistics import Estimate, Interval

ABSENT = "–"


def write_estimate(estimate: Estimate, decimals: int) -> tuple[str, str]:
    """The mean, and beside it the spread and the number of seeds: ("23.41", "± 0.05 (3)")."""
    if estimate.sd is None:
        return write_number(estimate.mean, decimals), f"({estimate.n})"
    return (
        write_number(estimate.mean, decimals),
        f"± {_write_spread(estimate.sd, decimals)} ({estimate.n})",
    )


def write_number(value: float, decimals: int) -> str:
    """A number with grouped thousands; scientific above a million million."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.{decimals}f}" if abs(value) < 1e12 else f"{value:.3g}"


def perplexity_decimals(value: float) -> int:
    """Decimals that show differences of about a thousandth."""
    return 3 if value < 10 else 2 if value < 1000 else 1


def write_with_interval(
    value: float, interval: Interval | None, decimals: int = 4
) -> tuple[str, str]:
    """A difference and its interval: ("+0.0121", "[+0.0002, +0.0240]").

    Both have as many decimals as the end needs that is closest to zero, so that rounding moves
    no end to zero.
    """
    ends = (value,) if interval is None else (value, interval.low, interval.high)
    decimals = decimals_off_zero(ends, decimals)
    return write_signed(value, decimals), write_interval(interval, decimals)


def write_interval(interval: Interval | None, decimals: int = 4) -> str:
    """An interval as "[-0.0120, +0.0340]"; an end is written as zero only if it is zero."""
    if interval is None:
        return ABSENT
    ends = (interval.low, interval.high)
    decimals = decimals_off_zero(ends, decimals)
    low, high = (write_signed(end, decimals) for end in ends)
    return f"[{low}, {high}]"


def decimals_off_zero(values: Sequence[float], least: int) -> int:
    """The decimals, `least` or more, with which every value shows a digit that is not zero."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    exponent = int(f"{smallest:.0e}".partition("e")[2])  # of its first digit, rounded
    return max(least, -exponent)


def write_signed(value: float, decimals: int = 4) -> str:
    """A difference with its sign."""
    return f"{value:+,.{decimals}f}"


def write_p(p: float) -> str:
    """A p value with as many digits as carry meaning; 0.05 is written only for 0.05 or more."""
    if p < 0.0001:
        return "<0.0001"
    decimals = 4 if p < 0.1 else 2
    while p < SIGNIFICANCE <= float(f"{p:.{decimals}f}"):
        decimals += 1
    return f"{p:.{decimals}f}"


def ends_of(interval: Interval | None) -> tuple[float | None, float | None]:
    """Both ends of an interval; None twice without one."""
    return (None, None) if interval is None else (interval.low, interval.high)


def write_rate(rate: float) -> str:
    """A learning rate as it is said: 1e-4, 2.5e-3."""
    mantissa, _, exponent = f"{rate:.6e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def write_compact(value: float) -> str:
    """A round number in little room: 0.1, 30, 10k, 1.5M, 2G."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.3g}"


def write_share(part: float | None, whole: float | None) -> str:
    """A percentage with at least two digits: 100 %, 1.9 %, 0.047 %."""
    if part is None or not whole:
        return ABSENT
    percent = 100 * part / whole
    decimals = 0 if percent in (0, 100) else max(0, 1 - math.floor(math.log10(percent)))
    return f"{percent:.{decimals}f} %"


def write_range(values: tuple[int, ...]) -> str:
    """Distinct whole numbers as "8" or "5–8"."""
    if not values:
        return ABSENT
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"


def _write_spread(sd: float, decimals: int) -> str:
    smallest = 10.0**-decimals
    if 0 < sd < smallest / 2:
        return f"<{smallest:.{decimals}f}"
    return write_number(sd, decimals)
