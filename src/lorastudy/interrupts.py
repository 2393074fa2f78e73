"""Signals set a flag, which the program checks where stopping is safe.

The first SIGINT, SIGTERM, SIGUSR1 or SIGUSR2 asks for a checkpoint and an orderly end (exit 75). So
does SIGHUP, which a terminal sends when it closes, unless nohup lets the program ignore it. A
second SIGINT ends the process at once, and only the last checkpoint remains.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from lorastudy.errors import InterruptedRunError

# clusters send USR1 or USR2 some time before they end a job
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_asked = threading.Event()  # whether one of them asked this program to end at once


def signals_to_hear() -> tuple[signal.Signals, ...]:
    """The signals that ask for an end, without a SIGHUP that nohup lets this program ignore."""
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return _SIGNALS if is_ignored else (*_SIGNALS, signal.SIGHUP)


def drop_lost_output() -> None:
    """Let what is printed where nobody reads any more go nowhere, in place of an error.

    That is a terminal that is closed, or a pipe whose reader has ended.
    """
    for output in (1, 2):
        readers = select.poll()
        readers.register(output, 0)  # reports only that there is none
        if readers.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)


def end_on_signals() -> None:
    """Let each of the signals end this program with exit code 75, until a `StopFlag` listens.

    For a program that is still starting and has nothing to save. Main thread only.
    """
    for number in signals_to_hear():
        signal.signal(number, _end)
    sys.unraisablehook = _end_unheard


@contextlib.contextmanager
def ending_as_asked() -> Iterator[None]:
    """End the program as a signal of `end_on_signals` asked, also if it became another error.

    Libraries that are imported when they are first needed turn what is raised meanwhile into an
    error of their own, or pass over it.
    """
    _asked.clear()
    try:
        yield
    except Exception:
        if not _asked.is_set():
            raise
        raise SystemExit(InterruptedRunError.exit_code) from None
    if _asked.is_set():
        raise SystemExit(InterruptedRunError.exit_code)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes that are started in the block begin with the signals blocked, and so do their own.

    What arrives there waits until a `StopFlag` listens. This process answers after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals_to_hear())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, frame: FrameType | None) -> None:
    _asked.set()
    drop_lost_output()
    os.write(2, b"lorastudy: interrupted; run the same command again to continue.\n")
    # Not KeyboardInterrupt: if it passes through `exec` of a string, as in many imports, Python
    # ends by SIGINT even if it is caught later.
    raise SystemExit(InterruptedRunError.exit_code)


def _end_unheard(error: "sys.UnraisableHookArgs") -> None:
    """End here if a signal came while Python ran something that cannot raise, such as __del__."""
    if _asked.is_set() and isinstance(error.exc_value, SystemExit):
        os._exit(InterruptedRunError.exit_code)
    sys.__unraisablehook__(error)


@dataclass
class StopFlag:
    """Whether somebody asked this process to stop."""

    requested: bool = False
    agree: Callable[[bool], bool] = bool  # of a team: whether any member was asked
    _was_interrupted: bool = False

    def listen(self) -> None:
        """Set the flag when one of the signals arrives, or waits already; main thread only."""
        for number in signals_to_hear():
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals_to_hear())  # see `signals_blocked`

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._was_interrupted:
                os._exit(130)
            self._was_interrupted = True
        drop_lost_output()
        self.requested = True

    def follow(self, wait: Callable[[], object]) -> None:
        """Set the flag when `wait` returns or fails: the process that started this one has died."""

        def watch() -> None:
            with contextlib.suppress(EOFError, OSError):
                wait()
            self.requested = True

        threading.Thread(target=watch, daemon=True).start()

    def is_requested(self) -> bool:
        """Whether this process, or another one that works on the same run, was asked to stop.

        Members of a team ask each other, so all of them have to call this in the same places.
        """
        return self.agree(self.requested)

    def poll(self) -> None:
        """Stop here if this was asked for; in a team, either all members stop or none.

        Raises:
            InterruptedRunError: Stopping was asked for (exit 75).
        """
        if self.is_requested():
            raise InterruptedRunError(
                "interrupted; finished work is kept. Run the same command again to continue."
            )
