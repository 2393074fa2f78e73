"""Named points at which tests may kill the process; outside tests they do nothing.

Calls such as `hit("commit:before-rename")` mark the places where a crash would do most harm. A
test sets `handler` in the process under test and kills it there; nothing else may depend on it.
"""

from collections.abc import Callable

handler: Callable[[str], None] | None = None


def hit(point: str) -> None:
    """Tell the handler, if a test installed one, that execution reached `point`."""
    if handler is not None:
        handler(point)
