"""Whether an answer is right: a choice by its likelihood, or a generated text by what it says."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from decimal import Decimal
from pathlib import Path
from typing import SupportsFloat

from lorastudy.errors import ConfigError, InputError, reason_of

JudgeText = Callable[[str, str], object]  # generated text and answer -> whether it is right

_ODD_TEXTS = ("", " ?\n", "not 1 answer, but 2.")  # a function has to understand or refuse them
_WRITTEN = str.maketrans("\u2212\uff0d\ufe63", "---", "$\u20ac\u00a3\u00a5")  # minus signs; money
# a sign that follows a word or another number is not part of the number: 10-5, COVID-19
_NUMBER = re.compile(
    r"(?:(?<![\w)])[-+])?"
    r"(?:(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|\.\d+)"  # 1,000.5 or .5
    r"(?:[eE][-+]?\d{1,4}(?!\w))?"
)


def pick_choice(nats: Sequence[float], choices: Sequence[str], *, per_character: bool) -> int:
    """The place of the likeliest choice, the first of equals.

    `per_character` divides the nats of each choice by its characters, as `acc_norm` of
    lm-evaluation-harness does; a space that was put before it does not count.
    """
    lengths = [len(choice) if per_character else 1 for choice in choices]
    return min(range(len(choices)), key=lambda i: nats[i] / lengths[i])


def equals_text(generated: str, answer: str) -> bool:
    """Both are the same, apart from white space at their ends."""
    return generated.strip() == answer.strip()


def equals_number(generated: str, answer: str) -> bool:
    """The last number of each is the same; 1,000.0 equals 1000, and 1e3."""
    found = find_number(generated)
    return found is not None and found == find_number(answer)


def find_number(text: str) -> Decimal | None:
    """The last number that is written in digits; None if there is none."""
    written = _NUMBER.findall(text.translate(_WRITTEN))
    return Decimal(written[-1].replace(",", "")) if written else None


def load_function(named: str, base: Path) -> JudgeText:
    """The function `module:function` or `file.py:function` with two arguments: text and answer.

    Args:
        named: Where it is; a file is sought from `base`, and a module there if it is not installed.
        base: Folder of the study file.

    Raises:
        ConfigError: It cannot be imported, or is not a function.
    """
    where, _, name = named.rpartition(":")
    try:
        with redirect_stdout(sys.stderr):  # standard output may be JSON
            is_file = where.endswith(".py")
            module = _import_file(base / where) if is_file else _import(where, base)
            function = getattr(module, name)
    except (Exception, SystemExit) as error:  # of the user's module, of any kind
        raise ConfigError(
            f"function {named!r} cannot be loaded: {reason_of(error)}. Name it as "
            "module:function, or as file.py:function, with a path from the study file."
        ) from error
    if not callable(function):
        raise ConfigError(f"function {named!r} is not a function, but {type(function).__name__}.")
    judge: JudgeText = function
    return judge


def judge_text(judge: JudgeText, generated: str, answer: str, place: str) -> bool:
    """What `judge` says of a generated text.

    Raises:
        InputError: It fails, or says neither true nor false; the message names the row.
    """
    try:
        with redirect_stdout(sys.stderr):  # standard output may be JSON
            found = judge(generated, answer)
    except (Exception, SystemExit) as error:  # of the user's function, of any kind
        raise InputError(
            f"{place}: the function fails on {generated[:80]!r}: {reason_of(error)}. Repair it, "
            "and let it return false for texts that it does not understand."
        ) from error
    with suppress(Exception):  # of the returned value, of any kind
        if isinstance(found, SupportsFloat) and float(found) in (0.0, 1.0):
            return float(found) == 1.0
    raise InputError(
        f"{place}: the function returned {_show(found)} for {generated[:80]!r}, and neither true "
        "nor false."
    )


def refuse_judge(judge: JudgeText, answers: Sequence[tuple[str, str]]) -> None:
    """Try a function on every right answer, and on texts such as an untrained model writes.

    A mistake in it would otherwise show only after training.

    Args:
        judge: The function.
        answers: The place of each item for people, and its right answer.

    Raises:
        InputError: It fails, or says neither true nor false; the message names the row.
    """
    for place, answer in answers:
        judge_text(judge, answer, answer, place)
    place, answer = answers[0]
    for text in _ODD_TEXTS:
        judge_text(judge, text, answer, place)


def _show(value: object) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # of the value, of any kind
        return f"a {type(value).__name__}"


def find_code(named: str, base: Path) -> Path | None:
    """The file with the function `named`; None if its module is not in the folder `base`."""
    where = named.rpartition(":")[0]
    inside = where.replace(".", "/")
    names = (where,) if where.endswith(".py") else (f"{inside}/__init__.py", f"{inside}.py")
    return next((base / name for name in names if (base / name).is_file()), None)


def _import(module: str, base: Path) -> object:
    beside = {str(base.resolve())} - {*sys.path}
    sys.path.extend(beside)  # last, so that no installed module is hidden
    try:
        return importlib.import_module(module)
    finally:
        for folder in beside & {*sys.path}:
            sys.path.remove(folder)


def _import_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"lorastudy_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look it up
    spec.loader.exec_module(module)
    return module
