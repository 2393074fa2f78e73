"""Tokens that transformers makes anew, since a setting names them and no file has them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from lorastudy.errors import InputError, reading_user_files

_FILES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")


def find_new_tokens(folder: Path, backend: PreTrainedTokenizerFast) -> dict[int, str]:
    """The added tokens of `backend` that no file in `folder` gives an id; their text by their id.

    None are found where there is no tokenizer.json, since other files of vocabularies are not read.
    """
    model: Any = backend.backend_tokenizer.model
    added = {i: token.content for i, token in backend.added_tokens_decoder.items()}
    unsure = {i: text for i, text in added.items() if model.token_to_id(text) is None}
    if not unsure or not (folder / _FILES[0]).is_file():
        return {}
    known: set[str] = set()
    with reading_user_files(f"{folder}: no tokenizer can be loaded", "Copy its files again."):
        for name in _FILES:
            path = folder / name
            content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            known |= content.keys() if name == "added_tokens.json" else set()
            known |= {each["content"] for each in content.get("added_tokens", [])}
            known |= {each["content"] for each in content.get("added_tokens_decoder", {}).values()}
    return {i: text for i, text in unsure.items() if text not in known}


def refuse_other_ids(folder: Path, backend: PreTrainedTokenizerFast) -> None:
    """Check that added tokens have the ids that the files give them.

    Libraries number them one after the other, whatever the files say.

    Raises:
        InputError: One has another id, so that its text would be read as another token.
    """
    ids = backend.get_vocab()
    with reading_user_files(f"{folder}: no tokenizer can be loaded", "Copy its files again."):
        named = _name_ids(folder)
    for token, (number, name) in named.items():
        if ids.get(token, number) != number:
            raise InputError(
                f"{folder / name}: {token!r} has the id {number}, and would be read as "
                f"{ids[token]}, since added tokens are numbered one after the other from "
                "the end of the vocabulary. Add the tokens that are missing before it."
            )


def _name_ids(folder: Path) -> dict[str, tuple[int, str]]:
    """The id of each added token, and the first of the files that gives it one."""
    named: dict[str, tuple[int, str]] = {}
    for name in _FILES:
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if name == "added_tokens.json":
            pairs = list(content.items())
        else:
            pairs = [(each["content"], each["id"]) for each in content.get("added_tokens") or ()]
            decoder = content.get("added_tokens_decoder") or {}
            pairs += [(each["content"], int(number)) for number, each in decoder.items()]
        for token, number in pairs:
            named.setdefault(token, (number, name))
    return named


def refuse_new_ends(folder: Path, backend: PreTrainedTokenizerFast, new: Mapping[int, str]) -> None:
    """Check that a start or end token is in the files.

    Raises:
        InputError: One is not, so its embedding, if there is one, was never trained.
    """
    for token in (backend.bos_token, backend.eos_token):
        if token in new.values():
            raise InputError(
                f"{folder}: {token!r} would begin or end a text, by tokenizer_config.json or by "
                "the default of the model's family, and tokenizer.json does not have it. It would "
                "be a new token, whose embedding was never trained. Name the token that the model "
                "was trained with in tokenizer_config.json."
            )
