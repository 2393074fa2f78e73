"""What a trained model writes after the prompts of a study, for people to read side by side."""

from dataclasses import dataclass

from lorastudy.config.benchmarks import Samples
from lorastudy.config.models import Source
from lorastudy.data.examples import Example
from lorastudy.data.sources import read_documents
from lorastudy.errors import InputError
from lorastudy.evaluate.writing import write_continuations
from lorastudy.model.generating import Ids
from lorastudy.run.context import RunContext
from lorastudy.run.inputs import Reader
from lorastudy.run.setup import RunSetup
from lorastudy.run.task_items import refuse_long_prompts, write_prompts
from lorastudy.store.files import write_record
from lorastudy.store.sample_records import SampleRecord, SamplesRecord


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a study, as people and as a model read them."""

    texts: tuple[str, ...]
    ids: tuple[Ids, ...]


def read_prompts(samples: Samples, reader: Reader) -> Prompts:
    """The prompts that a study names.

    Raises:
        InputError: They cannot be read, or leave no room for an answer; the message names the row.
    """
    examples = _read_examples(samples, reader)
    ids = write_prompts(examples, reader.tokenizer)
    if (length := reader.base.max_positions) is not None:
        refuse_long_prompts(examples, ids, samples.max_new_tokens, length)
    return Prompts(tuple(example.question for example in examples), ids)


def _read_examples(samples: Samples, reader: Reader) -> tuple[Example, ...]:
    """The prompts as rows without an answer."""
    if samples.path is None:
        numbered = enumerate(samples.prompts, 1)
        return tuple(Example(f"samples.prompts, number {n}", text, "") for n, text in numbered)
    places = reader.places
    found = read_documents(
        Source(path=samples.path), mirror=places.mirror, offline=places.offline, base=places.base
    )
    texts = [text for text in found.texts if text.strip()]
    rows = tuple(Example(f"{samples.path}, text {n}", t, "") for n, t in enumerate(texts, 1))
    if not (rows or found.examples):
        raise InputError(f"samples.path: {samples.path} has no prompt. Write one per line.")
    return rows or found.examples


def write_samples(context: RunContext, setup: RunSetup) -> None:
    """Generate and write `samples.json`, if the study has prompts and the file is not there yet."""
    samples, folder, team = context.spec.samples, context.folder, context.team
    if samples is None or team.any(team.is_first and folder.samples.exists()):
        return
    prompts, tokenizer = read_prompts(samples, context.reader), context.reader.tokenizer
    found = write_continuations(
        setup.scorer,
        tokenizer,
        prompts.ids,
        max_new_tokens=samples.max_new_tokens,
        stops=samples.stop,
        end_ids=tokenizer.ending_ids,
        device=context.device,
        poll=context.stop.poll,
    )
    record = SamplesRecord(
        samples=tuple(
            SampleRecord(prompt=prompt, text=each.text, is_cut=each.is_cut)
            for prompt, each in zip(prompts.texts, found, strict=True)
        )
    )
    if team.is_first:
        write_record(folder.samples, record)
        folder.note_written()
