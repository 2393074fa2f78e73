"""Options that several commands share, and what they mean together."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorastudy.cli.completion import complete_presets
from lorastudy.errors import ConfigError
from lorastudy.store.records import Strategy

if TYPE_CHECKING:
    from lorastudy.launch.assignment import TeamOptions

Mirror = Annotated[
    Path | None,
    typer.Option(help="Folder laid out like the hub, looked at before the cache and the hub."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
AllowDrift = Annotated[
    bool,
    typer.Option("--allow-drift", help="Resume in another environment; the report shows it."),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Train unfinished runs again from their start.")
]
Launch = Annotated[
    Literal["processes", "torchrun"],
    typer.Option(help="processes: one for each run; torchrun: several for one run."),
]
Nproc = Annotated[
    int | None,
    typer.Option(min=1, help="torchrun: processes of a run; default: one for each GPU."),
]
SharedBy = Annotated[
    Strategy | None,
    typer.Option(help="torchrun: each process holds the model (ddp, default) or a part (fsdp2)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value, e.g. training.epochs=2."),
]
Reference = Annotated[
    bool,
    typer.Option(
        "--reference", help="transformers + PEFT as they are, in place of the fast implementation."
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
Out = Annotated[Path | None, typer.Option(help="Folder; default studies/NAME.")]
BenchmarkName = Annotated[
    str, typer.Option(help="wikitext-2, lambada, imdb, another preset's, or a text file.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="First documents only.")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16.")]
StudyDir = Annotated[Path, typer.Argument(help="Study folder.", metavar="DIR")]


def check_device(device: str) -> None:
    """Refuse a device name that does not exist.

    Raises:
        ConfigError: Not auto, cpu or cuda.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: use auto, cpu or cuda.")


def check_arithmetic(device: str, precision: str) -> None:
    """Refuse a device or a precision that does not exist.

    Raises:
        ConfigError: The device is not auto, cpu or cuda; the precision not float32 or bfloat16.
    """
    check_device(device)
    if precision not in ("float32", "bfloat16"):
        raise ConfigError(f"--precision {precision}: use float32 or bfloat16.")


def choose_team(
    launch: str, n_processes: int | None, strategy: Strategy | None, *, n_gpus: int
) -> "TeamOptions | None":
    """The processes of every run; None: one, without torchrun.

    Raises:
        ConfigError: Options that do nothing without torchrun, no number of processes, or more
            than there are GPUs.
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
    """Columns of the terminal, or 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


@contextmanager
def progress_on(*, is_stderr: bool) -> Iterator[None]:
    """Where progress goes: beside JSON on standard output it goes to standard error."""
    if not is_stderr:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: object) -> None:
    """Print one JSON value to standard output; paths become text."""
    print(json.dumps(value, indent=1, default=str))
