"""How often functions are called, wherever they were imported to."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest


@contextmanager
def counted_calls(*functions: Callable[..., Any]) -> Iterator[Counter[str]]:
    """Calls of `functions` by name, in every module of the package that has them."""
    counts: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for function in functions:
            counting = _count(function, counts)
            for name, module in list(sys.modules.items()):
                if name.startswith("lorastudy") and function in vars(module).values():
                    patch.setattr(module, function.__name__, counting)
        yield counts


def _count(function: Callable[..., Any], counts: Counter[str]) -> Callable[..., Any]:
    @wraps(function)
    def counting(*arguments: Any, **options: Any) -> Any:
        counts[function.__name__] += 1
        return function(*arguments, **options)

    return counting
