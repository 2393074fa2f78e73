"""What differs between two records, as key paths with both values, short enough for a message."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ABSENT = object()  # the value of a key that one of the records does not have
_MOST_SHOWN = 120  # characters of a value


@dataclass(frozen=True, slots=True)
class Difference:
    """A key path, and the value that each record has there, which may be `ABSENT`."""

    path: str
    old: object
    new: object


def list_differences(old: object, new: object, path: str = "") -> Iterator[Difference]:
    """Everything in which `new` differs from `old`; of long lists, the part that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{path}.{key}" if path else str(key)
            yield from list_differences(old.get(key, ABSENT), new.get(key, ABSENT), below)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and old != new:
        is_long = max(len(repr(old)), len(repr(new))) > _MOST_SHOWN
        yield Difference(path, *(_without_shared_ends(old, new) if is_long else (old, new)))
    elif old != new:
        yield Difference(path, old, new)


def _without_shared_ends(
    old: list[object] | tuple[object, ...], new: list[object] | tuple[object, ...]
) -> tuple[object, object]:
    most = min(len(old), len(new))
    first = next((i for i in range(most) if old[i] != new[i]), most)
    last = next((i for i in range(most - first) if old[-1 - i] != new[-1 - i]), most - first)
    return old[first : len(old) - last], new[first : len(new) - last]


def show_value(value: object, write: Callable[[object], str] = json.dumps) -> str:
    """A value for a message, cut where it is long."""
    text = write(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."
