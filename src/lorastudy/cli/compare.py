"""`compare`: score models that other programs trained, as a study that trains nothing."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorastudy.cli import options
from lorastudy.cli.evaluate import (
    AssistantOnly,
    ChatTemplate,
    Function,
    Length,
    MaxNewTokens,
    Model,
    ProtocolNames,
    Sample,
    Stop,
)
from lorastudy.cli.options import (
    AsJson,
    Column,
    Device,
    Limit,
    Mirror,
    Offline,
    Out,
    Padded,
    Precision,
    Reference,
    Restart,
    SampleBy,
    Strip,
)
from lorastudy.config.models import Benchmark, Study
from lorastudy.config.references import Answering, find_benchmark, model_reference
from lorastudy.errors import ConfigError, UserError
from lorastudy.store.folders import StudyFolder
from lorastudy.study.open import OpenedStudy, stored_places

if TYPE_CHECKING:
    from lorastudy.study.compare import Comparison, ScoringSettings

Adapters = Annotated[
    list[str],
    typer.Option(
        "--adapter",
        metavar="NAME=DIR",
        help="PEFT folder or whole model (repeatable); several folders of one name are its seeds.",
    ),
]
BenchmarkNames = Annotated[
    list[str],
    typer.Option(
        "--benchmark",
        help="wikitext-2, lambada, imdb, a benchmark of another preset; or a file, a folder or a "
        "pattern such as 'texts/*.md' (repeatable).",
    ),
]


def compare(
    base: Model,
    *,
    adapter: Adapters,
    benchmark: BenchmarkNames,
    protocol: ProtocolNames,
    out: Out = None,
    length: Length = 350,
    strip: Strip = True,
    column: Column = None,
    sample_by: SampleBy = None,
    limit: Limit = None,
    sample: Sample = None,
    chat_template: ChatTemplate = None,
    assistant_only_loss: AssistantOnly = False,
    max_new_tokens: MaxNewTokens = None,
    stop: Stop = None,
    function: Function = None,
    precision: Precision = "float32",
    mirror: Mirror = None,
    offline: Offline = False,
    device: Device = "auto",
    restart: Restart = False,
    is_reference: Reference = False,
    padded: Padded = False,
    as_json: AsJson = False,
) -> None:
    """Score adapters or models from any trainer, and BASE, then build the report of a study."""
    options.check_precision(device, precision)
    find = partial(find_benchmark, limit=limit, sample=sample, column=column, sample_by=sample_by)
    answering = Answering(max_new_tokens, stop, function)
    benchmarks = [find(name, protocol, answering=answering) for name in benchmark]
    answers = (assistant_only_loss, chat_template)
    settings = _settle((length, precision), answers, strip=strip, is_reference=is_reference)
    study = _describe(base, adapter, benchmarks, settings)
    folder = StudyFolder(out or Path("studies") / study.name)
    opened = OpenedStudy(study, folder, stored_places(folder, mirror, offline=offline))
    _conduct(opened, device, restart=restart, with_padded=padded, as_json=as_json)


def _settle(
    rows: tuple[int, str], answers: tuple[bool, str | None], *, strip: bool, is_reference: bool
) -> "ScoringSettings":
    from lorastudy.data.answers import AnswerRules
    from lorastudy.study.compare import ScoringSettings

    return ScoringSettings(
        length=rows[0],
        precision=rows[1],
        strip=strip,
        rules=AnswerRules(None, *answers),
        implementation="reference" if is_reference else "fast",
    )


def _describe(
    base: str,
    adapters: Sequence[str],
    benchmarks: Sequence[Benchmark],
    settings: "ScoringSettings",
) -> Study:
    from lorastudy.study.compare import describe_comparison, name_comparison

    folders, reference = read_adapters(adapters), model_reference(base)
    return describe_comparison(name_comparison(reference), reference, folders, benchmarks, settings)


def _conduct(
    opened: OpenedStudy, device: str, *, restart: bool, with_padded: bool, as_json: bool
) -> None:
    from lorastudy.cli.run import finish
    from lorastudy.store.resuming import Resuming
    from lorastudy.study.compare import begin_comparison
    from lorastudy.study.wanted import Wanted

    with options.progress_on(is_stderr=as_json):
        _score(begin_comparison(opened, device, Resuming(restart)))
    finish(Wanted(opened), with_padded=with_padded, as_json=as_json)


def read_adapters(texts: Sequence[str]) -> dict[str, list[Path]]:
    """The folders of every name, both in the order given.

    Raises:
        ConfigError: A text is not NAME=DIR.
    """
    folders: dict[str, list[Path]] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name.strip() or not path.strip():
            raise ConfigError(
                f"--adapter {text!r}: write NAME=DIR, such as --adapter mine=outputs/adapter. "
                "Several folders of one name are its seeds."
            )
        folders.setdefault(name.strip(), []).append(Path(path.strip()))
    return folders


def _score(found: "Comparison") -> None:
    """Score what is missing, with a line for each model."""
    from lorastudy.interrupts import StopFlag
    from lorastudy.store.locks import read_lock
    from lorastudy.study.compare import score_missing
    from lorastudy.study.notes import list_texts, note_bases, note_texts

    opened = found.opened
    n_runs = sum(max(1, len(arm.weights)) for arm in opened.study.arms)
    print(
        f"{opened.study.name}: {len(found.missing)} of {n_runs} models to score in "
        f"{opened.folder.path}"
    )
    lock = read_lock(opened.folder)
    notes = (*note_texts(opened.study, lock), *note_bases(opened.study))
    for line in (*list_texts(lock), *(f"Note: {note}" for note in notes)):
        print(line)
    stop = StopFlag()
    stop.listen()
    for spec, result in zip(found.missing, score_missing(found, stop), strict=True):
        is_done = not isinstance(result, UserError)
        print(f"{spec.arm.name}, seed {spec.seed}: {'scored' if is_done else result}")
