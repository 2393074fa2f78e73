"""A command is a few lines in a file of its own, over functions that Python can call as well."""

import ast
from pathlib import Path

from lorastudy import cli
from lorastudy.cli import app

SOURCES = sorted(Path(cli.__file__).parent.glob("*.py"))
SHARED = {
    *("__init__", "completion", "console", "examples", "live", "options", "preview_page", "show"),
    *("show_check", "terminal", "variables"),
}
MOST_LINES = 40


def test_every_command_has_a_file_of_its_name() -> None:
    found = {
        command.callback.__module__.removeprefix("lorastudy.cli."): command.name
        for command in app.registered_commands
        if command.callback is not None
    }
    assert found == {str(name).replace("-", "_"): name for name in found.values()}
    assert len(found) == len(app.registered_commands)
    assert {path.stem for path in SOURCES} == found.keys() | SHARED


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {
        f"{path.name}: {node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    assert len(lengths) > 50
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}
