"""See that a tokenizer computes what tokenizer.json says, whatever class its settings name.

transformers builds the tokenizers of some families from the vocabulary alone, with the family's own
steps in place of those in the file. Models of such a family that bring other steps would get other
tokens than those they were trained with: numbers are split elsewhere, or a normaliser is left out.
"""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from lorastudy.errors import InputError

# Of tokenizer.json. Every class takes its added tokens, and which tokens are put around a text, and
# how it is cut and padded, is left as transformers has it.
_PARTS = ("normalizer", "pre_tokenizer", "model", "decoder")
_LONG = ("vocab", "merges")  # have no keys to leave out
_SPACE = "add_prefix_space"


def follow_file(folder: Path, backend: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """`backend`, or a tokenizer with its settings that follows tokenizer.json where it does not.

    Without that file the family's own steps are all there is.

    Raises:
        InputError: A setting that the family would follow contradicts the file.
    """
    is_general = type(backend).__init__ is PreTrainedTokenizerFast.__init__
    if is_general or not (folder / "tokenizer.json").is_file():
        return backend
    named: dict[str, Any] = {
        name: token for name, token in backend.special_tokens_map.items() if token
    }
    general: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, **named
    )
    if _parts_of(backend) == _parts_of(general):
        return backend
    asked = general.init_kwargs.get(_SPACE)
    steps = json.loads(general.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    for step in (steps, *steps.get("pretokenizers", ())):
        if isinstance(asked, bool) and step.get(_SPACE, asked) != asked:
            raise InputError(
                f"{folder}: {_SPACE} is {asked} in tokenizer_config.json and {step[_SPACE]} in "
                "tokenizer.json. Put into both what the model was trained with."
            )
    return general


def _parts_of(backend: PreTrainedTokenizerFast) -> dict[str, Any]:
    whole = json.loads(backend.backend_tokenizer.to_str())
    if whole["decoder"] and whole["decoder"]["type"] == "ByteLevel":
        whole["decoder"] = {"type": "ByteLevel"}  # its settings are for encoding
    return {name: _without_defaults(whole[name]) for name in _PARTS}


def _without_defaults(value: Any) -> Any:
    """A part of tokenizer.json without keys that change no token: null, empty text, offsets."""
    if isinstance(value, dict):
        return {
            key: each if key in _LONG else _without_defaults(each)
            for key, each in value.items()
            if each not in (None, "") and key != "trim_offsets"
        }
    return [_without_defaults(each) for each in value] if isinstance(value, list) else value
