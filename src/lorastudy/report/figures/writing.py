"""Figures as files: SVG, PNG and PDF, the same bytes for the same numbers.

Text stays text in the SVG files. Files carry no date and no version.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal
from urllib.parse import unquote

from fontTools import subset
from fontTools.ttLib import TTFont
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lorastudy.report.figures.style import MARK

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = ("svg", "png", "pdf")

_PNG_DPI = 160
_MARKED_GROUP = re.compile(f'<g id="(%5B%22{MARK}[^"]*)"')  # [" as `quote` writes it
_COORDINATES = re.compile(r' (?:d|x|y|points|transform|width|height)="[^"]*"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_LAYOUT_TABLES = ("GDEF", "GPOS", "GSUB", "MATH", "kern")
_ASKED_AGAIN = ("_update_ticks", "_get_ticklabel_bboxes")  # methods of an axis
_NO_DATE = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """One figure in all formats, with its title and caption."""

    name: str  # file name without extension
    title: str
    caption: str
    files: Mapping[Format, bytes]
    logarithmic: bytes | None = None  # the same as SVG on a logarithmic axis, where it helps


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
            for method in _ASKED_AGAIN:
                delattr(axes.yaxis, method)
            axes.set_yscale("log")
        logarithmic = _print_svg(figure)
    return DrawnFigure(name, title, caption, {key: files[key] for key in FORMATS}, logarithmic)


def _lay_out(figure: Figure) -> None:
    """Place everything once, and keep the ticks that belong to these places."""
    axes_of_figure = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    for axis in axes_of_figure:
        for method in _ASKED_AGAIN:
            _compute_once_per_place(axis, method)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    for axis in axes_of_figure:
        _keep_ticks(axis)


def _compute_once_per_place(axis: Axis, method: str) -> None:
    """Let a method of `axis` remember its answer until the axes move or change their size.

    Layout and drawing ask every axis for its ticks and for their boxes, and ask again for every
    other axis that shares a side with it. Boxes in PDF files are therefore those in SVG files.
    """
    compute = getattr(axis, method)
    known: dict[tuple[float, ...], Any] = {}

    def recall(*arguments: Any) -> Any:
        place = axis.axes.bbox.bounds
        if place not in known:
            known.clear()
            known[place] = compute(*arguments)
        return known[place]

    setattr(axis, method, recall)


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
    load = subset.load_font

    def load_without_layout(*arguments: Any, **options: Any) -> TTFont:
        font = load(*arguments, **options)
        for table in _LAYOUT_TABLES:
            if table in font:
                del font[table]
        return font

    subset.load_font = load_without_layout
    try:
        yield
    finally:
        subset.load_font = load


def _place_marks(svg: str) -> str:
    """Turn the gids of `mark` into classes and titles, and make the file smaller.

    Comments are removed, since they repeat every text. Coordinates are rounded to a hundredth of
    a point.
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
