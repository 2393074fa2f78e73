"""What a person should know of a study before it runs, although nothing is wrong with it."""

from collections.abc import Iterator
from pathlib import Path

from lorastudy.config.models import BaseWeights, BestBy, Study
from lorastudy.errors import show_names
from lorastudy.machine.environment import note_precision
from lorastudy.model.adapter_files import note_other_base
from lorastudy.model.base import BaseDescription
from lorastudy.model.base_folder import find_own_code
from lorastudy.model.base_refusals import list_unread_weights
from lorastudy.model.base_weights import PACKED
from lorastudy.run.inputs import Reader
from lorastudy.store.counts import Overlap, TextCounts, note_altered
from lorastudy.store.locks import StudyLock
from lorastudy.study.check import ArmCheck, StudyCheck, weights_come_later
from lorastudy.units import write_count, write_portion


def note_study(study: Study, checked: StudyCheck) -> Iterator[str]:
    """Sentences about texts, weights, parts that are left out, slow arithmetic, and large ranks."""
    yield from note_texts(study, checked.lock)
    yield from _note_text_part(checked.reader.base)
    yield from _note_own_code(checked.reader.base)
    yield from _note_tokenizer(checked.reader)
    yield from _note_attention(checked.reader.base)
    yield from _note_weights(study, checked.reader)
    if (slow := note_precision(checked.device, study.training.precision)) is not None:
        yield slow
    for held in dict.fromkeys(arm.base_weights for arm in study.arms):
        yield from _note_packing(checked.reader.base, held)
    for arm in checked.arms:
        yield from _note_rank(arm)
    if (task := study.data.best_by) is not None:
        yield _note_best_by(study, task)
    judged = {benchmark.name: benchmark.function for benchmark in study.benchmarks}
    judged |= {"data.best_by": task.function} if task else {}
    for name, function in judged.items():
        if function is not None:
            yield f"answers of {name} are judged by code: {function}."


def _note_best_by(study: Study, task: BestBy) -> str:
    chosen = ["the best weights"]
    chosen += ["learning rates"] if any(len(arm.learning_rates) > 1 for arm in study.arms) else []
    chosen += ["early stops"] if study.training.early_stopping else []
    rows = "validation rows" if task.items is None else "data.best_by.items"
    return (
        f"right answers to {rows} decide ({task.protocol}, data.best_by) on {', '.join(chosen)}. "
        "If two validations have equally many, the lower validation loss decides."
    )


def list_texts(lock: StudyLock) -> tuple[str, ...]:
    """Lines for each text; protocols that lose the same of it share a line."""
    alike: dict[tuple[str, bool, TextCounts], list[str]] = {}
    for name, counts in lock.texts.items():
        benchmark, _, protocol = name.rpartition("--")
        protocols = alike.setdefault((benchmark or name, bool(benchmark), counts), [])
        protocols += [protocol] * bool(benchmark)
    lines = []
    for (text, is_benchmark, counts), protocols in alike.items():
        lines.append(f"{text}{f' under {show_names(protocols)}' if protocols else ''}: {counts}")
        if text == "train" and not is_benchmark:
            lines += [f"train, {part}" for part in lock.mixture]
        elif text == "validation" and not is_benchmark and lock.held_out is not None:
            lines.append(f"validation, {lock.held_out}")
    return tuple(lines)


def note_bases(study: Study) -> list[str]:
    """Adapters of a comparison that were trained on a base model of another name."""
    adapters = [w for arm in study.arms for w in arm.weights if w.kind == "adapter"]
    folders = [Path(w.folder) for w in adapters if Path(w.folder).is_dir()]
    found = (note_other_base(folder, study.base_model) for folder in folders)
    return [note for note in found if note]


def note_texts(study: Study, lock: StudyLock) -> Iterator[str]:
    """Sentences about text that is lost, unknown or changed."""
    data = study.data
    for name, part in (("train", data.train_part), ("validation", data.validation_part)):
        counts = lock.texts.get(name)
        if counts is not None and counts.answers is not None:
            yield from _note_answers(name, counts, study)
        elif counts is not None and counts.is_truncated:
            why = (
                "since what is left at the end is shorter than a row. Use shorter rows."
                if study.data.rows.cut == "stream"
                else "since a row is the beginning of one document. data.rows.cut: stream reads "
                "all of them."
            )
            if any(s.path is not None and s.sample_by == "line" for s in part.sources):
                why += " In text files, sample_by: document keeps the lines of a file together."
            lost = write_portion(counts.dropped_share)
            yield f"{lost} of the {counts.n_tokens:,} tokens of {name} are in no row, {why}"
    yield from _note_cut_benchmarks(study, lock)
    unknown: dict[str, float] = {}
    for name, counts in lock.texts.items():
        if counts.is_unknown:
            unknown.setdefault(name.rsplit("--", 1)[0], counts.unknown_share)
    for name, share in unknown.items():
        yield (
            f"{write_portion(share)} of the tokens of {name} are the unknown token: the tokenizer "
            "does not know this text, so perplexities say little about it, and there are none per "
            "byte or word."
        )
    altered = {n.rsplit("--", 1)[0]: c for n, c in lock.texts.items() if c.is_altered}
    yield from (note_altered(name, counts) for name, counts in altered.items())


def _note_cut_benchmarks(study: Study, lock: StudyLock) -> Iterator[str]:
    """One sentence for each benchmark of texts whose rows leave out more than a small part."""
    for benchmark in study.benchmarks:
        found = {name: lock.texts.get(f"{benchmark.name}--{name}") for name in benchmark.protocols}
        cut = {
            name: counts.dropped_share
            for name, counts in found.items()
            if counts is not None and counts.answers is None and counts.is_truncated
        }
        if cut:
            yield (
                f"{write_portion(max(cut.values()))} of the tokens of {benchmark.name} are in no "
                f"row under {show_names(cut)}, so they are not scored. The protocol document "
                "scores all of them."
            )


def _note_answers(name: str, counts: TextCounts, study: Study) -> Iterator[str]:
    """Sentences about rows with answers that are too long, or scored from end to end."""
    answers = counts.answers
    assert answers is not None
    if answers.n_left_out:
        yield (
            f"{answers.n_left_out:,} of the {counts.n_documents:,} rows of {name} are longer than "
            f"{study.data.rows.length} tokens and left out (data.rows.too_long: drop)."
        )
    if answers.n_cut:
        yield (
            f"{answers.n_cut:,} of the {counts.n_documents:,} rows of {name} are longer than "
            f"{study.data.rows.length} tokens, so that their prompt loses its beginning "
            "(data.rows.too_long: cut-prompt)."
        )
    if answers.kind == "messages" and not study.data.assistant_only_loss:
        yield (
            f"every token of the messages of {name} is scored, questions too. With "
            "data.assistant_only_loss: true, only answers are."
        )


def note_overlaps(lock: StudyLock) -> Iterator[str]:
    """Sentences about texts that are held out and trained on all the same, or trained on twice."""
    yield from map(_note_overlap, (part for part in lock.overlap if part.documents))
    for part in lock.mixture:
        if part.n_repeated:
            yield (
                f"{write_count(part.n_repeated, 'document')} of {part.label} are also in "
                f"{part.also_in}: what two sources of data.train.mixture share is trained on more "
                "often than their weights say."
            )


def _note_overlap(found: Overlap) -> str:
    shared = f"{found.documents:,} of the {found.of:,} documents of "
    if found.benchmark is None:
        return (
            f"{shared}the validation split are in the training split: the best epoch is chosen "
            "by memory too."
        )
    return f"{shared}{found.benchmark} are in the training split: its scores show memory too."


def _note_text_part(base: BaseDescription) -> Iterator[str]:
    if base.text_part_of is not None:
        yield (
            f"The base model is a {base.text_part_of}. Only its text part is loaded, counted and "
            "trained. Its other parts are copied unchanged into every whole model that is written."
        )


def _note_own_code(base: BaseDescription) -> Iterator[str]:
    if code := find_own_code(base.folder):
        yield (
            f"{base.folder / 'config.json'} names code of the model's own ({code}), which is not "
            f"run: the model is computed by transformers' {base.model_type}. If the two differ, so "
            "do all scores."
        )


def _note_tokenizer(reader: Reader) -> Iterator[str]:
    if other := reader.tokenizer.other_class:
        yield (
            f"texts become the tokens that {reader.base.folder / 'tokenizer.json'} makes. "
            f"transformers' {other}, which AutoTokenizer loads, has other steps than this file and "
            "makes other tokens of some texts. In transformers, load it as PreTrainedTokenizerFast."
        )


def _note_weights(study: Study, reader: Reader) -> Iterator[str]:
    folder = reader.base.folder
    if weights_come_later(study, reader):
        yield (
            f"The weights of {study.base_model.id} are not in the local cache, so they are not "
            "checked. `run` without --offline fetches them."
        )
    elif unread := list_unread_weights(folder):
        yield f"{folder} also holds {show_names(unread, most=3)}, which is not read."


def _note_attention(base: BaseDescription) -> Iterator[str]:
    if base.attention != "sdpa":
        yield (
            f"{base.model_type} knows no fused attention, so it runs with transformers' eager one, "
            "which is slower and needs more memory."
        )


def _note_packing(base: BaseDescription, held: BaseWeights) -> Iterator[str]:
    """A sentence if most of a base that is to be packed stays in 16 bits, as a mixture's does."""
    packed = base.linear_parameters / base.total_parameters
    if held in PACKED and packed < 1 / 2:
        yield (
            f"base_weights: {held} packs {write_portion(packed)} of the base model's weights, "
            "those of linear modules. Embeddings, the output layer and the experts of a mixture "
            "are held in bfloat16, so the base needs nearly as much memory as in bfloat16."
        )


def _note_rank(arm: ArmCheck) -> Iterator[str]:
    rank = arm.placement.rank or 0
    wide = [t for t in arm.placement.targets if rank > min(t.in_features, t.out_features)]
    if wide:
        width = min(wide[0].in_features, wide[0].out_features)
        yield (
            f"{arm.spec.arm.name}: rank {rank} is above the width {width} of {wide[0].path} and of "
            f"{len(wide) - 1} other modules, so LoRA is larger than the weight that it adapts."
        )
