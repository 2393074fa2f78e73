"""The content of `samples.json`: texts that a run's model wrote, for people to read."""

from lorastudy.config.syntax import IfAny
from lorastudy.store.records import Record


class SampleRecord(Record):
    """What a model wrote after one prompt."""

    prompt: str
    text: str
    # it ended only at `max_new_tokens`
    is_cut: IfAny[bool] = False


class SamplesRecord(Record):
    """`samples.json` of a run: what its model wrote after the prompts of the study."""

    samples: tuple[SampleRecord, ...]
