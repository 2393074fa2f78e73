"""How all figures look.

Arms differ by colour, hatch, marker and line style at once: they stay apart in grey and for
any colour vision. They are written by `writing.py`.

In SVG files, everything that belongs to an arm is marked: `<g class="arm-2">` for the third arm
of the study, with a `<title>` for each point, which browsers show under the pointer.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Affine2D

from lorastudy.analysis.summary import ArmSummary
from lorastudy.report.numerals import write_compact

INK = "#1b2733"  # all text and lines; the page replaces it by the colour of its own text
WIDTH_INCHES = 8.0
MARK = "lorastudy-arm"  # begins the gid of what belongs to an arm
_LONGEST_NAME = 24  # characters
_LEGEND_LINE_POINTS = 40  # width of an entry without its name

# Okabe and Ito's palette, then seven more. Neighbours differ in lightness too, and all of them are
# seen on white and on the dark page.
COLOURS = (
    *("#7f7f7f", "#d55e00", "#56b4e9", "#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#8f4ee6", "#8fbf1a", "#a31a5b", "#f05bd8", "#4d7a12", "#3a3fd0", "#8f4a1a"),
)
HATCHES = ("", "//", "--", "\\\\", "xx", "||", "++")
# one more than there are colours: arms of the same colour differ in shape
Marker = str | tuple[int, int, int]
MARKERS: tuple[Marker, ...] = (
    *("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p", "d"),
    *((4, 1, 0), (3, 1, 0)),  # stars with four and with three points
)
DASHES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (0, ()),
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (3, 1)),
    (0, (8, 1.5, 1.5, 1.5, 1.5, 1.5)),
)

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "lorastudy",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "hatch.linewidth": 0.6,
    "path.simplify": False,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


def new_figure(height_inches: float, *, width_inches: float = WIDTH_INCHES) -> Figure:
    """An empty figure, by default as wide as the page."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def mark(artist: Artist, position: int, hints: Sequence[str] = ()) -> None:
    """Mark what is drawn of the arm at `position`, with one hint for it, or one for each point.

    The mark travels as the artist's gid, which only SVG knows, and is read in `writing.py`.
    """
    artist.set_gid(quote(json.dumps([MARK, position, *hints])))


def colour_of(position: int) -> str:
    """The colour of the arm at `position` in the study."""
    return COLOURS[position % len(COLOURS)]


def style_of(position: int) -> dict[str, Any]:
    """Colour, marker and dashes of the arm at `position` in the study."""
    return {
        "color": colour_of(position),
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": DASHES[position % len(DASHES)],
    }


def outline_of(position: int) -> str:
    """The marker of the arm at `position`, as the path of an SVG from -10 to 10."""
    marker = MarkerStyle(MARKERS[position % len(MARKERS)])
    transform = marker.get_transform() + Affine2D().scale(16, -16)
    outlines = marker.get_path().transformed(transform).to_polygons()
    points = [f"{x:.1f},{y:.1f}" for x, y in np.asarray(outlines[0])]
    return f"M{'L'.join(points)}Z"


def draw_dot(
    axes: Axes,
    at: tuple[float, float],
    position: int,
    hint: str,
    *,
    is_filled: bool = True,
    **style: Any,
) -> None:
    """One dot of the arm at `position`; an open one has the arm's colour as its edge."""
    colour = colour_of(position)
    (dot,) = axes.plot(
        *at,
        linestyle="none",
        marker=MARKERS[position % len(MARKERS)],
        mec=INK if is_filled else colour,
        mfc=colour if is_filled else "none",
        **style,
    )
    mark(dot, position, [hint])


def draw_line(
    axes: Axes, x: Sequence[float], y: Sequence[float], position: int, **style: Any
) -> None:
    """A plain line of the arm at `position`, such as an interval."""
    (line,) = axes.plot(x, y, color=colour_of(position), **style)
    mark(line, position)


def count_on_logarithmic_axis(axes: Axes, *, n_ticks: int) -> None:
    """Make the horizontal axis logarithmic, with at most `n_ticks` round numbers on it."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=n_ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write_compact(value)))


def label_rows(axes: Axes, arms: Sequence[tuple[int, str]]) -> None:
    """One row for each (position, name), the first on top."""
    axes.set_yticks(range(len(arms)), [shorten(arm) for _, arm in arms])
    for label, (position, _) in zip(axes.get_yticklabels(), arms, strict=True):
        mark(label, position)
    axes.set_ylim(max(len(arms), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def shorten(name: str) -> str:
    """A name that fits beside a panel."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def add_legend(figure: Figure, arms: Sequence[tuple[int, ArmSummary]]) -> None:
    """One entry for each (position, arm) below the panels; none without arms."""
    if not arms:
        return
    handles = [Line2D([], [], markersize=4.5, linewidth=1.5, **style_of(p)) for p, _ in arms]
    blank = ["arm"] * len(arms)  # names go in below: a legend leaves out "_x"
    longest = max(len(shorten(arm.arm)) for _, arm in arms)
    n_columns = int(72 * figure.get_figwidth() / (_LEGEND_LINE_POINTS + 6 * longest))
    legend = figure.legend(
        handles,
        blank,
        loc="outside lower center",
        ncols=min(6, n_columns, len(arms)),
        frameon=False,
    )
    drawn = zip(legend.get_texts(), legend.get_lines(), arms, strict=True)
    for text, line, (position, arm) in drawn:
        text.set_text(shorten(arm.arm))
        mark(text, position)
        mark(line, position)
