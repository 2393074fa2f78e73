"""The command line: options in, messages and exit codes out.

Every command is a few lines that call a part which Python can call as well. Only commands that run
a model import torch.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from lorastudy.cli.audit import audit
from lorastudy.cli.check import check
from lorastudy.cli.compare import compare
from lorastudy.cli.decide import decide
from lorastudy.cli.evaluate import evaluate
from lorastudy.cli.examples import show_examples
from lorastudy.cli.explain import explain
from lorastudy.cli.export import export
from lorastudy.cli.extend import extend
from lorastudy.cli.fsck import fsck
from lorastudy.cli.init import init
from lorastudy.cli.preview import preview
from lorastudy.cli.push import push
from lorastudy.cli.report import report
from lorastudy.cli.run import run
from lorastudy.cli.run_one import run_one
from lorastudy.cli.schema import schema
from lorastudy.cli.status import status
from lorastudy.cli.submit import submit
from lorastudy.cli.table import table
from lorastudy.cli.terminal import (
    is_refused_write,
    prepare_streams,
    show_controls,
    with_plain_output,
)
from lorastudy.cli.variables import find_variable
from lorastudy.errors import (
    NO_ACCESS,
    NO_PATH,
    ConfigError,
    OutOfMemoryError,
    StorageError,
    UserError,
    is_out_of_memory,
    reason_of,
    redact_secrets,
)
from lorastudy.interrupts import drop_lost_output, ending_as_asked
from lorastudy.launch.torchrun import say_exit_code
from lorastudy.version import __version__

_INTERRUPTED_IN_TYPER = 130  # Typer's exit code for a KeyboardInterrupt

app = typer.Typer(
    name="lorastudy",
    help=(
        "Should you fine-tune the whole model or use LoRA, and on which layers? Trains every "
        "variant with several seeds, scores it on held-out text, and reports which differences are "
        "real and what each variant costs.\n\n"
        "Start with:  lorastudy run demo\n\n"
        "Your own texts:  lorastudy init FOLDER"
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, is_asked: bool) -> None:
    if is_asked:
        print(f"lorastudy {__version__}")
        raise typer.Exit


@app.callback()
def _accept_version(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=lambda value: _print_version(is_asked=value),
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options of `lorastudy` itself, before the name of a command."""


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {  # by the title above them in --help
    "Write a study and run it": (init, check, preview, run, extend),
    "Look at its results": (status, table, report, decide, explain),
    "Take models and results away": (export, push),
    "Score models that are trained already": (evaluate, compare, audit),
    "Clusters, verification, editors": (submit, run_one, fsck, schema),
}
for title, functions in _COMMANDS.items():
    for function in functions:
        name = function.__name__.replace("_", "-")
        register = app.command(name, epilog=show_examples(name), rich_help_panel=title)
        register(with_plain_output(function))


def _point_to_help(error: TyperException) -> str:
    """Where to find all commands, or options and examples of the command that was meant."""
    context = getattr(error, "ctx", None)
    if context is None or context.parent is None:
        return "\nAll commands:  lorastudy --help"
    return f"\nOptions and examples:  lorastudy {context.info_name} --help"


def _say_unforeseen(error: Exception) -> int:
    """Say what the system refused, and give the exit code; raise the error if it is another one."""
    if is_refused_write(error):
        said, code = "a write was refused", StorageError.exit_code
        advice = "Make room where the output goes."
    elif is_out_of_memory(error):
        said, code = "there is not enough memory", OutOfMemoryError.exit_code
        advice = (
            "End other programs, or give less at once: shorter texts, a smaller micro-batch or "
            "model."
        )
    elif isinstance(error, OSError) and error.errno in NO_ACCESS:
        said, code = "a file or folder cannot be used", StorageError.exit_code
        advice = "Change its permissions, or use a copy of it."
    elif isinstance(error, OSError) and error.errno in NO_PATH:
        said, code = "no file or folder can have this name", ConfigError.exit_code
        advice = "Give another path."
    elif variable := find_variable(error):
        said = f"a library cannot use the environment variable {variable}"
        code = ConfigError.exit_code
        advice = "Give it another value, or unset it."
    else:
        raise error
    _say(f"{said} ({redact_secrets(reason_of(error))}). {advice}")
    return code


def _say(message: str) -> None:
    """Print why the command ends, if anybody reads it."""
    drop_lost_output()
    print(f"lorastudy: {show_controls(message)}", file=sys.stderr)


def _refuse_lost_folder() -> None:
    """Refuse a current folder that was deleted, in which torch's libraries cannot be loaded.

    Raises:
        ConfigError: It was.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the current folder cannot be used ({error.strerror}). Go to another one with cd, "
            "then run the command again."
        ) from error


def main() -> None:
    """Run the command line and exit with the code that the documentation promises."""
    prepare_streams()
    try:
        _refuse_lost_folder()
        with ending_as_asked():
            code = app(standalone_mode=False)
        if code == _INTERRUPTED_IN_TYPER:
            raise typer.Abort
        sys.stdout.flush()  # here, where a full disk can still be said
    except UserError as error:
        _say(redact_secrets(str(error)))
        code = error.exit_code
    except TyperException as error:
        if message := error.format_message():  # none after the help of a lone `lorastudy`
            _say(f"{message}{_point_to_help(error)}")
        code = 2
    except typer.Abort:
        _say("interrupted; run the same command again to continue.")
        code = 75
    except BrokenPipeError:
        code = 0  # the reader of our output, such as `head`, has closed it
    except Exception as error:
        code = _say_unforeseen(error)
    code = code if isinstance(code, int) else 0
    say_exit_code(code)
    sys.exit(code)
