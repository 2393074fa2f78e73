"""Figure 9: losses by optimizer step, which tells arms apart long before an epoch ends."""

import math

from lorastudy.analysis.evidence import Evidence
from lorastudy.analysis.findings import Findings
from lorastudy.analysis.statistics import Estimate, estimate_mean
from lorastudy.analysis.summary import ArmSummary
from lorastudy.report.figures.style import add_legend, colour_of, mark, new_figure, style_of
from lorastudy.report.figures.writing import DrawnFigure, save_figure


def has_steps(findings: Findings) -> bool:
    """Whether the losses of single steps are known of a finished run."""
    return any(_losses(arm, findings.evidence) for arm in findings.arms)


def draw_steps(findings: Findings) -> DrawnFigure:
    """One line for each arm: its training loss in stretches of steps; validation as dots."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    drawn = []
    for position, arm in enumerate(findings.arms):
        if not (curve := _losses(arm, findings.evidence)):
            continue
        drawn.append((position, arm))
        means = [loss.mean for loss in curve.values()]
        if any(loss.n > 1 for loss in curve.values()):
            low, high = ([getattr(e, end) for e in curve.values()] for end in ("lowest", "highest"))
            colour = colour_of(position)
            band = axes.fill_between(list(curve), low, high, color=colour, alpha=0.15, linewidth=0)
            mark(band, position)
        style = style_of(position)
        (line,) = axes.plot(list(curve), means, linewidth=1.3, **(style | {"marker": ""}))
        mark(line, position, [f"{arm.arm}: training loss, lowest {min(means):.4f} nats"])
        if validation := _validation(arm):
            values = [loss.mean for loss in validation.values()]
            dots = style | {"linestyle": "", "markersize": 6}
            (points,) = axes.plot(list(validation), values, **dots)
            hints = [
                f"{arm.arm}, validation loss, step {step}: {loss.mean:.4f} nats"
                for step, loss in validation.items()
            ]
            mark(points, position, hints)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss, nats per target")
    axes.grid(axis="y")
    add_legend(figure, drawn)
    is_within = any(run.validations for arm in findings.arms for run in arm.runs)
    when = "within epochs and at their ends" if is_within else "at the end of each epoch"
    caption = (
        "Lines: training loss with dropout, averaged over neighbouring steps and over seeds, bands "
        f"from the lowest to the highest seed. Markers: validation loss {when}."
    )
    return save_figure(figure, "fig9-losses-by-step", "Figure 9. Losses by step", caption)


def _losses(arm: ArmSummary, evidence: Evidence) -> dict[int, Estimate]:
    """For each stretch, the mean over seeds of the finite training losses."""
    by_step: dict[int, list[float]] = {}
    for found in evidence.of_arm(arm):
        for loss in found.losses:
            if math.isfinite(loss.loss):
                by_step.setdefault(loss.step, []).append(loss.loss)
    return _mean_of(by_step)


def _validation(arm: ArmSummary) -> dict[int, Estimate]:
    by_step: dict[int, list[float]] = {}
    for run in arm.runs:
        for step, loss in run.validation_losses.items():
            if math.isfinite(loss):
                by_step.setdefault(step, []).append(loss)
    return _mean_of(by_step)


def _mean_of(by_step: dict[int, list[float]]) -> dict[int, Estimate]:
    found = {step: estimate_mean(values) for step, values in sorted(by_step.items())}
    return {step: estimate for step, estimate in found.items() if estimate is not None}
