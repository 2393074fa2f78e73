"""The settings of generation that a model folder brings, checked before transformers reads them.

transformers leaves out a file that is not JSON without a word, and its errors about other contents
name no file.
"""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from lorastudy.errors import reading_user_files

_FILE = "generation_config.json"
_TOKENS = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")


def refuse_generation_settings(folder: Path) -> None:
    """Check that transformers can read the settings of generation in `folder`, if there are any.

    Raises:
        InputError: It cannot, or an end-of-text token is not an id.
    """
    if (folder / _FILE).is_file():
        read_generation_settings(folder)


def read_generation_settings(folder: Path) -> dict[str, Any]:
    """The settings of generation in a model folder; as in transformers, one of two files has them.

    Raises:
        InputError: The file cannot be read, or a setting is not of its kind.
    """
    path = folder / _FILE
    path = path if path.is_file() else folder / "config.json"
    with reading_user_files(
        f"{path} does not hold settings of generation that transformers can read",
        "Repair it, or fetch it again.",
    ):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it does not contain a JSON object")
        for name in _TOKENS:
            if not _are_ids(found.get(name)):
                raise ValueError(f"{name} is {found[name]!r}, not a token id or a list of them")
        if path.name == _FILE:
            GenerationConfig.from_dict(dict(found))
        return found


def _are_ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return value is None or all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
