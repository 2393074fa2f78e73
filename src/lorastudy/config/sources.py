"""Where the base model and the documents of a study come from.

Each is exactly one of a hub id, a local path, or something that comes with this package. The
other keys say which part of it is meant. Training documents may also be a mixture of sources, and
validation documents a part of those. Nothing is looked up here.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lorastudy.config.syntax import (
    Count,
    FilePath,
    HubId,
    IfAny,
    IfGiven,
    Mistake,
    Name,
    Revision,
    Seed,
    Sha256,
    StudyModel,
    refuse,
)


def _one_origin_mistakes(**origins: object) -> list[Mistake]:
    given = [name for name, value in origins.items() if value is not None]
    if len(given) == 1:
        return []
    found = "none of them is" if not given else f"{' and '.join(given)} are"
    return [("", f"exactly one of {', '.join(origins)} is needed, but {found} given")]


class BaseModelRef(StudyModel):
    """The pretrained model that every arm starts from: one of id, path or builtin."""

    id: HubId | None = None
    """Hub id, such as openai-community/gpt2."""
    path: FilePath | None = None
    """Folder with config.json, safetensors weights and tokenizer files."""
    builtin: Literal["demo"] | None = None
    """A tiny model that comes with this package; needs no download."""
    revision: Revision = "main"
    """Branch, tag or commit; only with id."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        mistakes = _one_origin_mistakes(id=self.id, path=self.path, builtin=self.builtin)
        if self.id is None and self.revision != "main":
            mistakes.append(("revision", "applies to an id only; remove it"))
        refuse(mistakes)
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Its hub id, path or builtin name, alone: a model has no further parts."""
        return (str(self.id or self.path or self.builtin),)


class Source(StudyModel):
    """Where documents come from: one of a hub id, local files or text shipped with the package."""

    id: HubId | None = None
    """Hub id of a data set, such as Salesforce/wikitext."""
    path: FilePath | None = None
    """Local .txt, .jsonl or .parquet file, or a glob such as notes/*.txt."""
    builtin: (
        Literal["python-reference", "docstrings", "licences", "arithmetic", "elsewhere"] | None
    ) = None
    """Text of this package or of the Python installation; elsewhere: none, see `compare`."""
    config: Name | None = None
    """Configuration of the data set; only with id."""
    split: Name | None = None
    """Part to read, such as train; required with id and builtin."""
    revision: Revision = "main"
    """Branch, tag or commit; only with id."""
    column: Annotated[str, Field(min_length=1, max_length=200)] = "text"
    """Column that holds the text."""
    limit: Count | None = None
    """Keep only the first N documents; blank ones are dropped before counting."""
    sample_by: Literal["line", "paragraph", "document"] = "line"
    """What one document is in a text file; only with path."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_one_origin_mistakes(**self._origins()))  # the other keys depend on it
        refuse(self._mistakes_of_keys())
        return self

    def _origins(self) -> dict[str, object]:
        """The keys of which exactly one is needed."""
        return {"id": self.id, "path": self.path, "builtin": self.builtin}

    def _mistakes_of_keys(self) -> list[Mistake]:
        """Keys that do not fit the origin."""
        mistakes: list[Mistake] = []
        if self.id is None and self.config is not None:
            mistakes.append(("config", "applies to an id only; remove it"))
        if self.id is None and self.revision != "main":
            mistakes.append(("revision", "applies to an id only; remove it"))
        if self.path is None and self.sample_by != "line":
            mistakes.append(("sample_by", "applies to text files under path only; remove it"))
        if (self.id or self.builtin) and self.split is None:
            mistakes.append(("split", "is required here, for example train or test"))
        if self.path is not None and self.split is not None:
            mistakes.append(("split", "does not apply to files: each path is one split; remove it"))
        return mistakes

    def _set_keys(self) -> list[str]:
        """Keys of a single source that are set."""
        fields = Source.model_fields
        return [key for key, field in fields.items() if getattr(self, key) != field.default]

    @property
    def parts(self) -> tuple[str, ...]:
        """Its hub id, path or builtin name, then configuration and split where it has them."""
        parts = (self.id or self.path or self.builtin, self.config, self.split)
        return tuple(part for part in parts if part)

    @property
    def label(self) -> str:
        """As a person would say it: `Salesforce/wikitext wikitext-2-raw-v1 test`."""
        return " ".join(self.parts)


ELSEWHERE = Source(builtin="elsewhere", split="train")  # in place of texts that are not known here


class StoredWeights(StudyModel):
    """Weights that were trained elsewhere, as they were when `lorastudy compare` found them."""

    folder: FilePath
    """PEFT folder, or folder of a whole model."""
    kind: Literal["adapter", "model"]
    """adapter: beside the base model; model: instead of it."""
    sha256: Sha256
    """Over names and contents of configuration and weights."""
    bytes: Annotated[int, Field(ge=0)]
    """Of the weight files."""


class MixedSource(Source):
    """One source of a mixture."""

    weight: Annotated[float, Field(ge=0, le=1e6)]
    """Share of the rows of an epoch, in proportion to the sum of all weights; 0: not read."""


class TrainSource(Source):
    """Documents to train on: those of one source, or a mixture of several."""

    mixture: IfGiven[tuple[MixedSource, ...]] = None
    """Sources with weights. An epoch has as many rows as all of them; small sources repeat."""

    def _origins(self) -> dict[str, object]:
        return {**super()._origins(), "mixture": self.mixture}

    def _mistakes_of_keys(self) -> list[Mistake]:
        if self.mixture is None:
            return super()._mistakes_of_keys()
        what = "belongs to the sources of the mixture; write it there"
        mistakes = [(key, what) for key in self._set_keys()]
        if len(self.mixture) < 2:
            mistakes.append(("mixture", "needs at least two sources; write a single one as it is"))
        elif not self.sources:
            mistakes.append(("mixture", "has no weight above 0; give one to each source"))
        plain = [plain_source(source) for source in self.mixture]
        return mistakes + [
            (f"mixture.{i}", "is in this mixture twice; add up its weights")
            for i, source in enumerate(plain)
            if source in plain[:i]
        ]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that are read, without weights: this one, or those of the mixture."""
        if self.mixture is None:
            return (plain_source(self),)
        return tuple(plain_source(source) for source in self.mixture if source.weight > 0)

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each of `sources` in the rows of an epoch; they add up to 1."""
        found = [source.weight for source in self.mixture or () if source.weight > 0]
        return tuple(weight / sum(found) for weight in found) or (1.0,)


class ValidationSource(Source):
    """Documents that choose the best weights: those of a source, or a part of data.train."""

    from_train: IfGiven[Annotated[float, Field(gt=0, lt=1)]] = None
    """Hold out this share of the documents of data.train, instead of naming others."""
    seed: IfAny[Seed] = 0
    """Chooses the documents of from_train; the same for all runs."""

    def _origins(self) -> dict[str, object]:
        return {**super()._origins(), "from_train": self.from_train}

    def _mistakes_of_keys(self) -> list[Mistake]:
        if self.from_train is not None:
            what = "does not apply to from_train, which reads what data.train names; remove it"
            return [(key, what) for key in self._set_keys()]
        mistakes = super()._mistakes_of_keys()
        if self.seed:
            mistakes.append(("seed", "applies to from_train only; remove it"))
        return mistakes


def plain_source(source: Source) -> Source:
    """The source alone, without what a benchmark or a mixture adds to it."""
    return Source.model_validate(source.model_dump(include=set(Source.model_fields)))


@dataclass(frozen=True, slots=True)
class Split:
    """One side of documents that are divided at random, but always in the same way."""

    share: float  # of the documents that are held out
    seed: int
    side: Literal["train", "validation"]


@dataclass(frozen=True, slots=True)
class Part:
    """Documents that are read together: those of some sources, or one side of these."""

    sources: tuple[Source, ...]
    split: Split | None = None

    @property
    def label(self) -> str:
        """As a person would say it."""
        whole = " and ".join(source.label for source in self.sources)
        if self.split is None or self.split.side == "train":
            return whole
        return f"{self.split.share:g} of {whole}"
