"""Options that several commands share, and what they mean together."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorastudy.cli.completion import complete_presets
from lorastudy.cli.terminal import PlainStream
from lorastudy.errors import ConfigError
from lorastudy.store.collect import list_doubts
from lorastudy.store.folders import StudyFolder
from lorastudy.store.records import Strategy
from lorastudy.units import write_json

if TYPE_CHECKING:
    from lorastudy.launch.assignment import TeamOptions


def named_path(text: str) -> Path:
    """A path of the command line; an empty one would mean the current folder unsaid.

    Raises:
        BadParameter: It is empty, as after a variable of the shell that is not set.
    """
    if not text.strip():
        raise typer.BadParameter("the path is empty; write . for the current folder")
    return Path(text)


def known_device(device: str) -> str:
    """The name of a device of the command line.

    Raises:
        ConfigError: Not auto, cpu or cuda.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: use auto, cpu or cuda.")
    return device


Mirror = Annotated[
    Path | None,
    typer.Option(
        help="Folder laid out like the hub, searched before the cache and the hub.",
        parser=named_path,
        metavar="PATH",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", callback=known_device)]
AllowDrift = Annotated[
    bool,
    typer.Option(
        "--allow-drift", help="Resume although the environment has changed; the report shows it."
    ),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Train unfinished runs again from the beginning.")
]
_TEAMS = "Several processes for each run"
Launch = Annotated[
    Literal["processes", "torchrun"],
    typer.Option(
        help="processes: one process for each run; torchrun: several processes for each run.",
        rich_help_panel=_TEAMS,
    ),
]
Nproc = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="torchrun: number of processes of a run; default: one for each GPU.",
        rich_help_panel=_TEAMS,
    ),
]
SharedBy = Annotated[
    Strategy | None,
    typer.Option(
        help="torchrun: each process has the whole model (ddp, default) or a part of it (fsdp2).",
        rich_help_panel=_TEAMS,
    ),
]
Padded = Annotated[
    bool,
    typer.Option("--padded", help="Print the scores that count padding as text as well."),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain", help="Show differences with the 95 % interval of each pair alone as well."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value, e.g. training.epochs=2."),
]
Reference = Annotated[
    bool,
    typer.Option(
        "--reference", help="Use transformers + PEFT unchanged instead of the fast implementation."
    ),
]
StudyName = Annotated[
    str,
    typer.Argument(
        help="Preset, YAML file, or study folder.",
        metavar="STUDY",
        autocompletion=complete_presets,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Study folder; default: studies/NAME.", parser=named_path, metavar="PATH"),
]
BenchmarkName = Annotated[
    str,
    typer.Option(
        help="wikitext-2, lambada, imdb, a benchmark of another preset; or a file, a folder or a "
        "pattern such as 'texts/*.md'."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(help="Column that holds the text, in tables; default: text.", show_default=False),
]
SampleBy = Annotated[
    Literal["line", "paragraph", "document"] | None,
    typer.Option(help="What one document is in text files; default: line.", show_default=False),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Score only this many documents, the first ones.")
]
Strip = Annotated[
    bool,
    typer.Option(
        "--strip/--no-strip",
        help="Remove white space around each text, for row protocols; as data.rows.strip.",
    ),
]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16.")]
StudyDir = Annotated[Path, typer.Argument(help="Study folder.", metavar="DIR", parser=named_path)]


def check_precision(device: str, precision: str) -> None:
    """Refuse a precision that does not exist; say on standard error if it is slow.

    Raises:
        ConfigError: It is not float32 or bfloat16.
    """
    if precision not in ("float32", "bfloat16"):
        raise ConfigError(f"--precision {precision}: use float32 or bfloat16.")
    say_slow_precision(device, precision)


def say_slow_precision(device: str, precision: str) -> None:
    """Say on standard error if the device computes far more slowly in `precision`.

    Raises:
        ConfigError: There is no such device here.
    """
    if precision == "bfloat16":
        from lorastudy.machine.environment import choose_device, note_precision

        if note := note_precision(choose_device(device), precision):
            print(f"lorastudy: {note}", file=sys.stderr)


def choose_team(
    launch: str, n_processes: int | None, strategy: Strategy | None, *, n_gpus: int
) -> "TeamOptions | None":
    """The processes of every run; None: one, without torchrun.

    Raises:
        ConfigError: There are options that do nothing without torchrun, or no number of processes,
            or more processes than GPUs.
    """
    from lorastudy.launch.assignment import TeamOptions

    if launch != "torchrun":
        if n_processes is not None or strategy is not None:
            raise ConfigError(
                "--nproc and --strategy are for runs over several processes: "
                "add --launch torchrun. For several runs at once use --jobs."
            )
        return None
    if n_processes is None and not n_gpus:
        raise ConfigError(
            "--launch torchrun: no GPU is visible. Say how many processes share "
            "a run on the CPU, e.g. --nproc 2."
        )
    if n_gpus and n_processes is not None and n_processes > n_gpus:
        raise ConfigError(
            f"--nproc {n_processes}: each process needs a GPU of its own, and {n_gpus} are "
            f"visible. Use --nproc {n_gpus}, or --device cpu."
        )
    return TeamOptions(n_processes or n_gpus, strategy or "ddp")


def console_width() -> int:
    """Columns of the terminal, or 100 if there is none."""
    return shutil.get_terminal_size((100, 24)).columns


@contextmanager
def progress_on(*, is_stderr: bool) -> Iterator[None]:
    """Where progress is printed: on standard error if JSON goes to standard output."""
    if not is_stderr:
        yield
        return
    with redirect_stdout(PlainStream(sys.stderr)):
        yield


def say_doubts(study: StudyFolder) -> None:
    """Name files that are not what was written, or not verified, on standard error."""
    for doubt in list_doubts(study):
        print(f"lorastudy: {doubt}", file=sys.stderr)


def print_json(value: object) -> None:
    """Print one strict JSON value to standard output."""
    print(write_json(value, indent=1))
