"""`lorastudy.evaluate`: score any model on a benchmark, without a study."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lorastudy.config.references import Answering, find_benchmark, model_reference
from lorastudy.errors import InputError
from lorastudy.run.evaluate_model import evaluate_model, evaluate_network
from lorastudy.run.readers import make_reader
from lorastudy.store.records import EvaluationRecord
from lorastudy.study.open import places_here


def evaluate(
    model: Any,
    benchmark: str | Path,
    protocol: str,
    *,
    adapter: str | Path | None = None,
    tokenizer: Any = None,
    length: int = 350,
    limit: int | None = None,
    sample: int | None = None,
    column: str | None = None,
    max_new_tokens: int | None = None,
    stop: Sequence[str] = (),
    function: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    mirror: str | Path | None = None,
    offline: bool = False,
) -> EvaluationRecord:
    """Score a model on a benchmark under one protocol, as `lorastudy evaluate` does.

    Args:
        model: Folder or hub id; or a transformers or PEFT model in memory, which is scored where
            it is and in the precision it has.
        benchmark: Name of a preset's benchmark; or a file, a folder or a pattern of texts.
        protocol: A name such as "rows-text"; see docs/protocols.md.
        adapter: With a folder or hub id: PEFT folder, such as a run's best/.
        tokenizer: With a model in memory: its tokenizer, unless it is `model.tokenizer`.
        length: Tokens of a row, for protocols of rows.
        limit: Score only this many documents, the first ones.
        sample: Score only this many random documents; gives a standard error.
        column: The column that holds the text, in files that have columns; None: text.
        max_new_tokens: The most tokens of a generated answer; None: 64.
        stop: Texts before which a generated answer ends.
        function: Judge of own-function: module:function or file.py:function.
        device: auto, cpu or cuda.
        precision: float32 or bfloat16.
        mirror: Folder laid out like the hub, looked at before the cache and the hub.
        offline: Never ask the hub.

    Raises:
        StudyError: There is no such benchmark or protocol, or it does not fit the model.
        lorastudy.errors.InputError: The model, adapter, tokenizer or data cannot be used.
    """
    source = find_benchmark(
        *(str(benchmark), (protocol,)),
        limit=limit,
        sample=sample,
        column=column,
        answering=Answering(max_new_tokens, stop, function),
    )
    places = places_here(None if mirror is None else Path(mirror), offline=offline)
    if isinstance(model, str | Path):
        (record,) = evaluate_model(
            model_reference(str(model)),
            None if adapter is None else Path(adapter),
            source,
            places,
            length=length,
            device=device,
            precision=precision,
        )
    else:
        with TemporaryDirectory(prefix="lorastudy-") as folder:
            network = _describe(model, tokenizer, Path(folder))
            reader = make_reader(Path(folder), places)
            (record,) = evaluate_network(
                network, reader, source, length=length, precision=precision
            )
    return record


def _describe(model: Any, tokenizer: Any, folder: Path) -> Any:
    """Write the configuration and the tokenizer of a model in memory to `folder`.

    Gives the network: that of a PEFT model has the adapter in its modules.
    """
    backend = tokenizer or getattr(model, "tokenizer", None)
    if backend is None:
        raise InputError("evaluate: the model has no tokenizer. Give one with tokenizer=.")
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    network.config.save_pretrained(folder)
    backend.save_pretrained(folder)
    return network
