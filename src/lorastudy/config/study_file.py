"""From YAML text to a checked `Study` and back.

Reading is stricter than YAML: tags, duplicate keys and very many values are refused. Numbers are
what people expect (`1e-4` is a number, although YAML 1.1 says that it is text). One `ConfigError`
reports all mistakes of a file, one per line. Each line begins with the path of the key, in which
arms and benchmarks are named: `arms.lora-1.rank`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import count, islice
from pathlib import Path

from pydantic import BaseModel, ValidationError

from lorastudy.config.budget import PlannedArm
from lorastudy.config.mistakes import describe_mistakes, nearest
from lorastudy.config.models import Optimizer, Rounding, Schedule, Study, Training
from lorastudy.config.yaml_text import YamlValue, apply_override, parse_yaml, write_yaml
from lorastudy.errors import ConfigError

MOST_NEW_SEEDS = 1_000
_LARGEST_FILE_BYTES = 1_000_000  # the presets have 3,000


def list_presets() -> tuple[str, ...]:
    """Names of the study files that come with the package, sorted."""
    folder = files("lorastudy") / "presets"
    return tuple(
        sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name[-5:] == ".yaml")
    )


def preset_text(name: str) -> str:
    """The commented YAML of a preset.

    Raises:
        ConfigError: A preset with this name does not exist; the nearest one is named.
    """
    if name not in list_presets():
        hint = nearest(name, list_presets())
        raise ConfigError(
            f"There is no preset {name!r}{hint}. Presets: {', '.join(list_presets())}."
        )
    return (files("lorastudy") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def read_study_file(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The study in a YAML file; see `load_study`.

    Raises:
        ConfigError: The file cannot be read, is not UTF-8 text, or contains mistakes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ConfigError(f"{path}: {reason}. Give a study file or one of the presets.") from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(f"{path} has {len(content)} bytes: too long for a study file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is not valid UTF-8"
        raise ConfigError(f"{path}: {what}. Save the study file as UTF-8 text.") from error
    return load_study(text, str(path), overrides)


def load_study(text: str, source_name: str, overrides: Sequence[str] = ()) -> Study:
    """The study that `text` describes, after `overrides` such as `arms.lora-1.rank=8`.

    An override replaces or adds one value, written as YAML. Messages contain `source_name`.

    Raises:
        ConfigError: Names every mistake with its key path, what is allowed, and the nearest
            known key or value.
    """
    data = parse_yaml(text, source_name)
    if not isinstance(data, dict):
        found = "it is empty" if data is None else "it holds none"
        raise ConfigError(
            f"{source_name}: a study file is a mapping of keys such as name and arms, and {found}. "
            "`lorastudy init demo` writes one to start from."
        )
    for override in overrides:
        apply_override(data, override)
    return _validate(data, source_name, has_overrides=bool(overrides))


def make_study(keys: Mapping[str, object], source_name: str) -> Study:
    """The study of keys and values as a study file has them, in dictionaries and lists.

    Raises:
        ConfigError: As in `load_study`.
    """
    return _validate({key: _plain(value) for key, value in keys.items()}, source_name)


def _validate(
    data: dict[str, YamlValue], source_name: str, *, has_overrides: bool = False
) -> Study:
    try:
        return Study.model_validate(_with_tuples(data))
    except ValidationError as error:
        mistakes = describe_mistakes(error, data)
        raise ConfigError(_message(source_name, mistakes, has_overrides=has_overrides)) from error


def schema_text() -> str:
    """The JSON Schema of study files, for editors that complete and check YAML."""
    return json.dumps(Study.model_json_schema(), indent=1) + "\n"


def dump_study(study: Study) -> str:
    """YAML that `load_study` reads back to an equal study; keys that do not apply are left out."""
    return write_yaml(_plain(study))


def extend_study(study: Study, arms: Sequence[tuple[str, str]], *, n_seeds: int) -> Study:
    """`study` with more arms, each (source name, YAML of one arm or a list), and more seeds.

    New seeds follow the highest one and leave out tuning seeds. Existing arms and seeds stay.

    Raises:
        ConfigError: Nothing or too much is added, or the study has mistakes after the addition.
    """
    if n_seeds > MOST_NEW_SEEDS:
        raise ConfigError(
            f"--seeds {n_seeds}: at most {MOST_NEW_SEEDS:,} seeds can be added at once, each with "
            "a run of every trained arm. Give a smaller number."
        )
    plain = _plain(study)
    assert isinstance(plain, dict)
    known_arms, known_seeds = plain["arms"], plain["seeds"]
    assert isinstance(known_arms, list) and isinstance(known_seeds, list)
    for source_name, text in arms:
        added = parse_yaml(text, source_name)
        known_arms += added if isinstance(added, list) else [added]
    free = (seed for seed in count(max(study.seeds) + 1) if seed not in study.tuning_seeds)
    known_seeds += islice(free, n_seeds)
    if not arms and not n_seeds:
        raise ConfigError("nothing to add: give --arm FILE or --seeds N.")
    return load_study(write_yaml(plain), "the extended study")


def leaves_rounding_open(study: Study) -> bool:
    """Whether the file of `study` does not say how its warm-up is rounded."""
    return "rounding" not in study.training.schedule.model_fields_set


def round_warmup(study: Study, way: Rounding) -> Study:
    """`study` with the warm-up rounded `way`, as if its file said so."""
    schedule = study.training.schedule.model_copy(update={"rounding": way})
    training = study.training.model_copy(update={"schedule": schedule})
    return study.model_copy(update={"training": training})


def with_plan_of(study: Study, started: Study) -> Study:
    """The study, with what its budget means for its arms in a folder where it was started."""
    budget, known = study.training.budget, started.training.budget
    if budget is None or known is None or not budget.is_like(known):
        return study
    unplanned = {arm.name for arm in study.arms if not study.is_planned(arm)}
    return with_plan(study, [planned for planned in known.planned if planned.arm in unplanned])


def with_plan(study: Study, planned: Iterable[PlannedArm]) -> Study:
    """The study, with what its budget means for further arms."""
    budget = study.training.budget
    assert budget is not None
    budget = budget.model_copy(update={"planned": (*budget.planned, *planned)})
    training = study.training.model_copy(update={"budget": budget})
    return study.model_copy(update={"training": training})


def _message(source_name: str, mistakes: list[str], *, has_overrides: bool) -> str:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    where = f"{source_name} with the --set values" if has_overrides else source_name
    lines = "\n".join(f"  {mistake}" for mistake in mistakes)
    return f"{where} has {count}:\n{lines}\nCorrect this and run the same command again."


def _with_tuples(value: YamlValue) -> object:
    """The same value with tuples for lists: the models are strict about what is immutable."""
    if isinstance(value, dict):
        return {key: _with_tuples(part) for key, part in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(part) for part in value)
    return value


def _plain(value: object) -> YamlValue:
    if isinstance(value, BaseModel):
        return {key: _plain(part) for key, part in _shown_fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        f"{value!r} is not a value of a study: give text, a number, a list or a dict."
    )


def _shown_fields(model: BaseModel) -> Iterator[tuple[str, object]]:
    """Fields to write: all of the training protocol, elsewhere those that apply or were chosen."""
    is_protocol = isinstance(model, Training | Schedule | Optimizer)
    fields = type(model).model_fields
    for key in sorted(fields, key=lambda key: key != "name"):  # the name comes first
        field = fields[key]
        value = getattr(model, key)
        is_pinned = key == "revision" and getattr(model, "id", None) is not None
        if is_protocol or is_pinned or field.is_required() or value != field.default:
            yield key, value
