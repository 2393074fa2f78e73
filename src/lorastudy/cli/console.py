"""The console that tables are drawn on: text is taken as it is, and never obeyed."""

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lorastudy.cli.terminal import PlainStream, show_controls


class _PlainConsole(Console):
    """A console whose own colours and cursor movements are the only ones."""

    def on_broken_pipe(self) -> None:
        """Let the command line say how it ends, as where `head` has closed any other output."""
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(show_controls(segment.text), segment.style)


def make_console(width: int | None = None) -> Console:
    """A console on standard output that takes text as it is: no markup, no emoji codes."""
    stream = sys.stdout
    file = stream.stream if isinstance(stream, PlainStream) else stream
    return _PlainConsole(file=file, width=width, highlight=False, markup=False, emoji=False)
