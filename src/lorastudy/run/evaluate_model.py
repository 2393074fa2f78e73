"""Score a model that is loaded here, perhaps with an adapter, or one that is in memory."""

from pathlib import Path

import numpy as np
import torch

from lorastudy.config.models import BaseModelRef, Benchmark, Rows
from lorastudy.data.answers import ALL_ANSWERS, AnswerRules
from lorastudy.errors import InputError
from lorastudy.evaluate.score import RowScores
from lorastudy.machine.environment import choose_device, limit_threads, refuse_precision
from lorastudy.machine.waiting import sleep_beside_others
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import CausalModel, load_base, prepare_process
from lorastudy.model.base_folder import find_base_folder
from lorastudy.model.scoring import Scorer, make_scorer
from lorastudy.run.answer_rows import refuse_unfit_keys
from lorastudy.run.inputs import BenchmarkRows, Reader
from lorastudy.run.readers import make_reader
from lorastudy.run.scores import describe_scores, score_benchmark_rows, score_part
from lorastudy.run.tasks import TaskItems
from lorastudy.store.places import Places
from lorastudy.store.records import EvaluationRecord


def evaluate_model(
    model: BaseModelRef,
    adapter: Path | None,
    benchmark: Benchmark,
    places: Places,
    *,
    length: int,
    device: str,
    precision: str,
    implementation: str = "fast",
    strip: bool = True,
    rules: AnswerRules = ALL_ANSWERS,
) -> tuple[EvaluationRecord, ...]:
    """One record for each protocol of `benchmark`.

    `length` and `strip` are those of `data.rows`; only row protocols use them. `rules` are for rows
    with answers.

    Raises:
        InputError: The model, adapter or data cannot be used.
        ConfigError: A protocol does not fit the model, or a setting does not fit the rows.
    """
    prepare_process()
    limit_threads()
    where = choose_device(device)
    refuse_precision(where, precision)
    folder = find_base_folder(model, mirror=places.mirror, offline=places.offline, base=places.base)
    rows = Rows(cut="lines", length=length, strip=strip)
    reader = make_reader(folder, places, rules)
    laid_out = _lay_out(reader, benchmark, rows)
    refuse_unfit_keys(rows, rules, benchmark.label, reader.answers_of(benchmark))
    network = load_base(folder, device=where)
    if adapter is not None:
        load_adapter(network, adapter)
    scorer = make_scorer(network, precision, implementation=implementation)
    with sleep_beside_others():
        return _score(scorer, laid_out, benchmark.name, where)


def evaluate_network(
    network: CausalModel, reader: Reader, benchmark: Benchmark, *, length: int, precision: str
) -> tuple[EvaluationRecord, ...]:
    """One record for each protocol of `benchmark`, of a model in memory, on its own device.

    The model is left as it was. It is scored by the reference implementation, since the fast one
    replaces parts of a model.

    Raises:
        InputError: The data cannot be used.
        ConfigError: A protocol does not fit the model.
    """
    laid_out = _lay_out(reader, benchmark, Rows(cut="lines", length=length))
    device, was_training = next(network.parameters()).device, network.training
    scorer = make_scorer(network.eval(), precision, implementation="reference")
    try:
        return _score(scorer, laid_out, benchmark.name, device)
    finally:
        network.train(was_training)


def _lay_out(reader: Reader, benchmark: Benchmark, rows: Rows) -> list[BenchmarkRows | TaskItems]:
    return [reader.benchmark_part(benchmark, name, rows) for name in benchmark.protocols]


def _score(
    scorer: Scorer,
    laid_out: list[BenchmarkRows | TaskItems],
    benchmark: str,
    device: torch.device,
) -> tuple[EvaluationRecord, ...]:
    records = []
    for part in laid_out:
        if isinstance(part, TaskItems):
            records.append(score_part(scorer, part, benchmark, device).evaluation)
            continue
        scores = score_benchmark_rows(scorer, part, device)
        _refuse_not_finite(scores, f"{benchmark}, {part.protocol.name}", scorer.precision)
        records.append(describe_scores(benchmark, part, scores).evaluation)
    return tuple(records)


def _refuse_not_finite(scores: RowScores, what: str, precision: str) -> None:
    n_bad = int(np.count_nonzero(~np.isfinite(scores.sum_nats)))
    if n_bad:
        raise InputError(
            f"{what}: {n_bad} of {len(scores.sum_nats)} rows have a score that is not finite, so "
            f"there is no perplexity. The model's numbers leave the range of {precision} on this "
            "text; look at the weights, and at lora_alpha where there is an adapter."
        )
