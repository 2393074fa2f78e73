"""Where the base model and the documents of a study come from.

Each is exactly one of a hub id, a local path, or something that comes with this package. The
other keys say which part of it is meant. Nothing is looked up here.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lorastudy.config.syntax import (
    Count,
    FilePath,
    HubId,
    Mistake,
    Name,
    Revision,
    StudyModel,
    refuse,
)


def _one_origin_mistakes(**origins: str | None) -> list[Mistake]:
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
    builtin: Literal["python-reference", "docstrings", "licences"] | None = None
    """Text that comes with this package or that it finds in the Python installation."""
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
        mistakes = _one_origin_mistakes(id=self.id, path=self.path, builtin=self.builtin)
        refuse(mistakes)  # the other keys depend on it
        if self.id is None and self.config is not None:
            mistakes.append(("config", "applies to an id only; remove it"))
        if self.id is None and self.revision != "main":
            mistakes.append(("revision", "applies to an id only; remove it"))
        if self.path is None and self.sample_by != "line":
            mistakes.append(("sample_by", "applies to text files under path only; remove it"))
        if self.path is None and self.split is None:
            mistakes.append(("split", "is required here, for example train or test"))
        if self.path is not None and self.split is not None:
            mistakes.append(("split", "does not apply to files: each path is one split; remove it"))
        refuse(mistakes)
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Its hub id, path or builtin name, then configuration and split where it has them."""
        parts = (self.id or self.path or self.builtin, self.config, self.split)
        return tuple(part for part in parts if part)

    @property
    def label(self) -> str:
        """As a person would say it: `Salesforce/wikitext wikitext-2-raw-v1 test`."""
        return " ".join(self.parts)
