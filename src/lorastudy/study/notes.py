"""What a person should know of a study before it runs, although nothing is wrong with it."""

from collections.abc import Iterator

from lorastudy.config.models import Study
from lorastudy.data.text_counts import TextCounts
from lorastudy.machine.environment import note_precision
from lorastudy.study.check import ArmCheck, StudyCheck

MOST_LOST = 0.05  # share of tokens that may be lost without a note


def note_study(
    study: Study, checked: StudyCheck, train: TextCounts, validation: TextCounts
) -> Iterator[str]:
    """Sentences about lost text, slow arithmetic, and ranks above the width of a layer."""
    for name, counts in (("train", train), ("validation", validation)):
        if counts.dropped_share > MOST_LOST:
            why = (
                "since what is left at the end is shorter than a row. Use shorter rows."
                if study.data.rows.cut == "stream"
                else "since a row is the beginning of one document or line. data.rows.cut: stream "
                "reads all of them; sample_by: document keeps the lines of a file together."
            )
            yield (
                f"{counts.dropped_share:.0%} of the {counts.n_tokens:,} tokens of {name} are in no "
                f"row, {why}"
            )
        if counts.unknown_share > MOST_LOST:
            yield (
                f"{counts.unknown_share:.0%} of the tokens of {name} are the unknown token: the "
                "tokenizer does not know this text, and perplexities say little about it."
            )
    base = checked.reader.base
    if base.attention != "sdpa":
        yield (
            f"{base.model_type} knows no fused attention, so it runs with transformers' eager one, "
            "which is slower and needs more memory."
        )
    if (slow := note_precision(checked.device, study.training.precision)) is not None:
        yield slow
    for arm in checked.arms:
        yield from _note_rank(arm)


def _note_rank(arm: ArmCheck) -> Iterator[str]:
    rank = arm.placement.rank or 0
    wide = [t for t in arm.placement.targets if rank > min(t.in_features, t.out_features)]
    if wide:
        width = min(wide[0].in_features, wide[0].out_features)
        yield (
            f"{arm.spec.arm.name}: rank {rank} is above the width {width} of {wide[0].path} and of "
            f"{len(wide) - 1} other modules, so LoRA is larger than the weight that it adapts."
        )
