"""Results as Markdown: every number of the README comes from here."""

import statistics
from collections.abc import Iterable
from typing import Any

from comparisons import EPOCHS, TOKENS

MIB = 1024**2
Found = dict[str, Any]


def ratios(found: Found, key: str) -> list[float]:
    """Peer over ours of `key` a real token, for each pair of neighbouring steps."""
    return [
        (s["peer"][key] / s["peer"]["tokens"]) / (s["ours"][key] / s["ours"]["tokens"])
        for s in found["steps"]
    ]


def per_token(found: Found, side: str) -> float:
    """Median of milliseconds a real token."""
    return statistics.median(1e3 * s[side]["seconds"] / s[side]["tokens"] for s in found["steps"])


def peak(found: Found, side: str) -> float:
    """Bytes of the whole process."""
    return max(float(s[side]["peak_bytes"]) for s in found["steps"])


def bound(found: Found, results: Found) -> str:
    """Peer over ours if ours were nothing but large matrix products at the measured ceiling.

    A token is multiplied with every weight forward; in training backward too, and once more for
    the gradient of every weight that is trained; 2 operations each.
    """
    if found["mode"] == "scored":  # padding is computed as well, and not counted as tokens
        return ""
    operations = 2 * results["products"][found["base"]] * count_passes(found)
    gflops = results["machine"]["matmul_gflops"][found["precision"]]
    return f"{per_token(found, 'peer') / (operations / (gflops * 1e6)):.1f}x"


def count_passes(found: Found) -> int:
    """How often a token is multiplied with each weight."""
    if found["task"] == "evaluate":
        return 1
    return 3 if found["arm"] == "full" else 2


def _aim(value: float | None, wanted: float | None, *, at_least: bool) -> str:
    """What was aimed at, and whether it was reached."""
    if wanted is None or value is None:
        return ""
    sign = ">=" if at_least else "<="
    is_reached = value >= wanted if at_least else value <= wanted
    return f"{sign} {wanted:g}{'' if is_reached else ' **missed**'}"


def training_line(found: Found, results: Found) -> str:
    """One line of the table of training."""
    wall, cpu = ratios(found, "seconds"), ratios(found, "cpu_seconds")
    speed = statistics.median(wall)
    ours, peer = peak(found, "ours"), peak(found, "peer")
    start = found["start_bytes"]
    net = (ours - start["ours"]) / (peer - start["peer"])
    aims = [
        _aim(speed, found["speed_target"], at_least=True),
        _aim(ours / peer, found["memory_target"], at_least=False),
        _aim(net, found["net_memory_target"], at_least=False),
    ]
    cells = [
        found["name"],
        found["arm"],
        found["precision"],
        f"{per_token(found, 'ours'):.3g} / {per_token(found, 'peer'):.3g}",
        f"**{speed:.2f}x** ({min(wall):.2f}-{max(wall):.2f})",
        bound(found, results),
        f"{statistics.median(cpu):.2f}x",
        f"{ours / MIB:,.0f} / {peer / MIB:,.0f}",
        f"{ours / peer:.2f} / {net:.2f}",
        ", ".join(aim for aim in aims if aim),
    ]
    return f"| {' | '.join(cells)} |"


def evaluation_line(found: Found, results: Found) -> str:
    """One line of the table of evaluation."""
    wall = ratios(found, "seconds")
    differences = [abs(s["ours"]["nats"] / s["peer"]["nats"] - 1) for s in found["steps"]]
    cells = [
        found["name"],
        found["precision"],
        f"{per_token(found, 'ours'):.3g} / {per_token(found, 'peer'):.3g}",
        f"**{statistics.median(wall):.2f}x** ({min(wall):.2f}-{max(wall):.2f})",
        bound(found, results),
        f"{peak(found, 'ours') / MIB:,.0f} / {peak(found, 'peer') / MIB:,.0f}",
        f"{max(differences):.1e}",
        _aim(statistics.median(wall), found["speed_target"], at_least=True),
    ]
    return f"| {' | '.join(cells)} |"


def step_line(found: Found, full: Found, results: Found) -> str:
    """Seconds of a step of an arm against those of full fine-tuning on the same rows."""
    pairs = zip(found["steps"], full["steps"], strict=True)
    share = statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)
    ms = statistics.median(1e3 * s["seconds"] / s["tokens"] for s in found["steps"])
    peak_mib = max(s["peak_bytes"] for s in found["steps"]) / MIB
    operations = 2 * results["products"]["gpt2"] * count_passes({"task": "train", **found})
    gflops = results["machine"]["matmul_gflops"][found["precision"]]
    cells = [
        found["arm"],
        found["precision"],
        f"{ms:.3g}",
        f"{share:.2f}",
        f"{operations / (ms * 1e6) / gflops:.0%}",
        f"{peak_mib:,.0f}",
        _aim(share, found["target"], at_least=False),
    ]
    return f"| {' | '.join(cells)} |"


def machine_lines(machine: Found) -> list[str]:
    """Hardware, versions and the ceiling."""
    gflops = [f"{value:,.0f} GFLOP/s in {name}" for name, value in machine["matmul_gflops"].items()]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items())
    return [
        f"{machine['processor']}, {machine['threads']} threads, "
        f"{', '.join(machine['instructions'])}; {versions}.",
        "Matrix products of (1400, 768) by (768, 3072), which bound both sides: "
        f"{', '.join(gflops)}.",
    ]


def markdown(results: Found) -> str:
    """All tables of a results file."""
    lines = [*machine_lines(results["machine"]), ""]
    training = [f for f in results["comparisons"] if f["task"] == "train"]
    evaluation = [f for f in results["comparisons"] if f["task"] == "evaluate"]
    if training:
        lines += [
            "| peer: Trainer + PEFT, | arm | precision | ms a token, ours / peer | speed (range) "
            "| at most | processor time | peak MiB, ours / peer | ratio / net of start "
            "| aimed at |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(training_line(found, results) for found in training),
            "",
        ]
    if evaluation:
        lines += [
            "| evaluation, peer | precision | ms a token, ours / peer | speed (range) "
            "| at most | peak MiB, ours / peer | largest difference of losses | aimed at |",
            "|---|---|---|---|---|---|---|---|",
            *(evaluation_line(found, results) for found in evaluation),
            "",
        ]
    if arms := results.get("arms"):
        lines += [
            "| step of | precision | ms a token | of full's seconds | of the ceiling | peak MiB "
            "| aimed at |",
            "|---|---|---|---|---|---|---|",
            *_step_lines(arms, results),
            "",
            f"The published study, {len(arms)} arms of {EPOCHS} epochs of {TOKENS:,} tokens, at "
            f"these rates: {_study_minutes(arms):,.0f} minutes of training.",
            "",
        ]
    return "\n".join(lines)


def _step_lines(arms: Iterable[Found], results: Found) -> list[str]:
    by_name = {found["arm"]: found for found in arms}
    return [step_line(found, by_name["full"], results) for found in by_name.values()]


def _study_minutes(arms: Iterable[Found]) -> float:
    rates = [
        statistics.median(s["seconds"] / s["tokens"] for s in found["steps"]) for found in arms
    ]
    return sum(rates) * EPOCHS * TOKENS / 60
