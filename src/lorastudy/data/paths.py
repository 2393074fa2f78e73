"""Files and folders that a study file names."""

from glob import escape, glob
from pathlib import Path

from lorastudy.errors import InputError

_LONGEST_SHOWN = 60  # characters of a path that cannot be one
_POINTERS = {  # by how their files begin
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get"),
}


def local_path(named: str, base: Path, *, key: str) -> Path:
    """A path of a study file, which starts from the folder `base` unless it is absolute.

    Raises:
        InputError: No file can have this path; `key` says where it was named.
    """
    try:
        path = base / Path(named).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a loop, an unknown ~user
        reason = getattr(error, "strerror", None) or str(error)
        shown = named if len(named) <= _LONGEST_SHOWN else f"{named[:_LONGEST_SHOWN]}..."
        raise InputError(f"{key} {shown!r}: {reason.rstrip('.')}. Correct the path.") from error
    return path


def refuse_pointer(path: Path) -> None:
    """Check that a file holds what its name says, and not where another program keeps that.

    Raises:
        InputError: It is such a pointer, or it cannot be read.
    """
    try:
        said = describe_pointer(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    if said:
        raise InputError(f"{path} {said}.")


def describe_pointer(path: Path) -> str:
    """What is wrong with a file that only says where another program keeps the data; or ""."""
    with path.open("rb") as stream:
        head = stream.read(max(map(len, _POINTERS)))
    for begin, (kind, command) in _POINTERS.items():
        if head.startswith(begin):
            return f"is a {kind} pointer, not the data. Fetch the data with `{command}`"
    return ""


def find_files(pattern: str, base: Path) -> tuple[Path, ...]:
    """The files under `base` that match `pattern` (a path, or a glob which may have **), sorted.

    A glob leaves out hidden files, such as those that macOS puts beside others.

    Raises:
        InputError: No file matches, or one file is reached by two names.
    """
    literal = local_path(pattern, base, key="path")
    if literal.is_file():
        return (literal,)
    if literal.is_dir():
        raise InputError(
            f"path {pattern!r}: {literal} is a folder. Name its files, such as {pattern}/*.txt."
        )
    if literal.exists():
        raise InputError(f"path {pattern!r}: {literal} is not a file of texts. Correct it.")
    named = Path(pattern).expanduser()
    whole = str(named) if named.is_absolute() else f"{escape(str(base))}/{named}"
    found = sorted(Path(name) for name in glob(whole, recursive=True))  # noqa: PTH207
    files = tuple(path for path in found if path.is_file())
    if not files:
        is_glob = any(sign in pattern for sign in "*?[")
        what = "does not match any file" if is_glob else "does not exist"
        if named.is_absolute():
            shown = "" if str(named) == pattern else f" ({named})"
            raise InputError(f"path {pattern!r}{shown} {what}. Correct it.")
        raise InputError(
            f"path {pattern!r} {what} under {base}. "
            "Paths are relative to the folder of the study file; correct it there."
        )
    _refuse_second_names(pattern, files)
    return files


def _refuse_second_names(pattern: str, files: tuple[Path, ...]) -> None:
    """A link to a folder above itself would give every file many times."""
    first_names: dict[Path, Path] = {}
    for path in files:
        first = first_names.setdefault(path.resolve(), path)
        if first is not path:
            raise InputError(
                f"path {pattern!r} matches one file as {first} and as {path}, through a link, so "
                "its texts would count twice. Use a pattern that matches one of the two."
            )
