"""`python -m lorastudy` is the command line.

Signals are seen to before the command line is imported, so that a command which is told to stop
in its first second ends as one that is told later: with exit code 75. How threads wait is chosen
here as well, since that has to be done before torch is loaded.
"""

from lorastudy.interrupts import end_on_signals
from lorastudy.threads import let_threads_sleep


def main() -> None:
    """Run the command line and exit with the contract's code."""
    end_on_signals()
    let_threads_sleep()
    from lorastudy.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
