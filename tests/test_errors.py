"""What is told of an error that comes from elsewhere."""

import pytest

from lorastudy.errors import first_line, show_names


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such key\n\nTraceback: ..."), "no such key"),
        (OSError("\n  [Errno 2] gone\nmore"), "[Errno 2] gone"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError(" \n "), "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error_says_something(error: Exception, said: str) -> None:
    assert first_line(error) == said


@pytest.mark.parametrize(
    ("names", "shown"),
    [([], "none"), (["a", "b"], "a, b"), (["a", "b", "c", "d"], "a, b and 2 more")],
)
def test_a_long_list_of_names_is_cut(names: list[str], shown: str) -> None:
    assert show_names(names, most=2) == shown
