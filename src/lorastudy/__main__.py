"""`python -m lorastudy` is the command line.

Signals are seen to before anything else is imported, so that a command which is told to stop in its
first second ends as one that is told later: with exit code 75.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

_USAGE = 2  # the exit code of ConfigError
_INTERRUPTED = 75  # the exit code of InterruptedRunError, whose module is not imported yet


def main() -> None:
    """Run the command line and exit with the contract's code."""
    if sys.flags.optimize > 1:
        print(
            "lorastudy: Python leaves out docstrings (-OO or PYTHONOPTIMIZE=2), which transformers "
            "and --help need. Run the command without it.",
            file=sys.stderr,
        )
        sys.exit(_USAGE)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # see nohup
            signal.signal(number, _end_at_once)
    from lorastudy.interrupts import end_on_signals, ending_as_asked
    from lorastudy.threads import let_crowded_threads_sleep

    end_on_signals()
    let_crowded_threads_sleep()
    with ending_as_asked():
        from lorastudy.cli import main as run_command_line

    run_command_line()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # the terminal is closed
        os.write(2, b"lorastudy: interrupted; run the same command again to continue.\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
