"""`python -m lorastudy` is the command line.

Signals are seen to before anything else is imported, so that a command which is told to stop in its
first second ends as one that is told later: with exit code 75.
"""

import os
import signal
from types import FrameType

_INTERRUPTED = 75  # the exit code of InterruptedRunError, whose module is not imported yet


def main() -> None:
    """Run the command line and exit with the contract's code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    from lorastudy.interrupts import end_on_signals, ending_as_asked
    from lorastudy.threads import let_crowded_threads_sleep

    end_on_signals()
    let_crowded_threads_sleep()
    with ending_as_asked():
        from lorastudy.cli import main as run_command_line

    run_command_line()


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"lorastudy: interrupted; run the same command again to continue.\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
