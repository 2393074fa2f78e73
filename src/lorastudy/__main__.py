"""`python -m lorastudy` is the command line.

Signals are seen to before the command line is imported, so that a command which is told to stop
in its first second ends as one that is told later: with exit code 75.
"""

import sys

from lorastudy.interrupts import interrupt_on_signals


def main() -> None:
    """Run the command line and exit with the contract's code."""
    interrupt_on_signals()
    try:
        from lorastudy.cli import main as run_command_line

        run_command_line()
    except KeyboardInterrupt:
        print("lorastudy: interrupted; run the same command again to continue.", file=sys.stderr)
        sys.exit(75)


if __name__ == "__main__":
    main()
