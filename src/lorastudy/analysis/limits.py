"""Limits that an arm has to keep to be recommended, and which arms exceed them.

    device_memory   bytes of a device. An arm needs the highest peak of its runs; on a GPU also
                    what the driver takes, as in `lorastudy check --device-memory`.
    time            seconds of training of the slowest of its runs
    size            bytes of its stored weights
    forget          nats per token by which it may be worse than the base model on texts with
                    `role: forgetting`. An arm needs the upper end of the adjusted interval of its
                    loss minus the baseline's, on the benchmark where it is highest.

An arm keeps a limit if what it needs is known and not above the limit.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NoReturn, get_args

from lorastudy.analysis.claims import arms_in_role
from lorastudy.analysis.costs import measure_costs
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.summary import ArmSummary
from lorastudy.errors import ConfigError
from lorastudy.units import GPU_CONTEXT_BYTES, read_bytes, read_seconds

LimitName = Literal["device_memory", "time", "size", "forget"]
_ON_CPU = "resident"  # the kind of memory that is measured without a GPU


@dataclass(frozen=True, slots=True)
class Limits:
    """What an arm may need at most; None: as much as it likes."""

    device_memory: float | None = None  # bytes
    time: float | None = None  # seconds
    size: float | None = None  # bytes
    forget: float | None = None  # nats per token

    @property
    def given(self) -> dict[LimitName, float]:
        """The limits that are set."""
        return {
            name: value
            for name in get_args(LimitName)
            if (value := getattr(self, name)) is not None
        }

    def relax(self, name: LimitName, value: float) -> "Limits":
        """The same with another value of one limit."""
        return replace(self, **{name: value})


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Excess:
    """An arm that does not keep a limit."""

    arm: str
    limit: LimitName
    allowed: float
    needed: float | None  # None: not known


def find_excesses(findings: Findings, limits: Limits) -> tuple[Excess, ...]:
    """Every limit that a finished trained arm does not keep; arms by trained parameters."""
    if not limits.given:
        return ()
    return tuple(
        Excess(arm.arm, name, allowed, needed)
        for arm in arms_in_role("every trained", findings.arms)
        for needs in [measure_needs(arm, findings)]
        for name, allowed in limits.given.items()
        if (needed := needs.get(name)) is None or needed > allowed
    )


def measure_needs(arm: ArmSummary, findings: Findings) -> dict[LimitName, float]:
    """What a trained arm needs of everything that can be limited, as far as it is known."""
    costs = measure_costs(arm, findings.evidence, findings.memory_kind)
    needs: dict[LimitName, float] = {}
    if "peak memory" in costs:
        of_driver = 0 if findings.memory_kind == _ON_CPU else GPU_CONTEXT_BYTES
        needs["device_memory"] = costs["peak memory"].highest + of_driver
    if "training time" in costs:
        needs["time"] = costs["training time"].highest
    if "stored size" in costs:
        needs["size"] = costs["stored size"].highest
    if (forgotten := _measure_forgetting(arm, findings)) is not None:
        needs["forget"] = forgotten
    return needs


def _measure_forgetting(arm: ArmSummary, findings: Findings) -> float | None:
    """The highest upper end over the texts for forgetting; None if one is not known.

    Tasks take no part: their scores have another unit.
    """
    forgetting = findings.results.forgetting
    asked = [c for c in findings.main if c.key.benchmark in forgetting and not c.key.is_task]
    baselines = arms_in_role("baseline", findings.arms)
    pairs = [c.find_pair(arm.arm, b.arm) for c in asked for b in baselines[:1]]
    ends = [pair.interval.high for pair in pairs if pair is not None and pair.interval is not None]
    return max(ends) if ends and len(ends) == len(asked) else None


def refuse_unknown(findings: Findings, limits: Limits) -> None:
    """Check that the study can say something about every limit.

    Raises:
        ConfigError: No finished arm has what a limit is about.
    """
    trained = arms_in_role("every trained", findings.arms)
    known = {name for arm in trained for name in measure_needs(arm, findings)}
    for name in limits.given:
        if trained and name not in known:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option}: {_UNKNOWN[name]} Leave {option} out.")


_UNKNOWN: Mapping[LimitName, str] = {
    "device_memory": "no run of this study has measured its peak memory.",
    "time": "no run of this study has measured its training time.",
    "size": "no run of this study has stored weights.",
    "forget": "this study cannot say what was forgotten. It takes a baseline arm, benchmarks with "
    "role: forgetting that are scored for every arm, and enough seeds and documents for an "
    "interval.",
}


@dataclass(frozen=True, slots=True)
class _Form:
    """How an amount is written."""

    parse: Callable[[str], float | None]
    what: str
    examples: str

    def read(
        self, option: str, given: str | float | None, least: float | None = None
    ) -> float | None:
        """The amount; it is above zero, or not below `least`."""
        if given is None:
            return None
        found = self.parse(given) if isinstance(given, str) else float(given)
        is_small = found is not None and (found <= 0 if least is None else found < least)
        if found is None or not math.isfinite(found) or is_small:
            self.refuse(option, given)
        return found

    def refuse(self, option: str, given: object) -> NoReturn:
        """Say which form is right."""
        raise ConfigError(
            f"{option} {str(given)[:40]!r} is not {self.what}. Write it as {self.examples}."
        )


def _read_nats(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_limits(
    *,
    device_memory: str | float | None = None,
    time: str | float | None = None,
    size: str | float | None = None,
    forget: str | float | None = None,
) -> Limits:
    """Limits as people write them: "8GB", "1.5h", "50MB", "0.02"; numbers are bytes, seconds, nats.

    Raises:
        ConfigError: One of them is not such an amount.
    """
    of_memory = _Form(read_bytes, "an amount of memory with its unit", "8GB, 7.5GiB or 8192MiB")
    of_time = _Form(read_seconds, "a duration with its unit", "1.5h, 90min or 5400s")
    of_size = _Form(read_bytes, "a size with its unit", "50MB or 1.5GiB")
    of_nats = _Form(_read_nats, "a number of nats per token that is not negative", "0.02")
    return Limits(
        device_memory=of_memory.read("--device-memory", device_memory),
        time=of_time.read("--time", time),
        size=of_size.read("--size", size),
        forget=of_nats.read("--forget", forget, least=0.0),
    )


def read_margin(margin: str | float | None) -> float | None:
    """The margin of equivalence as people write it, in nats per token; None: that of the study.

    Raises:
        ConfigError: It is not a number between 0 and 1.
    """
    form = _Form(_read_nats, "a number of nats per token between 0 and 1", "0.01")
    found = form.read("--margin", margin)
    if found is not None and found >= 1:
        form.refuse("--margin", margin)
    return found
