"""Load a model, and perhaps an adapter, and score it: the work of `lorastudy evaluate`."""

from pathlib import Path

from lorastudy.config.models import BaseModelRef, Benchmark, Rows
from lorastudy.machine.environment import (
    choose_device,
    forbid_tf32,
    refuse_precision,
    set_up_memory,
)
from lorastudy.model.adapters import load_adapter
from lorastudy.model.base import load_base, quieten_libraries
from lorastudy.model.base_folder import find_base_folder
from lorastudy.model.scoring import make_scorer
from lorastudy.run.inputs import make_reader
from lorastudy.run.scores import describe_scores, score_benchmark_rows
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
) -> tuple[EvaluationRecord, ...]:
    """One record for each protocol of `benchmark`.

    Raises:
        InputError: The model, adapter or data cannot be used.
        ConfigError: A protocol does not fit the model.
    """
    quieten_libraries()
    set_up_memory()
    forbid_tf32()
    where = choose_device(device)
    refuse_precision(where, precision)
    folder = find_base_folder(model, mirror=places.mirror, offline=places.offline, base=places.base)
    reader = make_reader(folder, places)
    rows = Rows(cut="lines", length=length)
    laid_out = [reader.benchmark_rows(benchmark, name, rows) for name in benchmark.protocols]
    network = load_base(folder, device=where)
    if adapter is not None:
        load_adapter(network, adapter)
    scorer = make_scorer(network, precision, implementation=implementation)
    records = []
    for part in laid_out:
        scores = score_benchmark_rows(scorer, part, where)
        records.append(describe_scores(benchmark.name, part, scores).evaluation)
    return tuple(records)
