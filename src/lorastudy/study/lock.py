"""What every run of a study has to match: digests of all that is read, and what is read of it."""

import hashlib
import json
from collections.abc import Mapping

import torch

from lorastudy.config.models import Part, Source, Study
from lorastudy.data.text_counts import count_overlap, find_repeated
from lorastudy.machine.environment import take_fingerprint
from lorastudy.model.base_folder import digest_base
from lorastudy.model.base_weights import uses_bitsandbytes
from lorastudy.model.generation_settings import read_generation_settings
from lorastudy.run.harness_task import HarnessItems
from lorastudy.run.inputs import BenchmarkRows, Reader
from lorastudy.run.layout import TrainingLayout
from lorastudy.run.tasks import TaskItems
from lorastudy.store.counts import MixedRows, Overlap
from lorastudy.store.locks import StudyLock

BEST_BY = "data.best_by"  # the items whose right answers choose the best weights

Scored = Mapping[str, BenchmarkRows | TaskItems]  # by "<benchmark>--<protocol>"


def read_scored(study: Study, reader: Reader) -> Scored:
    """Every benchmark under every protocol, by "<benchmark>--<protocol>".

    Raises:
        ConfigError: A protocol is for another kind of rows.
        InputError: Nothing can be scored, or a row or an item does not fit into the model.
    """
    found = {
        f"{benchmark.name}--{protocol}": reader.benchmark_part(benchmark, protocol, study.data.rows)
        for benchmark in study.benchmarks
        for protocol in benchmark.protocols
    }
    for part in found.values():
        if isinstance(part, HarnessItems):  # the harness writes them only when they are asked for
            part.refuse_unfit()
    return found


def lock_scored(study: Study, reader: Reader, scored: Scored, device: torch.device) -> StudyLock:
    """What a study locks that only scores: the base model, and what is scored."""
    return StudyLock(
        base_digest=digest_base(reader.base.folder),
        tokenizer_digest=reader.tokenizer.digest,
        corpora={name: part.digest for name, part in scored.items()},
        texts={name: part.text for name, part in scored.items()},
        settings_digest=_digest_settings(reader, scored),
        revisions=reader.revisions,
        vocabulary_size=reader.base.vocabulary_size,
        studies=(study,),
        environment=take_fingerprint(
            device,
            study.training,
            uses_bitsandbytes=uses_bitsandbytes(study.training, study.arms),
        ),
    )


def _digest_settings(reader: Reader, scored: Scored) -> str:
    """SHA-256 over what else decides which tokens are read and written, in small files."""
    tokenizer = reader.tokenizer
    parts: list[object] = [tokenizer.start_id, tokenizer.end_id]
    if reader.has_messages:
        parts.append(tokenizer.chat_template)
    if any(isinstance(part, TaskItems) for part in scored.values()):
        settings = read_generation_settings(reader.base.folder)
        parts += [settings.get(name) for name in ("eos_token_id", "repetition_penalty")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def make_lock(
    study: Study, reader: Reader, layout: TrainingLayout, scored: Scored, device: torch.device
) -> StudyLock:
    """The contents of a new `study.lock.json`.

    Args:
        study: What is compared.
        reader: Has read its inputs.
        layout: That of any arm, since all of them read the same.
        scored: Parts of benchmarks.
        device: Where the study was checked.
    """
    rows, lock = study.data.rows, lock_scored(study, reader, scored, device)
    corpora = {
        **lock.corpora,
        "train": layout.corpus.digest,
        "validation": layout.validation_corpus.digest,
    }
    texts = {
        "train": reader.count_training_text(study.data.train_part, rows),
        "validation": reader.count_training_text(study.data.validation_part, rows),
        **lock.texts,
    }
    if (items := layout.items_of_best) is not None:
        corpora[BEST_BY], texts[BEST_BY] = items.digest, items.text
    return lock.model_copy(
        update={
            "corpora": corpora,
            "texts": texts,
            "mixture": _describe_mixture(study, reader, layout),
            "held_out": reader.held_out_of(study.data.validation_part),
            "overlap": _count_overlaps(study, reader),
        }
    )


def _count_overlaps(study: Study, reader: Reader) -> tuple[Overlap, ...]:
    """What validation and each benchmark share with training, ignoring white space at the ends."""
    trained = reader.corpus(study.data.train_part, "texts")
    texts: dict[str | None, Part | Source] = {None: study.data.validation_part}
    if study.data.best_by is not None and study.data.best_by.items is not None:
        texts[BEST_BY] = study.data.best_by.items
    texts |= {benchmark.name: benchmark for benchmark in study.benchmarks if benchmark.task is None}
    return tuple(
        count_overlap(name, reader.corpus(text, "texts"), trained) for name, text in texts.items()
    )


def _describe_mixture(
    study: Study, reader: Reader, layout: TrainingLayout
) -> tuple[MixedRows, ...]:
    train, shares = study.data.train, layout.plan.shares
    if not shares:
        return ()
    labels = [source.label for source in train.sources]
    repeated = find_repeated(reader.corpus(study.data.train_part, "texts"))
    return tuple(
        MixedRows(label, weight, share.n_rows, share.n_drawn, n, "" if of is None else labels[of])
        for label, weight, share, (n, of) in zip(
            labels, train.weights, shares, repeated, strict=True
        )
    )
