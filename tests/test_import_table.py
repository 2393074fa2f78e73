"""The direction of imports between the parts, which libraries each may use, and what none may.

Read from the source with `ast`, so that an import inside a function counts as well.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "lorastudy"

# room -> the rooms it may import, besides itself
GROUND = [
    *("errors", "faults", "interrupts", "seeds", "loss", "protocols", "threads", "units"),
    "version",
]
RECORDS = [*GROUND, "config", "store"]  # a study file, and the folders of studies and runs
LOW = [*RECORDS, "machine", "data", "model"]
ALLOWED: dict[str, set[str]] = {
    **{room: {"errors"} - {room} for room in GROUND},
    "config": set(GROUND),
    "store": {*GROUND, "config"},
    "machine": set(RECORDS),
    "data": set(RECORDS),
    "model": {*RECORDS, "machine", "data"},
    "train": set(LOW),  # train and evaluate do not import each other
    "evaluate": set(LOW),
    "run": {*LOW, "train", "evaluate"},
    "launch": {*LOW, "train", "evaluate", "run"},
    "analysis": set(RECORDS),
    "study": {*LOW, "train", "evaluate", "run", "launch", "analysis"},
    "report": {*RECORDS, "analysis"},
    "exchange": {*RECORDS, "analysis"},
}
ALLOWED["api"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)
FREE = {"", "__main__"}  # the package itself (its version and API), `python -m lorastudy`
EXPORTED = {"api", "study", "threads", "version"}  # where the names of the package itself come from

# library -> the only files and folders that may import it
CONFINED = {
    "transformers": ("model/",),
    "peft": ("model/",),
    "tokenizers": ("model/",),
    "datasets": ("data/sources.py",),
    "matplotlib": ("report/figures/",),
    "pandas": ("api/",),
    "lm_eval": ("run/harness_",),
    "submitit": ("launch/",),
    "ray": ("launch/",),
}
NEVER_TORCH = {*RECORDS, "analysis", "report", "exchange"}
NOT_TORCH_AT_START = NEVER_TORCH | {"cli", "__main__", ""}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One import statement: what is named, and whether importing the module carries it out."""

    module: str
    line: int
    is_at_start: bool


def part_of(path: Path) -> str:
    """The part a file belongs to: `data/rows.py` -> data, `loss.py` -> loss, the package -> ""."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def find_imports(tree: ast.Module, package: list[str]) -> Iterator[Import]:
    """All imports of a file whose package is `package`, without those for the type checker."""
    yield from _walk(tree, package, is_at_start=True)


def _walk(node: ast.AST, package: list[str], *, is_at_start: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            # counts for the direction, but is never carried out
            for statement in child.body:
                yield from _walk(ast.Module([statement], []), package, is_at_start=False)
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, is_at_start)
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) - child.level + 1] if child.level else []
            module = ".".join([*base, *([child.module] if child.module else [])])
            if module == "lorastudy":  # names are parts: from lorastudy import errors
                for alias in child.names:
                    yield Import(f"lorastudy.{alias.name}", child.lineno, is_at_start)
            else:
                yield Import(module, child.lineno, is_at_start)
        inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _walk(child, package, is_at_start=is_at_start and not inner)


def package_of(path: Path) -> list[str]:
    """The dotted package that relative imports in `path` start from."""
    return ["lorastudy", *path.relative_to(PACKAGE).parent.parts]


SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in SOURCES]
each_file = pytest.mark.parametrize("path", SOURCES, ids=NAMES)


def read_imports(path: Path) -> list[Import]:
    return list(find_imports(ast.parse(path.read_text()), package_of(path)))


@each_file
def test_parts_import_only_what_the_table_allows(path: Path) -> None:
    part = part_of(path)
    assert part in FREE | set(ALLOWED), f"{part} is not in the table: give it a layer"
    wrong = [
        f"line {found.line}: {found.module}"
        for found in read_imports(path)
        if found.module.startswith("lorastudy.")
        and not is_allowed(part, found.module.split(".")[1])
    ]
    assert not wrong


def is_allowed(part: str, imported: str) -> bool:
    if imported == part or part == "__main__":
        return True
    return imported in (EXPORTED if part == "" else ALLOWED[part])


@each_file
def test_libraries_stay_where_they_are_confined(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    wrong = [
        f"line {found.line}: {found.module}"
        for found in read_imports(path)
        if (homes := CONFINED.get(found.module.split(".")[0])) and not name.startswith(homes)
    ]
    assert not wrong


@each_file
def test_torch_stays_away_from_what_has_to_start_fast(path: Path) -> None:
    part = part_of(path)
    wrong = [
        f"line {found.line}: {found.module}"
        for found in read_imports(path)
        if found.module.split(".")[0] == "torch"
        and (part in NEVER_TORCH or (part in NOT_TORCH_AT_START and found.is_at_start))
    ]
    assert not wrong


@each_file
def test_nothing_loads_files_that_can_run_code(path: Path) -> None:
    tree = ast.parse(path.read_text())
    wrong = [
        f"line {found.line}: imports {found.module}"
        for found in read_imports(path)
        if found.module.split(".")[0] in UNSAFE_MODULES
    ]
    assert wrong + unsafe_calls(tree) == []


def unsafe_calls(tree: ast.Module) -> list[str]:
    """Calls that could run code from a file: torch.load, yaml.load, numpy pickles, remote code."""
    safe_loaders = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("SafeLoader" in ast.unparse(base) for base in node.bases)
    ]
    return [
        f"line {node.lineno}: {ast.unparse(node)[:80]}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_unsafe(node, safe_loaders)
    ]


def _is_unsafe(call: ast.Call, safe_loaders: list[str]) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if not _is_constant(given.get("trust_remote_code"), None, False):
        return True
    if not _is_constant(given.get("allow_pickle"), None, False):
        return True
    match ast.unparse(call.func):
        case "torch.load":
            return not _is_constant(given.get("weights_only"), True)
        case "yaml.load" | "yaml.load_all":
            loader = given.get("Loader", call.args[1] if len(call.args) > 1 else None)
            name = "" if loader is None else ast.unparse(loader)
            return not name.endswith("SafeLoader") and name not in safe_loaders
        case "yaml.unsafe_load" | "yaml.full_load" | "yaml.unsafe_load_all" | "eval" | "exec":
            return True
        case "os.system" | "os.popen" | "torch.hub.load" | "runpy.run_path" | "compile":
            return True
        case "Environment" | "jinja2.Environment" | "Template":
            return not _is_constant(given.get("autoescape"), True)
        case name if name.endswith(".from_pretrained") and "Model" in name:
            return not _is_constant(given.get("use_safetensors"), True)
    return not _is_constant(given.get("shell"), None, False)


def _is_constant(node: ast.expr | None, *values: object) -> bool:
    """Whether `node` is one of the literal `values`; None stands for "not given"."""
    if node is None:
        return None in values
    return isinstance(node, ast.Constant) and any(node.value is value for value in values)


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "class Own(yaml.Loader): ...\nyaml.load(text, Loader=Own)",
        "load(name, trust_remote_code=True)",
        "load(name, trust_remote_code=flag)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "os.system(command)",
        "subprocess.run(command, shell=True)",
        "AutoModelForCausalLM.from_pretrained(folder)",
        "PeftModel.from_pretrained(network, folder, use_safetensors=False)",
        "jinja2.Environment(loader=loader)",
    ],
)
def test_unsafe_calls_are_found(code: str) -> None:
    assert unsafe_calls(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "yaml.load(text, yaml.SafeLoader)",
        "class Own(yaml.SafeLoader): ...\nyaml.load(text, Loader=Own)",
        "load(name, trust_remote_code=False)",
        "model.eval()",
        "re.compile(pattern)",
        "subprocess.run(command)",
        "PeftModel.from_pretrained(network, folder, use_safetensors=True)",
        "AutoTokenizer.from_pretrained(folder)",
    ],
)
def test_safe_calls_are_not_taken_for_unsafe_ones(code: str) -> None:
    assert not unsafe_calls(ast.parse(code))


def test_imports_are_found_wherever_they_stand() -> None:
    code = """
import torch
from . import rows
from ..errors import UserError
from lorastudy import store
def f():
    import peft.tuners
if TYPE_CHECKING:
    import numpy
class A:
    import json
"""
    found = find_imports(ast.parse(code), ["lorastudy", "data"])
    assert [(i.module, i.is_at_start) for i in found] == [
        ("torch", True),
        ("lorastudy.data", True),
        ("lorastudy.errors", True),
        ("lorastudy.store", True),
        ("peft.tuners", False),
        ("numpy", False),
        ("json", True),
    ]


@pytest.mark.parametrize(
    ("part", "imported", "expected"),
    [
        ("train", "evaluate", False),
        ("evaluate", "train", False),
        ("report", "model", False),
        ("config", "store", False),
        ("store", "config", True),
        ("machine", "data", False),
        ("data", "model", False),
        ("cli", "report", True),
        ("cli", "run", True),
        ("run", "study", False),
        ("analysis", "run", False),
        ("store", "data", False),
        ("loss", "model", False),
        ("machine", "version", True),
        ("machine", "__version__", False),
        ("", "errors", False),
        ("", "api", True),
        ("api", "cli", False),
        ("study", "api", False),
    ],
)
def test_the_table_says_what_the_design_says(part: str, imported: str, expected: bool) -> None:
    assert is_allowed(part, imported) is expected


@pytest.mark.parametrize(
    "part", ["cli", "report", "analysis", "config.spec", "config.study_file", "store"]
)
def test_importing_these_does_not_import_torch(part: str) -> None:
    heavy = ("torch", "transformers", "peft", "datasets", "matplotlib")
    code = f"import sys, lorastudy.{part}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
