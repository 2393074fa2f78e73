"""Which base model, tokenizer and chat template read the inputs of a study or of one model.

They are found and checked before anything is read with them. What a `Reader` does with sources is
in `run/inputs.py`.
"""

from pathlib import Path

from lorastudy.config.models import Study
from lorastudy.data.answers import ALL_ANSWERS, AnswerRules
from lorastudy.errors import ConfigError, InputError, possible_path, reason_of
from lorastudy.model.base import describe_base
from lorastudy.model.base_folder import SNAPSHOTS, digest_base, find_base_folder
from lorastudy.model.tokenizer import load_tokenizer
from lorastudy.run.inputs import Reader
from lorastudy.store.files import read_record
from lorastudy.store.folders import RunFolder
from lorastudy.store.places import Places, name_revision
from lorastudy.store.records import Manifest


def make_reader(folder: Path, places: Places, rules: AnswerRules = ALL_ANSWERS) -> Reader:
    """A reader for the model in `folder`, which reads rows with answers as `rules` say.

    Raises:
        InputError: Model, tokenizer or chat template cannot be used, or they do not belong
            together.
    """
    named = rules.chat_template_path
    template = None if named is None else _read_template(named, places.base)
    base, tokenizer = describe_base(folder), load_tokenizer(folder, template)
    for name, token in (("start", tokenizer.start_id), ("end", tokenizer.end_id)):
        if token >= base.vocabulary_size:
            raise InputError(
                f"{folder}: the tokenizer's {name}-of-text id {token} has no row in the embedding "
                f"of {base.vocabulary_size}. The tokenizer belongs to another model."
            )
    return Reader(base, tokenizer, places, rules)


def _read_template(named: str, base: Path) -> str:
    """The chat template in a Jinja file, or in a folder of a tokenizer that has one."""
    path = possible_path(base / named, key="chat template ")
    path = path / "chat_template.jinja" if path.is_dir() else path
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else reason_of(error)
        raise InputError(
            f"the chat template {path} cannot be read: {reason}. Name a file with a chat "
            "template in Jinja."
        ) from error


def refuse_other_base(run: RunFolder, reader: Reader, *, needs_weights: bool) -> None:
    """Check that `reader` has the base model and the tokenizer that a finished run began with.

    An adapter means nothing on other weights, and its stored scores would not be true of them.

    Raises:
        InputError: It does not; weights are compared only if the run's model needs them.
    """
    began, folder = read_record(run.manifest, Manifest), reader.base.folder
    same_weights = not needs_weights or digest_base(folder) == began.base_digest
    if not same_weights or reader.tokenizer.digest != began.tokenizer_digest:
        what = "tokenizer" if same_weights else "base model"
        raise InputError(
            f"{folder} does not hold the {what} that {run.path.name} began with: it changed since. "
            "Restore it, or run the study again in a new folder."
        )


def open_reader(study: Study, places: Places) -> Reader:
    """Find and describe the base model and load its tokenizer.

    Raises:
        InputError: It is missing or cannot be used.
        ConfigError: Training rows are longer than its context.
    """
    named = study.base_model
    pinned = named.model_copy(
        update={"revision": places.pin("models", str(named.id), named.revision)}
    )
    folder = find_base_folder(
        pinned, mirror=places.mirror, offline=places.offline, base=places.base
    )
    data = study.data
    rules = AnswerRules(
        data.completion_only_loss, data.assistant_only_loss, data.chat_template_path
    )
    reader = make_reader(folder, places, rules)
    if named.id is not None and folder.parent.name == SNAPSHOTS:  # of the hub's cache, by commit
        reader.revisions[name_revision("models", named.id, named.revision)] = folder.name
    base = reader.base
    trains = not study.data.is_elsewhere  # else protocols of rows alone are cut to this length
    if trains and base.max_positions is not None and study.data.rows.length > base.max_positions:
        raise ConfigError(
            f"data.rows.length: {study.data.rows.length} tokens are longer than the "
            f"{base.max_positions} positions of the base model. Use a shorter length."
        )
    return reader
