"""How all figures look, and how they are written: the same bytes for the same numbers.

Arms differ by colour, hatch, marker and line style at once: they stay apart in grey and for
any colour vision. Text stays text in the SVG files. Files carry no date and no version.

What belongs to an arm is marked in the SVG: `<g class="arm-2">` for the third arm of the
study, with a `<title>` for each point, which browsers show under the pointer.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal
from urllib.parse import quote, unquote

from fontTools.subset import Options
from markupsafe import escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = ("svg", "png", "pdf")

INK = "#1b2733"  # all text and lines; the page replaces it by the colour of its own text
WIDTH_INCHES = 8.0
_PNG_DPI = 160
_LONGEST_NAME = 24  # characters

# Okabe and Ito's palette, ordered so that neighbours differ in lightness too.
COLOURS = ("#7f7f7f", "#d55e00", "#56b4e9", "#0072b2", "#e69f00", "#009e73", "#cc79a7")
HATCHES = ("", "//", "--", "\\\\", "xx", "||", "++")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
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
_MARK = "lorastudy-arm"
_MARKED_GROUP = re.compile(f'<g id="(%5B%22{_MARK}[^"]*)"')  # [" as `quote` writes it
_COORDINATES = re.compile(r' (?:d|x|y|points|transform|width|height)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_LAYOUT_TABLES = ("GDEF", "GPOS", "GSUB", "MATH", "kern")
_NO_DATE = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """One figure in all formats, with the words that stand with it."""

    name: str  # file name without extension
    title: str
    caption: str
    files: Mapping[Format, bytes]
    logarithmic: bytes | None = None  # the same as SVG on a logarithmic axis, where it helps


def new_figure(height_inches: float, *, width_inches: float = WIDTH_INCHES) -> Figure:
    """An empty figure; as wide as the page, if nothing else is said."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def mark(artist: Artist, position: int, hints: Sequence[str] = ()) -> None:
    """Mark what is drawn of the arm at `position`, with one hint for it, or one for each point.

    The mark travels as the artist's gid, which only SVG knows, and is read in `save_figure`.
    """
    artist.set_gid(quote(json.dumps([_MARK, position, *hints])))


def style_of(position: int) -> dict[str, Any]:
    """Colour, marker and dashes of the arm at `position` in the study."""
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": DASHES[position % len(DASHES)],
    }


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


def save_figure(
    figure: Figure, name: str, title: str, caption: str, *, log_axes: Sequence[Axes] = ()
) -> DrawnFigure:
    """The figure in every format, with nothing in it that changes from one time to the next.

    Laid out once, and so are the ticks; the canvases are asked directly, since `savefig` draws
    everything twice.
    The y axes of `log_axes` are logarithmic in a second SVG.
    """
    FigureCanvasAgg(figure)
    _lay_out(figure)
    files = {"svg": _print_svg(figure), "png": _print_png(figure), "pdf": _print_pdf(figure)}
    logarithmic = None
    if log_axes:
        for axes in log_axes:
            del axes.yaxis._update_ticks  # type: ignore[attr-defined]  # set by `_keep_ticks`
            axes.set_yscale("log")
        logarithmic = _print_svg(figure)
    return DrawnFigure(name, title, caption, {key: files[key] for key in FORMATS}, logarithmic)


def _lay_out(figure: Figure) -> None:
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        _keep_ticks(axis)


def _keep_ticks(axis: Axis) -> None:
    """Ticks stay as they are: every format would find the same ones, a tenth of its time."""
    ticks = axis._update_ticks()  # type: ignore[attr-defined]
    axis._update_ticks = lambda: ticks  # type: ignore[attr-defined]


def _print_svg(figure: Figure) -> bytes:
    figure.patch.set_facecolor("none")
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata=_NO_DATE)  # type: ignore[no-untyped-call]
    return _place_marks(stream.getvalue().decode()).encode()


def _print_png(figure: Figure) -> bytes:
    figure.patch.set_facecolor("white")
    figure.set_dpi(_PNG_DPI)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return stream.getvalue()


def _print_pdf(figure: Figure) -> bytes:
    figure.patch.set_facecolor("white")
    stream = io.BytesIO()
    metadata = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    with _small_fonts():
        FigureCanvasPdf(figure).print_pdf(stream, metadata=metadata)  # type: ignore[no-untyped-call]
    return stream.getvalue()


@contextmanager
def _small_fonts() -> Iterator[None]:
    """Fonts are embedded without the tables for laying out text, which are slow to cut down.

    Readers of a PDF do not use them: the file says where every glyph stands.
    """
    before = Options._drop_tables_default
    Options._drop_tables_default = [*before, *_LAYOUT_TABLES]
    try:
        yield
    finally:
        Options._drop_tables_default = before


def _place_marks(svg: str) -> str:
    """Gids of `mark` as classes and titles; comments go, since they repeat every text.

    Coordinates keep a hundredth of a point.
    """
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\n +<", ">\n<", svg)
    svg = _COORDINATES.sub(lambda found: _LONG_NUMBER.sub(_round, found[0]), svg)
    head, *parts = _MARKED_GROUP.split(svg)
    marked = (_place_mark(gid, rest) for gid, rest in zip(parts[::2], parts[1::2], strict=True))
    return head + "".join(marked)


def _round(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _place_mark(gid: str, rest: str) -> str:
    """The group that `gid` opens, and what follows up to the next one."""
    _, position, *hints = json.loads(unquote(gid))
    titles = [f"<title>{escape(hint)}</title>" for hint in hints]
    if len(titles) == 1:
        rest = rest.replace(">", f">{titles[0]}", 1)
    elif titles:
        rest = _title_points(rest, titles)
    return f'<g class="arm-{position}"{rest}'


def _title_points(rest: str, titles: Sequence[str]) -> str:
    """A title for each marker, in their order; what follows the last one stays as it is."""
    first, *uses = re.split(r"(?=<use )", rest)
    of_uses = chain(titles, repeat(""))
    return first + "".join(
        use.replace("/>", f">{title}</use>", 1) if title else use
        for use, title in zip(uses, of_uses, strict=False)
    )
