"""Errors that a person can act on, each with the exit code of the command line.

A message says what is wrong, where (file and key path), and what to do next. Everything
else that escapes is a defect of this program and keeps its traceback.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)  # errors that say that no file can have this name
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)  # errors that no free space would mend
_LONGEST_SHOWN = 60  # characters of a path that cannot be one

_SECRETS = (
    (re.compile(r"\b(hf_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{8,}"), r"\1[redacted]"),
    (re.compile(r"(://)[^/@\s]+@"), r"\1[redacted]@"),
    (re.compile(r"(?i)\b((?:api[_-]?key|token|password|secret)=)[^\s&]+"), r"\1[redacted]"),
    (re.compile(r"(?i)(authorization: *(?:bearer|basic) )\S+"), r"\1[redacted]"),
)


def redact_secrets(text: str) -> str:
    """`text` without access tokens and without passwords in addresses.

    Libraries put these into their error messages. Environment variables are never stored, so
    messages are the only way by which such values could reach a file.
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def show_names(names: Iterable[object], *, most: int = 12) -> str:
    """A list of names for a message, cut after `most` of them: "a, b and 7 more"."""
    shown = [str(name) for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "") or "none"


def first_line(error: BaseException) -> str:
    """What a library says, to stand inside a sentence; the type of the error if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class UserError(Exception):
    """Something outside the program has to change; `cli` prints the message and exits."""

    exit_code = 2


class ConfigError(UserError):
    """A study file, option or combination of settings cannot be carried out (exit 2)."""


class InputError(UserError):
    """Data or model files are missing, damaged or unfit (exit 3)."""

    exit_code = 3


class DivergedError(UserError):
    """A loss or gradient became non-finite; no optimizer step was taken with it (exit 4)."""

    exit_code = 4


class SomeRunsFailedError(UserError):
    """The study finished, but some of its runs failed (exit 5)."""

    exit_code = 5


class EnvironmentDriftError(UserError):
    """The environment differs from the one in which the run was started (exit 6)."""

    exit_code = 6


class OutOfMemoryError(UserError):
    """The device or the machine had no memory left (exit 7)."""

    exit_code = 7


class OwnedError(UserError):
    """Another process is working on the same run or study (exit 73)."""

    exit_code = 73


class StorageError(UserError):
    """The disk refused a write, or a stored file is not what was written (exit 74)."""

    exit_code = 74


class InterruptedRunError(UserError):
    """A signal stopped the work at a checkpoint; the same command continues (exit 75)."""

    exit_code = 75


class LostMemberError(UserError):
    """One of the processes that train a run together ended too early (exit 75)."""

    exit_code = 75


_NO_MEMORY = re.compile(
    r"(can't|cannot|unable to) allocate|out of memory|not enough memory", re.IGNORECASE
)
_LONGEST_REASON = 3_000  # characters of a library's message


@contextmanager
def reading_user_files(problem: str, advice: str) -> Iterator[None]:
    """Turn every exception that a library raises on a user's files into a `UserError`.

    Libraries raise many kinds of exceptions for damaged files, and their next versions may
    raise others, so this function does not list kinds. Errors of this package are not changed.

    Args:
        problem: What is wrong and where; the library's whole message follows in brackets.
        advice: What to do next, as one sentence.

    Raises:
        InputError: The library gave up.
        OutOfMemoryError: There was not enough memory to read the files.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # a panic of a library written in Rust is not an Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = reason_of(error)
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"{problem}: there is not enough memory ({reason}).") from error
        raise InputError(f"{problem} ({reason}). {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or machine had no memory left; some libraries say so only in words."""
    if isinstance(error, MemoryError) or type(error).__name__ == OutOfMemoryError.__name__:
        return True
    return not isinstance(error, UserError) and _NO_MEMORY.search(str(error)) is not None


def reason_of(error: BaseException) -> str:
    """The whole message of an exception on one line; its kind comes first where it is unclear."""
    message = " ".join(str(error).split()).rstrip(".")
    if not message:
        return type(error).__name__
    if len(message) > _LONGEST_REASON:
        left_out = len(message) - _LONGEST_REASON
        message = f"{message[:_LONGEST_REASON]} ... and {left_out:,} more characters"
    says_enough = isinstance(error, (OSError, ValueError, RuntimeError, Warning))
    return message if says_enough else f"{type(error).__name__}: {message}"


def possible_path(named: str | Path, *, key: str = "") -> Path:
    """The path, if a file or folder could have it; whether one has it does not matter.

    Raises:
        ConfigError: It is empty or too long, or follows links in a circle. `key` stands before it.
    """
    shown = str(named) if len(str(named)) <= _LONGEST_SHOWN else f"{str(named)[:_LONGEST_SHOWN]}..."
    if not str(named).strip():
        raise ConfigError(f"{key}{shown!r}: the path is empty. Write . for the current folder.")
    try:
        Path(named).stat()
    except ValueError as error:
        raise ConfigError(f"{key}{shown!r}: {error}. Give another path.") from error
    except OSError as error:
        if error.errno in NO_PATH:
            raise ConfigError(f"{key}{shown}: {error.strerror}. Give another path.") from error
    return Path(named)
