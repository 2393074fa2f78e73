"""What becomes of a text on its way to a model: how much of it is read, and how much is known.

Every command that reads data states these counts, and `study.lock.json` keeps those of a study.
"""

from dataclasses import dataclass

from lorastudy.config.syntax import IfAny, IfGiven
from lorastudy.units import write_count, write_portion

MOST_LOST = 0.05  # share of tokens that may be lost, or unknown, without a note
_MOST_ALTERED = 0.001  # share of letters that a tokenizer may change without a note


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """Rows with answers, and what of them is scored."""

    kind: str  # "prompts and completions", "messages"
    n_scored: int  # tokens that are targets
    n_cut: int  # rows whose prompt lost its beginning
    n_left_out: int  # rows that are too long, where these are left out

    def __str__(self) -> str:
        lost = [
            f"{write_count(n, 'row')} {what}"
            for n, what in (
                (self.n_cut, "with a prompt that is cut"),
                (self.n_left_out, "left out as too long"),
            )
            if n
        ]
        return ", ".join((f"{write_count(self.n_scored, 'token')} scored", *lost))


@dataclass(frozen=True, slots=True)
class TextCounts:
    """Tokens of a source, and those of them that a study loses."""

    n_documents: int
    n_tokens: int
    n_dropped: int  # tokens that are in no row, since rows are cut off or are too short
    n_unknown: int  # tokens that stand for any text that the tokenizer does not know
    # of rows with answers; None: the documents are texts
    answers: IfGiven[AnswerCounts] = None
    # characters that are not white space, of the part that was looked at for changed ones, if any
    n_letters: IfAny[int] = 0
    n_altered: IfAny[int] = 0  # those that it changes, so that the model need not predict them

    @property
    def dropped_share(self) -> float:
        """Share of tokens that are never read, from 0 to 1."""
        return self.n_dropped / max(1, self.n_tokens)

    @property
    def unknown_share(self) -> float:
        """Share of tokens that are unknown ones, from 0 to 1."""
        return self.n_unknown / max(1, self.n_tokens)

    @property
    def altered_share(self) -> float:
        """Share of letters that the tokenizer changes, from 0 to 1."""
        return self.n_altered / max(1, self.n_letters)

    @property
    def is_truncated(self) -> bool:
        """Whether more than a small part of the text is never read."""
        return self.dropped_share > MOST_LOST

    @property
    def is_unknown(self) -> bool:
        """Whether more than a small part of the text is unknown, so that nats are not its own."""
        return self.unknown_share > MOST_LOST

    @property
    def is_altered(self) -> bool:
        """Whether so much is changed that a person should know that nats are of another text."""
        return self.altered_share >= _MOST_ALTERED

    @property
    def has_units(self) -> bool:
        """Whether nats say something about the words and bytes of the text."""
        return max(self.unknown_share, self.altered_share) <= MOST_LOST

    def __str__(self) -> str:
        documents = write_count(self.n_documents, "document")
        if self.answers is not None:
            documents = f"{write_count(self.n_documents, 'row')} of {self.answers.kind}"
        dropped, unknown = (
            write_portion(share, 1) for share in (self.dropped_share, self.unknown_share)
        )
        counts = (
            f"{documents}, {write_count(self.n_tokens, 'token')}: {dropped} in no row, "
            f"{unknown} unknown to the tokenizer"
        )
        if self.n_altered:
            counts += f", {write_portion(self.altered_share, 1)} of the letters changed by it"
        return counts if self.answers is None else f"{counts}; {self.answers}"


def note_altered(name: str, counts: TextCounts) -> str:
    """A sentence on letters of the text `name` that the tokenizer changes."""
    so = (
        "so perplexities per byte or word are lower than they would be for the text itself"
        if counts.has_units
        else "so perplexities say little about it, and there are none per byte or word"
    )
    return (
        f"the tokenizer changes {write_portion(counts.altered_share, 1)} of the letters of {name}, "
        f"such as capitals or accents. The model need not predict what is lost, {so}."
    )


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many documents of a text are also in the training split, token for token."""

    benchmark: str | None  # None: the validation split, which chooses the best epoch
    documents: int
    of: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Documents of the training data that are validated on instead."""

    n_documents: int  # on both sides; blank ones do not count
    n_held_out: int
    n_repeated: int  # documents that say the same as an earlier one
    seed: int

    def __str__(self) -> str:
        repeated = (
            f"; {self.n_repeated:,} say the same as another one, and are on its side"
            if self.n_repeated
            else ""
        )
        return (
            f"{self.n_held_out:,} of the {self.n_documents:,} documents of data.train, chosen by "
            f"seed {self.seed}; the others are trained on{repeated}"
        )


@dataclass(frozen=True, slots=True)
class MixedRows:
    """What an epoch reads of one source of a mixture."""

    label: str
    share: float  # of the rows of an epoch, as the study file asks
    n_rows: int  # of the source
    n_drawn: int  # per epoch
    n_repeated: IfAny[int] = 0  # documents that an earlier source has as well
    also_in: IfAny[str] = ""  # that source

    def __str__(self) -> str:
        rows = write_count(self.n_drawn, "row")
        drawn = f"{self.label}: {rows} per epoch ({write_portion(self.share, 1)})"
        if self.n_drawn < self.n_rows:
            return f"{drawn}, a part of its {self.n_rows:,}; the next epoch goes on with the rest"
        passes, rest = divmod(self.n_drawn, self.n_rows)
        times = "once" if passes == 1 else f"{passes} times"
        if rest:  # an epoch may begin within a pass, so a row may come less or more often
            times = f"{self.n_drawn / self.n_rows:.2f} times on average"
        return f"{drawn}, each of its {self.n_rows:,} rows {times}"
