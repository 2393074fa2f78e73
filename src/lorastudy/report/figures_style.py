"""How all figures look, and how they are written: the same bytes for the same numbers.

Arms differ by colour, hatch, marker and line style at once: they stay apart in grey and for
any colour vision. Text stays text in the SVG files. Files carry no date and no version.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.figure import Figure

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = ("svg", "png", "pdf")

INK = "#1b2733"  # all text and lines; the page replaces it by the colour of its own text
WIDTH_INCHES = 8.0

# Okabe and Ito's palette, ordered so that neighbours differ in lightness too.
COLOURS = ("#7f7f7f", "#d55e00", "#56b4e9", "#0072b2", "#e69f00", "#009e73", "#cc79a7")
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "oo", "++")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
DASHES: tuple[tuple[int, tuple[float, ...]], ...] = (
    (0, ()),
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (3, 1)),
)

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "lorastudy",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": INK,
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
_METADATA: dict[Format, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": {"Software": None},
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """One figure in all formats, with the words that stand with it."""

    name: str  # file name without extension
    title: str
    caption: str
    files: Mapping[Format, bytes]


def save_figure(figure: Figure, name: str, title: str, caption: str) -> DrawnFigure:
    """The figure in every format, with nothing in it that changes from one time to the next."""
    files: dict[Format, bytes] = {}
    for extension in FORMATS:
        stream = io.BytesIO()
        figure.savefig(
            stream,
            format=extension,
            dpi=160,
            transparent=extension == "svg",
            metadata=_METADATA[extension],
        )
        files[extension] = stream.getvalue()
    return DrawnFigure(name, title, caption, files)
