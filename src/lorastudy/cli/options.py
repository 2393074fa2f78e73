"""Options that several commands share, and what they mean together."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorastudy.config.mistakes import nearest
from lorastudy.config.models import Study
from lorastudy.config.study_file import list_presets, load_study, preset_text, read_study_file
from lorastudy.errors import ConfigError
from lorastudy.store.collect import read_study
from lorastudy.store.files import read_record
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places, default_cache
from lorastudy.store.records import FoundAt, Strategy

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
StudyDir = Annotated[Path, typer.Argument(help="Study folder.", metavar="DIR")]


@dataclass(frozen=True, slots=True)
class OpenedStudy:
    """A study as a command was asked for it."""

    study: Study
    folder: StudyFolder
    places: Places


def open_study(
    name: str,
    *,
    out: Path | None,
    overrides: list[str] | None,
    mirror: Path | None,
    offline: bool,
) -> OpenedStudy:
    """Read a preset, a YAML file or an existing study folder.

    Raises:
        ConfigError: None of them, or options that do not go together.
    """
    check_mirror(mirror)
    path = Path(name)
    is_preset = name in list_presets()
    if StudyFolder(path).study.is_file() or (path.is_dir() and not is_preset):
        return _open_folder(path, out, overrides, mirror, offline)
    if is_preset:
        study = load_study(preset_text(name), f"preset {name}", overrides or ())
        base = Path.cwd()
    elif path.suffix in (".yaml", ".yml") or path.is_file():
        study = read_study_file(path, overrides or ())
        base = path.resolve().parent
    else:
        raise ConfigError(
            f"{name!r} is no preset ({', '.join(list_presets())}), no YAML file and no study "
            f"folder{nearest(name, list_presets())}. "
            "`lorastudy init demo` writes a study file to start from."
        )
    folder = StudyFolder(out or Path("studies") / study.name)
    return OpenedStudy(study, folder, Places(base, mirror, offline, default_cache()))


def _open_folder(
    path: Path,
    out: Path | None,
    overrides: list[str] | None,
    mirror: Path | None,
    offline: bool,
) -> OpenedStudy:
    if overrides or (out is not None and out.resolve() != path.resolve()):
        raise ConfigError(
            f"{path} is the folder of a study that was started; --set and --out do not change it. "
            "Copy its study.yaml and run the copy."
        )
    folder = StudyFolder(path)
    study = read_study(folder)
    return OpenedStudy(study, folder, stored_places(folder, mirror, offline))


def stored_places(folder: StudyFolder, mirror: Path | None, offline: bool) -> Places:
    """Where a started study found its inputs; a given mirror comes first."""
    base = Path.cwd()
    if folder.places.is_file():
        found = read_record(folder.places, FoundAt)
        base = Path(found.base) if Path(found.base).is_dir() else base
        if mirror is None and found.mirror and Path(found.mirror).is_dir():
            mirror = Path(found.mirror)
    return Places(base, mirror, offline, default_cache())


def check_mirror(mirror: Path | None) -> None:
    """Refuse a mirror that is not there.

    Raises:
        ConfigError: It is no folder.
    """
    if mirror is not None and not mirror.is_dir():
        raise ConfigError(f"--mirror {mirror}: no such folder. Give one laid out like the hub.")


def check_device(device: str) -> None:
    """Refuse a device name that does not exist.

    Raises:
        ConfigError: Not auto, cpu or cuda.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {device}: use auto, cpu or cuda.")


def check_precision(precision: str) -> None:
    """Refuse a precision that does not exist.

    Raises:
        ConfigError: Not float32 or bfloat16.
    """
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
