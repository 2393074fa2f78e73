"""Figures drawn by two processes: this one, and a forked copy of it, which has all findings too.

Both take the next figure that neither has taken, until none is left. The copy sends what it drew,
and ends. What it does not send is drawn here, so a copy that fails costs time and nothing else.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import NoReturn

from lorastudy.interrupts import signals_to_hear
from lorastudy.report.figures.writing import DrawnFigure

Drawing = Callable[[], DrawnFigure]


def draw_all(drawings: Sequence[Drawing]) -> tuple[DrawnFigure, ...]:
    """The figures in their order."""
    drawn = _draw_in_two(drawings) if _can_fork() else {}
    return tuple(drawn.get(number) or draw() for number, draw in enumerate(drawings))


def _draw_in_two(drawings: Sequence[Drawing]) -> dict[int, DrawnFigure]:
    """The figures by their numbers; those of a copy that failed are missing."""
    # the numbers of the figures lie in a pipe, from which each process takes one at a time
    take, give = os.pipe()
    os.write(give, bytes(range(len(drawings))))
    os.close(give)
    receiver, sender = Pipe(duplex=False)
    if (copy := _fork()) == 0:
        receiver.close()  # only the process itself reads: without it, sending fails
        _draw_and_end(drawings, take, sender)
    sender.close()
    try:
        with receiver:
            drawn = _draw_taken(drawings, take)
            with suppress(EOFError, OSError):  # it ended without an answer
                drawn |= receiver.recv()
        return drawn
    finally:
        os.close(take)
        os.kill(copy, signal.SIGKILL)  # which has ended by now, unless drawing was interrupted
        os.waitpid(copy, 0)


def _can_fork() -> bool:
    """On Linux, with a second core; not beside threads, whose locks a copy would find locked."""
    is_alone = sys.platform == "linux" and threading.active_count() == 1
    return is_alone and len(os.sched_getaffinity(0)) > 1


def _fork() -> int:
    with warnings.catch_warnings():  # about idle threads of libraries, which drawing does not use
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _draw_and_end(drawings: Sequence[Drawing], take: int, sender: Connection) -> NoReturn:
    """What the copy does; it ends without what Python does at the end of a program."""
    for number in signals_to_hear():
        signal.signal(number, signal.SIG_DFL)  # only the process itself answers
    try:
        sender.send(_draw_taken(drawings, take))
    finally:
        os._exit(0)


def _draw_taken(drawings: Sequence[Drawing], take: int) -> dict[int, DrawnFigure]:
    return {number: drawings[number]() for number in _take(take)}


def _take(numbers: int) -> Iterator[int]:
    while number := os.read(numbers, 1):
        yield number[0]
