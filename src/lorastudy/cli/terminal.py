"""What reaches the terminal: names, columns and reasons are shown there, and never obeyed.

Study files, data files and folders of other people may contain escape sequences, markup and
characters that the terminal cannot show. This is the one place that makes them harmless.
"""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import wraps
from io import TextIOWrapper
from typing import Any, TextIO

# control characters except tab and newline; characters that reverse the direction of writing
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_SHOWN = "\N{REPLACEMENT CHARACTER}"


def show_controls(text: str) -> str:
    """`text` with a visible character in place of each one that a terminal would obey."""
    return _OBEYED.sub(_SHOWN, text)


class PlainStream:
    """A text stream whose reader gets no control characters; everything else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write `text` with its control characters replaced."""
        return self.stream.write(show_controls(text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def with_plain_output(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with everything that it prints to standard output made harmless."""

    @wraps(command)
    def print_plainly(*arguments: Any, **options: Any) -> None:
        with redirect_stdout(PlainStream(sys.stdout)):
            command(*arguments, **options)

    return print_plainly


def prepare_streams() -> None:
    """Let output that the terminal's encoding does not have become "?", in place of an error.

    Output to a stream that is closed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_refused_write(error: Exception) -> bool:
    """Whether a disk or device took no more; what standard output still holds is dropped then."""
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return False
    try:
        sys.stdout.flush()
    except OSError:  # it would be tried once more when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
