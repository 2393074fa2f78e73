"""What the pages name exists: files, parts, commands, exit codes, study files."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from lorastudy import errors
from lorastudy.cli import app
from lorastudy.config.models import Arm
from lorastudy.config.study_file import load_study
from test_import_table import ALLOWED

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lorastudy"
PAGES = sorted(
    path
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"))
    if path.is_file()
)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
OWN_DATA = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES]
)


def inline_code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))


def all_code(text: str) -> list[str]:
    return [*inline_code(text), *(block for _, block in _FENCE.findall(text))]


def anchors_of(text: str) -> set[str]:
    """The names that a heading can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page: Path, text: str) -> Iterator[str]:
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text("utf-8"))):
            yield link


def commands_in(text: str) -> set[str]:
    """SUBCOMMAND of every `lorastudy SUBCOMMAND` in code."""
    pattern = re.compile(r"(?<![\w./-])(?<!import )lorastudy +([a-z][a-z-]*)(?![\w.=])")
    return {name for code in all_code(text) for name in pattern.findall(code)}


def known_commands() -> set[str]:
    return set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


def too_wide(text: str) -> list[str]:
    """Lines of prose over 100 columns; code, tables, comments and a link's target do not count."""
    prose = re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL)
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith(("|", "<"))]
    return [line for line in lines if len(re.sub(r"\]\([^)]*\)", "]", line)) > 100]


@each_page
def test_prose_in_the_pages_is_wrapped_at_100_columns(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert too_wide(page.read_text(encoding="utf-8")) == []


@each_page
def test_commands_in_the_pages_exist(page: Path) -> None:
    assert commands_in(page.read_text(encoding="utf-8")) - known_commands() == set()


def test_the_checks_find_what_is_wrong() -> None:
    text = (
        "# Here\n\n[a](nowhere.md) [b](glossary.md#none) [c](glossary.md#model)\n\n"
        "`lorastudy fly DIR`\n\n```sh\nlorastudy sing\n```\n"
    )
    page = ROOT / "docs" / "page.md"
    assert list(broken_links(page, text)) == ["nowhere.md", "glossary.md#none"]
    assert anchors_of(text) == {"here"}
    assert commands_in(text) == {"fly", "sing"}
    code, table, long = "```text\n" + "x" * 101 + "\n```\n", "|" + "x" * 101, "a " * 51
    assert too_wide(f"{code}{table}\n[a](" + "x" * 101 + f")\n{long}\n") == [long]


def paths_in(text: str) -> list[str]:
    """Files and folders in inline code: `model/base.py`, `store/`."""
    return [c for c in inline_code(text) if re.fullmatch(r"[\w./-]+(\.(py|md|yaml)|/)", c)]


def test_files_named_in_the_architecture_exist() -> None:
    named = paths_in(ARCHITECTURE)
    of_folders = {"study.yaml"}  # in a study's folder
    assert len(named) > 20
    assert [
        path
        for path in named
        if path not in of_folders and not (PACKAGE / path).exists() and not (ROOT / path).exists()
    ] == []


def rooms_of_the_architecture() -> list[str]:
    """The rooms of the table, from the ground upwards."""
    rows = re.findall(r"^\| (?:ground|records|work|runs|people) \| (.+?) \|", ARCHITECTURE, re.M)
    return [room for row in rows for room in re.findall(r"`(\w+)`", row)]


def test_the_architecture_names_every_room_once_in_its_table() -> None:
    assert sorted(rooms_of_the_architecture()) == sorted(ALLOWED)


def test_rooms_of_the_architecture_stand_behind_all_that_they_import() -> None:
    rooms = rooms_of_the_architecture()
    later = {room: set(rooms[place + 1 :]) for place, room in enumerate(rooms)}
    assert {
        room: ALLOWED[room] & later[room] for room in rooms if ALLOWED[room] & later[room]
    } == {}


def test_study_files_in_the_pages_can_be_read() -> None:
    blocks = [block for kind, block in _FENCE.findall(OWN_DATA) if kind == "yaml"]
    studies = [text for text in blocks if text.startswith("name:")]
    assert [load_study(text, "docs/own-data.md").name for text in studies] == ["my-notes"]


def test_arms_in_the_readme_can_be_read() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (block for kind, block in _FENCE.findall(readme) if kind == "yaml")
    arms = [Arm.model_validate_json(json.dumps(arm)) for arm in yaml.safe_load(block)["arms"]]
    assert [arm.name for arm in arms] == ["baseline", "full", "lora-attention"]


def test_the_page_of_commands_lists_every_exit_code() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", COMMANDS, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert listed == {0} | {kind.exit_code for kind in kinds if issubclass(kind, errors.UserError)}


def test_the_page_of_commands_lists_every_command() -> None:
    rows = re.findall(r"^\| `([a-z-]+)`.* \|", COMMANDS.partition("## JSON")[0], re.MULTILINE)
    assert sorted(rows) == sorted(known_commands())


def test_the_page_of_the_study_file_is_what_its_tool_writes() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "describe_study_file.py"))
    written = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
    assert written == tool["describe_page"](), "run the tool again, as its first lines say"


def test_every_page_has_a_place_on_the_site() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "docs_nav.py"))
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    placed = tool["complete_nav"](nav, ROOT / "docs")
    docs = [path for path in PAGES if path.is_relative_to(ROOT / "docs")]
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in docs)
    assert sorted(tool["_pages_in"](placed)) == pages


def test_every_command_is_written_about() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in known_commands() if f"`{name}`" not in text] == []


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


# Reliability

RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
N_FAULTS = {"Process": 15, "Storage": 14, "Data and model": 17, "Study file": 9, "Security": 5}
_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def names_of_tests() -> set[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"^(?:def )?(test_\w+|Test\w+)(?= =|\()", text, re.MULTILINE))


def unproved(rows: list[tuple[str, str]], tests: set[str]) -> list[str]:
    """Faults whose line names no test of ours, none that R9 holds, and no reason."""
    return [
        fault
        for fault, proof in rows
        if not (
            (named := set(re.findall(r"`([Tt]est_?\w+)`", proof))) & tests
            or proof.startswith(("R9", "the same two", "not tested: "))
        )
        or named - tests
    ]


def rows_under(heading: str) -> list[tuple[str, str]]:
    section = RELIABILITY.split(f"### {heading}\n")[1].split("\n#")[0]
    return [row for row in _ROW.findall(section) if row[0] not in ("fault", "promise", "---")]


@pytest.mark.parametrize("heading", N_FAULTS)
def test_every_fault_of_the_list_has_a_test_that_exists_or_a_reason(heading: str) -> None:
    rows = rows_under(heading)
    assert len(rows) >= N_FAULTS[heading]
    assert unproved(rows, names_of_tests()) == []


def test_faults_without_a_test_are_found() -> None:
    rows = [("a", "`test_gone`"), ("b", "R9"), ("c", ""), ("d", "`test_here`, `test_gone`")]
    assert unproved([*rows, ("e", "`test_here`")], {"test_here"}) == ["a", "c", "d"]


def test_every_figure_of_reliability_has_a_row_with_a_command_that_exists() -> None:
    rows = re.findall(r"^\| (R\d+) \|.*\| ([^|]+) \|$", RELIABILITY, re.MULTILINE)
    assert [name for name, _ in rows] == [f"R{n}" for n in range(1, 18)]
    files = re.findall(r"(?:tests|benchmarks)/[\w/]+\.py", " ".join(text for _, text in rows))
    assert len(files) >= 16 and [name for name in files if not (ROOT / name).is_file()] == []
