"""`python -m lorastudy` is the command line.

Signals are seen to before the command line is imported, so that a command which is told to stop
in its first second ends as one that is told later: with exit code 75.
"""

from lorastudy.interrupts import end_on_signals, ending_as_asked


def main() -> None:
    """Run the command line and exit with the contract's code."""
    end_on_signals()
    with ending_as_asked():
        from lorastudy.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
