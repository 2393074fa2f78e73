"""Figures tell arms apart: names never cover each other, and marks differ on both papers."""

from itertools import combinations
from math import dist
from pathlib import Path
from random import Random
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from lorastudy.report.figures import verdict
from lorastudy.report.figures.labels import spread_out
from lorastudy.report.figures.style import COLOURS, SETTINGS, outline_of, style_of
from support.made_studies import BENCHMARKS, make_study

MOST_ARMS = 14
PAPERS = ("#ffffff", "#14191e")  # --paper of the page in both themes


def make_random_study(folder: Path, n_arms: int) -> Any:
    """Arms with names of any length, some alike in cost and quality, and perhaps a baseline."""
    random = Random(n_arms)
    names = [f"arm-{n}-{'wide-name-' * random.randrange(4)}" for n in range(n_arms - 1)]
    centre = random.choice((3.0, 40.0))
    spread = random.choice((0.0, 0.01, 0.5))
    perplexities = {name: centre * (1 + spread * random.random()) for name in ["full", *names]}
    if random.random() < 0.7:
        perplexities["baseline"] = centre * random.choice((0.99, 1.2, 30))
    sizes = {name: {"trainable_parameters": random.choice((1000, 1010, 10**6))} for name in names}
    benchmarks = BENCHMARKS[: random.randrange(1, 4)]
    scores = {arm: dict.fromkeys(benchmarks, value) for arm, value in perplexities.items()}
    return make_study(folder, scores, benchmarks=benchmarks, runs=sizes)


def draw(findings: Any, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """Figure 0, laid out as it is saved."""
    drawn: list[Figure] = []
    monkeypatch.setattr(verdict, "save_figure", lambda figure, *rest: drawn.append(figure))
    with matplotlib.rc_context(SETTINGS):
        verdict.draw_verdict(findings)
        FigureCanvasAgg(drawn[0])
        drawn[0].draw_without_rendering()
    return drawn[0]


def list_texts(figure: Figure) -> list[Text]:
    """All texts that are seen; an axis also has labels of ticks outside of it."""
    outside = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    texts = figure.findobj(Text)
    return [t for t in texts if t.get_text() and t.get_visible() and t not in outside]


@pytest.mark.parametrize("n_arms", (2, 5, 9, MOST_ARMS))
def test_no_text_in_figure_0_covers_another_or_leaves_the_picture(
    n_arms: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = draw(make_random_study(tmp_path, n_arms), monkeypatch)
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in list_texts(figure)]
    assert sum(name.startswith("arm-") for name, _ in boxes) >= n_arms - 1
    for (one, first), (other, second) in combinations(boxes, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width <= 0 or height <= 0, (one, other)
    for name, box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, name


@given(
    wanted=st.lists(st.floats(-1, 2), min_size=1, max_size=MOST_ARMS).map(sorted),
    gap=st.floats(0.0, 1 / MOST_ARMS),
)
def test_names_keep_their_order_and_distance_and_move_no_farther_than_needed(
    wanted: list[float], gap: float
) -> None:
    places = spread_out(wanted, gap)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert all(np.diff(places) >= gap - 1e-9)
    inside = [min(max(place, 0), 1) for place in wanted]
    if all(np.diff(inside) >= gap):
        assert places == pytest.approx(inside)


def lightness_and_hue(colour: str) -> tuple[float, ...]:
    """OKLab, in which distances are about as large as they look (Ottosson 2020)."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ linear
    )
    return tuple(
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ cones
    )


def luminance(colour: str) -> float:
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_fourteen_colours_differ_and_are_seen_on_white_and_on_dark() -> None:
    assert len(COLOURS) >= MOST_ARMS
    for one, other in combinations(map(lightness_and_hue, COLOURS), 2):
        assert dist(one, other) > 0.11
    for paper in PAPERS:
        for colour in COLOURS:
            low, high = sorted((luminance(paper), luminance(colour)))
            assert (high + 0.05) / (low + 0.05) > 2, (paper, colour)


def test_arms_differ_in_colour_and_shape_together() -> None:
    styles = [style_of(position) for position in range(100)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 100
    assert len({outline_of(position) for position in range(MOST_ARMS)}) == MOST_ARMS
