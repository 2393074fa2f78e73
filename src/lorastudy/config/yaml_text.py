"""YAML for study files: plain values, each key only once, numbers as people write them.

PyYAML follows YAML 1.1, in which `1e-4` and `1.0e5` are text, `017` is 15, `1:30` is 90, a repeated
key silently replaces the first one, and a few lines with anchors can unfold to gigabytes. The
loader here differs in exactly these points, and the dumper writes only what this loader reads back.
"""

import re
from collections.abc import Hashable, Iterator
from typing import TypeAlias

import yaml

from lorastudy.config.mistakes import nearest
from lorastudy.errors import ConfigError, show_names

YamlValue: TypeAlias = "bool | int | float | str | list[YamlValue] | dict[str, YamlValue] | None"
_MOST_BITS = 63  # of a whole number; a longer one is a slip, and prints thousands of digits
_LONGEST_SHOWN = 80  # characters of an override in a message
_MOST_VALUES = 20_000  # a study of 1,000 arms has half of this
_LOOKALIKES = {
    "\t": "there is a tab; indent with spaces",
    "\u00a0": "there is a non-breaking space; use an ordinary one",
    "\uff1a": "there is a full-width colon; use an ordinary one and a space",
}
_FORMS = {  # what PyYAML says -> what a person has to write
    "mapping values are not allowed": "put a value that contains ': ' in quotes",
    "expected <block end>": "indent it like the lines that it belongs to",
    "expected ',' or": "a bracket that was opened above is not closed",
    "but found another document": "a file holds one study; remove the line '---' and what follows "
    "it, or put that into a file of its own",
}
_NUMBERS = {  # what is read as one; the rest is text, and refused where a number has to be
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
}
# What the constructors of PyYAML raise for text that a tag or number format cannot hold.
_YAML_FAULTS = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


class _Loader(yaml.SafeLoader):
    """Safe loading, duplicate keys refused, `1e-4` read as a number."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        own_keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[str] = set()
        for key in own_keys:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                what = f"the key {key.value!r} is here twice"
                raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers; never writes anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _form in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _form, list("-+.0123456789"))
    _Dumper.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


def parse_yaml(text: str, source_name: str) -> YamlValue:
    """The value that `text` holds.

    Raises:
        ConfigError: The text is not YAML, has a key twice, or unfolds to too many values.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
        return _plain_copy(value, "", iter(range(_MOST_VALUES)))
    except _YAML_FAULTS as error:
        what = f"{_fault(error)}{_hint(error, text)}"
        raise ConfigError(f"{source_name}: {what}. Correct the YAML there.") from error


def _plain_copy(value: object, path: str, budget: Iterator[int]) -> YamlValue:
    """`value` without shared parts, so that an override changes only one place."""
    if next(budget, None) is None:
        raise ValueError(f"there are more than {_MOST_VALUES} values")
    if isinstance(value, list):
        return [_plain_copy(part, f"{path}.{i}", budget) for i, part in enumerate(value)]
    if isinstance(value, dict):
        copy: dict[str, YamlValue] = {}
        for key, part in value.items():
            if not isinstance(key, str):
                place = f"{path.strip('.')}: ".removeprefix(": ")
                raise ValueError(f"{place}the key {key!r} is not text; put it in quotes")
            copy[key] = _plain_copy(part, f"{path}.{key}", budget)
        return copy
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"{path}: this whole number is too large".lstrip(".: "))
    if value is None or isinstance(value, bool | int | float | str):
        return value
    what = f"{value} is read as a {type(value).__name__}; put it in quotes"
    raise ValueError(f"{path.strip('.')}: {what}")


def _fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the values are nested too deeply or contain themselves"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if "integer string conversion" in str(error):
        return "a whole number is too large"
    return " ".join(str(error).split()) or "a value does not fit its tag"


def _hint(error: Exception, text: str) -> str:
    """The right form, or what looks like YAML at the place of the mistake and is not."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ""
    number = error.problem_mark.line
    # a reader notices the mistake on the line itself or on the next one
    for line in reversed(text.splitlines()[max(0, number - 1) : number + 1]):
        for character, advice in _LOOKALIKES.items():
            if character in line:
                return f" ({advice})"
    problem = error.problem or ""
    return next((f" ({form})" for what, form in _FORMS.items() if problem.startswith(what)), "")


def write_yaml(value: YamlValue) -> str:
    """`value` as YAML, keys in their order, short lists on one line."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100,
    )


def write_value(text: str) -> str:
    """`text` as a value, in quotes where it would be read as a number or as true or false."""
    return write_yaml([text]).strip().removeprefix("[").removesuffix("]")


def apply_override(data: dict[str, YamlValue], override: str) -> None:
    """Set one value in `data`, in place; `override` reads `key.path=YAML value`.

    Members of a list are given by their `name` or by their number from 0. Keys of a mapping that
    do not exist are created; the models decide whether they may exist.

    Raises:
        ConfigError: There is no `=`, or the path leads nowhere.
    """
    path, equals, text = override.partition("=")
    if not equals or not all(part for part in path.split(".")):
        raise ConfigError(f"--set {override!r} is not KEY=VALUE; write training.epochs=2.")
    shown = override if len(override) <= _LONGEST_SHOWN else f"{override[:_LONGEST_SHOWN]}..."
    _put(data, path, parse_yaml(text, f"--set {shown}"), override)


def _put(node: YamlValue, path: str, value: YamlValue, override: str) -> None:
    key, _, rest = path.partition(".")
    if isinstance(node, dict):
        if not rest:
            node[key] = value
            return
        if node.get(key) is None:
            node[key] = {}
        _put(node[key], rest, value, override)
    elif isinstance(node, list):
        index, rest = _member(node, path, override)
        if not rest:
            node[index] = value
            return
        _put(node[index], rest, value, override)
    else:
        raise ConfigError(f"--set {override!r}: there is nothing below {node!r}. Shorten the key.")


def _member(node: list[YamlValue], path: str, override: str) -> tuple[int, str]:
    """The member of a list with which `path` begins, and its rest; names may contain dots."""
    parts = [(i, part.get("name")) for i, part in enumerate(node) if isinstance(part, dict)]
    names = {name: i for i, name in parts if isinstance(name, str)}
    named = [name for name in names if f"{path}.".startswith(f"{name}.")]
    if named:
        name = max(named, key=len)
        return names[name], path[len(name) + 1 :]
    key, _, rest = path.partition(".")
    if key.isascii() and key.isdecimal() and int(key) < len(node):
        return int(key), rest
    known = [*names] or [str(i) for i in range(len(node))]
    hint = nearest(key, known)
    raise ConfigError(
        f"--set {override!r}: no {key!r} in this list{hint}. It has {show_names(known)}."
    )
