"""`push`: upload an exported model to the hub. Nothing leaves the machine without --really."""

from pathlib import Path
from typing import Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.options import AsJson
from lorastudy.errors import ConfigError, InputError, first_line


def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `export` wrote.", metavar="FOLDER")],
    repository: Annotated[str, typer.Argument(help="Hub id, owner/name.", metavar="REPO")],
    really: Annotated[
        bool, typer.Option("--really", help="Upload; without it, only say what would be uploaded.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload an exported model to the hub. Without --really nothing leaves this machine."""
    if not (folder / "README.md").is_file() or not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} is not an exported model: README.md and safetensors files are missing. "
            "Write one with `lorastudy export DIR RUN --to FOLDER`."
        )
    _check_repository(repository)
    visibility = "public" if public else "private"
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.glob("**/*"))
        if path.is_file()
    }
    if not as_json:
        for name, n_bytes in sizes.items():
            print(f"{n_bytes:>14,}  {name}")
    address = _upload(folder, repository, is_private=not public) if really else None
    if as_json:
        plan = {"repository": repository, "visibility": visibility, "bytes": sizes}
        options.print_json({**plan, "uploaded": address})
    elif address is None:
        print(f"Would upload to the {visibility} repository {repository}. Add --really to do it.")
    else:
        print(f"Uploaded: {address}")


def _check_repository(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"REPO: {error}") from error
    if "/" not in name:
        raise ConfigError(f"REPO {name}: name the owner as well, such as my-team/{name}.")


def _upload(folder: Path, repository: str, *, is_private: bool) -> str:
    """The address of what was uploaded.

    Raises:
        InputError: The hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, private=is_private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(
            f"{repository}: the upload failed ({first_line(error)}). "
            "Check the name, the network and `hf auth login`."
        ) from error
