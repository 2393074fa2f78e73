"""Which environment variable made a library fail, if one did.

Libraries read their variables while they are imported, and what they raise about a wrong value is
often a bare ValueError. The lines of source in its traceback say which variable it was.
"""

import os
import re
import traceback
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_NAMES = re.compile(r"""['"]([A-Z][A-Z0-9_]{3,})['"]""")


def find_variable(error: Exception) -> str | None:
    """The environment variable of which a library complains in `error`; None: of no variable.

    It is one that is set, and that a line of the library's own quotes on the way to the error. Or
    the error comes up while a module is loaded and quotes the variable's value.
    """
    frames = traceback.extract_tb(error.__traceback__)
    of_libraries = [frame for frame in frames if _PACKAGE not in Path(frame.filename).parents]
    for frame in reversed(of_libraries):
        for found in _NAMES.finditer(frame.line or ""):
            if found[1] in os.environ:
                return found[1]
    if not any(frame.name == "<module>" for frame in of_libraries):
        return None
    said = str(error)
    quoted = (
        name
        for name, value in os.environ.items()
        if value and any(f"{sign}{value}{sign}" in said for sign in "'\"`")
    )
    return next(quoted, None)
