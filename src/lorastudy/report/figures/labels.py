"""Names of arms in a column to the right of a panel, so that no name covers another.

Names beside the dots would cover each other as soon as two arms are alike. In the column they stand
in the order of the values, each with the arm's marker, as near to the height of its dot as the
others leave room. A thin line leads from each name to its dot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression

from lorastudy.report.figures.style import colour_of, draw_dot, mark, shorten

LINE_POINTS = 11.0  # from one name to the next
_MARKER_POINTS, _TEXT_POINTS = 9.0, 16.0  # to the right of the panel
_LEADER_POINTS = 12.0  # from a name to the left, over its marker


@dataclass(frozen=True, slots=True)
class Label:
    """The name of one arm, and where the arm is drawn."""

    position: int  # of the arm in the study
    name: str
    value: float  # on the vertical axis
    x: float | None  # of its dot; None: it is a line across the panel, or outside
    note: str = ""  # behind the name
    hint: str = ""
    is_filled: bool = True


def label_at_right(axes: Axes, labels: Sequence[Label], *, height_points: float) -> None:
    """Write the names; the limits of the vertical axis must be final.

    The panel is at least `height_points` high, which is LINE_POINTS for each name or more.
    """
    if not labels:
        return
    low, high = axes.get_ylim()
    ordered = sorted(labels, key=lambda label: label.value)
    wanted = [(label.value - low) / (high - low) for label in ordered]
    for label, place in zip(ordered, spread_out(wanted, LINE_POINTS / height_points), strict=True):
        _write(axes, label, place, is_inside=low <= label.value <= high)


def spread_out(wanted: Sequence[float], gap: float) -> list[float]:
    """Places from 0 to 1, at least `gap` apart, as near as possible to those that are `wanted`.

    `wanted` ascends. The sum of the squared distances is the smallest that is possible.
    """
    steps = gap * np.arange(len(wanted))
    free = isotonic_regression(np.clip(wanted, 0, 1) - steps).x
    return [float(place) for place in np.clip(free, 0, 1 - steps[-1]) + steps]


def _write(axes: Axes, label: Label, place: float, *, is_inside: bool) -> None:
    figure = axes.get_figure(root=True)
    at_marker, at_text = (
        offset_copy(axes.transAxes, figure, x, 0, units="points")
        for x in (_MARKER_POINTS, _TEXT_POINTS)
    )
    leader = {
        "arrowstyle": "-",
        "linewidth": 0.5,
        "color": colour_of(label.position),
        "relpos": (0, 0.5),
        "patchA": None,
        "shrinkA": 0 if label.x is None else _LEADER_POINTS,
        "shrinkB": 0,
    }
    written = axes.annotate(
        f"{shorten(label.name)}{label.note}",
        (1.0 if label.x is None else label.x, label.value),
        xycoords=axes.get_yaxis_transform() if label.x is None else "data",
        xytext=(1.0, place),
        textcoords=at_text,
        va="center",
        fontsize=8,
        annotation_clip=False,
        arrowprops=leader if is_inside else None,
    )
    mark(written, label.position)
    if written.arrow_patch is not None:
        mark(written.arrow_patch, label.position)
    if label.x is not None:
        draw_dot(
            axes,
            (1.0, place),
            label.position,
            label.hint,
            is_filled=label.is_filled,
            transform=at_marker,
            clip_on=False,
            markersize=5,
        )
