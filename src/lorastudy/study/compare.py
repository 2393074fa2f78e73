"""Compare models that other programs trained: each is one run of a study that trains nothing.

The base model is the baseline, a name is an arm, and the folders given under one name are its seeds
in their order. So records, resuming, statistics and report are those of every study. Everything
that can be refused is refused before the first model is scored.
"""

import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lorastudy.config.models import BaseModelRef, Benchmark, Study
from lorastudy.config.sources import ELSEWHERE, StoredWeights
from lorastudy.config.spec import RunSpec
from lorastudy.config.study_file import make_study
from lorastudy.config.syntax import make_name
from lorastudy.data.answers import ALL_ANSWERS, AnswerRules
from lorastudy.errors import ConfigError, InputError, InterruptedRunError, UserError
from lorastudy.interrupts import StopFlag
from lorastudy.machine.environment import choose_device, refuse_precision
from lorastudy.model.base import describe_base, prepare_process
from lorastudy.model.base_refusals import refuse_other_formats
from lorastudy.model.elsewhere import describe_weights
from lorastudy.model.tokenizer import load_tokenizer
from lorastudy.run.answer_rows import refuse_unfit_keys
from lorastudy.run.context import RunContext
from lorastudy.run.elsewhere import load_model
from lorastudy.run.execute import execute_run
from lorastudy.run.inputs import Reader
from lorastudy.run.readers import open_reader
from lorastudy.store.collect import read_own_file
from lorastudy.store.folders import StudyFolder
from lorastudy.store.rates import list_runs
from lorastudy.store.records import RunResult
from lorastudy.store.resuming import Resuming
from lorastudy.study.lock import lock_scored, read_scored
from lorastudy.study.open import OpenedStudy
from lorastudy.study.start import (
    lock_study,
    missing_runs,
    refuse_folder,
    remember_places,
    start_study,
)

BASELINE = "baseline"  # the arm of the base model itself


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSettings:
    """How all models are scored; as the options of `evaluate`."""

    length: int = 350
    strip: bool = True
    rules: AnswerRules = ALL_ANSWERS
    precision: str = "float32"
    implementation: str = "fast"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison that may begin: its folder is written, and these runs are missing."""

    opened: OpenedStudy
    reader: Reader
    device: torch.device
    missing: tuple[RunSpec, ...]
    resuming: Resuming = field(default_factory=Resuming)


def name_comparison(base: BaseModelRef) -> str:
    """The name of a comparison, from the last part of its base model."""
    last = re.split(r"[/\\]", str(base.id or base.path or base.builtin))[-1]
    return f"compare-{make_name(last, most=48) or 'model'}"


def describe_comparison(
    name: str,
    base: BaseModelRef,
    folders: Mapping[str, Sequence[Path]],
    benchmarks: Sequence[Benchmark],
    settings: ScoringSettings,
) -> Study:
    """The study that scores `base` and the weights in `folders`, which are listed by arm.

    Raises:
        ConfigError: Names or settings cannot be used, or the same weights are given twice.
        InputError: A folder holds no weights that can be scored, or is damaged.
    """
    if any(arm.casefold() == BASELINE for arm in folders):
        raise ConfigError(
            f"--adapter {BASELINE}=...: this is the name of the base model. Choose another one."
        )
    if not folders or not all(folders.values()):
        raise ConfigError("Give at least one name of an adapter, and one folder for each name.")
    weights = {arm: tuple(map(describe_weights, paths)) for arm, paths in folders.items()}
    _refuse_repeated(weights)
    rules = settings.rules
    template = rules.chat_template_path
    keys: dict[str, object] = {
        "name": name,
        "base_model": base,
        "data": {
            "train": ELSEWHERE,
            "validation": ELSEWHERE,
            "rows": {"cut": "lines", "length": settings.length, "strip": settings.strip},
            "assistant_only_loss": rules.assistant_only_loss,
            "chat_template_path": str(Path.cwd() / template) if template else None,
        },
        "training": {  # of which only the last two mean something
            **{"epochs": 1, "rows_per_step": 1, "micro_batch": 1, "schedule": {"rounding": "down"}},
            "precision": settings.precision,
            "implementation": settings.implementation,
        },
        "seeds": list(range(max(map(len, weights.values())))),
        "arms": [
            {"name": BASELINE, "method": "baseline"},
            *({"name": a, "method": "elsewhere", "weights": w} for a, w in weights.items()),
        ],
        "benchmarks": list(map(_with_whole_path, benchmarks)),
    }
    return make_study(keys, "this comparison")


def _with_whole_path(benchmark: Benchmark) -> Benchmark:
    """The same benchmark wherever the command is typed again."""
    if benchmark.path is None:
        return benchmark
    return benchmark.model_copy(update={"path": str(Path.cwd() / benchmark.path)})


def _refuse_repeated(weights: Mapping[str, Sequence[StoredWeights]]) -> None:
    """Check that no weights are there twice: as two seeds they would show no spread at all."""
    first: dict[str, str] = {}
    for arm, parts in weights.items():
        for one in parts:
            said = f"{arm}={one.folder}"
            if (other := first.setdefault(one.sha256, said)) != said or parts.count(one) > 1:
                raise ConfigError(
                    f"--adapter {said}: the same weights are given as {other}. Give each once."
                )


def begin_comparison(
    opened: OpenedStudy,
    device: str,
    resuming: Resuming = Resuming(),  # noqa: B008  frozen
) -> Comparison:
    """Check everything, write the folder or compare it, and say which runs are missing.

    Every model that is missing is loaded once, and let go.

    Raises:
        ConfigError: Settings do not fit together, or another comparison was started in the folder.
        InputError: A model does not fit the base model, or what was scored before has changed.
    """
    prepare_process()
    study, folder, where = opened.study, opened.folder, choose_device(device)
    _refuse_changed(study, folder)
    refuse_folder(study, folder)
    refuse_precision(where, study.training.precision)
    reader = open_reader(study, opened.places)
    refuse_other_formats(reader.base.folder)
    scored = read_scored(study, reader)
    for benchmark in study.benchmarks:
        answers = reader.answers_of(benchmark)
        refuse_unfit_keys(study.data.rows, reader.rules, benchmark.label, answers)
    _refuse_other_readers(study, reader)
    runs = list_runs(study, folder)
    missing = missing_runs(runs, folder, again=resuming.restart)
    found = Comparison(opened, reader, where, missing, resuming)
    for spec in missing:
        load_model(_make_context(found, spec, StopFlag()))
        gc.collect()
    start_study(study, folder)
    lock_study(lock_scored(study, reader, scored, where), folder)
    remember_places(opened.places, folder)
    return found


def score_missing(found: Comparison, stop: StopFlag) -> Iterator[RunResult | UserError]:
    """Score every missing model, one after another; a model that fails is a row of the report.

    Raises:
        InterruptedRunError: `stop` was requested; the same call continues.
    """
    for spec in found.missing:
        try:
            yield execute_run(_make_context(found, spec, stop))
        except InterruptedRunError:
            raise
        except UserError as error:
            yield error
        gc.collect()


def _make_context(found: Comparison, spec: RunSpec, stop: StopFlag) -> RunContext:
    return RunContext(
        spec=spec,
        folder=found.opened.folder.run(spec.run_id),
        reader=found.reader,
        device=found.device,
        stop=stop,
        resuming=found.resuming,
    )


def _refuse_other_readers(study: Study, reader: Reader) -> None:
    """Check that whole models read texts as the base model does.

    Raises:
        InputError: One has another tokenizer, too few tokens, or a shorter context.
    """
    models = [w for arm in study.arms for w in arm.weights if w.kind == "model"]
    context = reader.base.max_positions
    for weights in models:
        folder = Path(weights.folder)
        described = describe_base(folder)
        if load_tokenizer(folder, None).digest != reader.tokenizer.digest:
            raise InputError(
                f"{folder}: its tokenizer is not that of {reader.base.folder}, so the two divide "
                "texts into different tokens and their scores cannot be compared. Score it by "
                "itself with `lorastudy evaluate`, per byte or word."
            )
        if described.vocabulary_size < reader.tokenizer.vocabulary_size:
            raise InputError(
                f"{folder}: its embedding has {described.vocabulary_size} rows, fewer than the "
                f"{reader.tokenizer.vocabulary_size} tokens of its tokenizer. Give a model with "
                "the vocabulary of the base model."
            )
        own = described.max_positions
        if own is not None and (context is None or own < context):
            raise InputError(
                f"{folder}: its context of {own} tokens is shorter than that of the base model. "
                "Give a model with the same context."
            )


def _refuse_changed(study: Study, folder: StudyFolder) -> None:
    """Check that the folders of an earlier call hold the weights that were scored.

    Raises:
        InputError: One does not; its arm and seed are named.
    """
    if not folder.study.is_file():
        return
    before = {arm.name: arm.weights for arm in read_own_file(folder).arms}
    for arm in study.arms:
        for seed, (old, new) in enumerate(zip(before.get(arm.name, ()), arm.weights, strict=False)):
            if old.folder == new.folder and old.sha256 != new.sha256:
                raise InputError(
                    f"{new.folder} does not hold the weights that were scored as {arm.name}, seed "
                    f"{seed}, in {folder.path}. Restore them, or give another folder with --out."
                )
