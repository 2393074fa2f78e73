"""Turn text into token ids with the base model's own tokenizer, and identify the tokenizer.

Start tokens belong to rows, and rows belong to protocols. Only the protocols that follow
lm-evaluation-harness also use the tokens that a tokenizer adds by itself.
"""

import hashlib
import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenizers.models import BPE, Unigram
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lorastudy.data.messages import Turns
from lorastudy.data.paths import describe_pointer
from lorastudy.data.turns import Written
from lorastudy.errors import InputError, reading_user_files
from lorastudy.model.altered_text import make_counter
from lorastudy.model.long_texts import PART, encode_text
from lorastudy.model.new_tokens import find_new_tokens, refuse_new_ends, refuse_other_ids
from lorastudy.model.tokenizer_file import follow_file

_SCRIPTS = "\u00c4 \u00df \u03a9 \u0436 \u05d0 \u6f22"  # letters of several
_TRIED = f"{string.ascii_letters} {string.digits} {string.punctuation} {_SCRIPTS}"
_CHANCES = ("dropout", "nbest_size", "alpha")  # of a tokenizer's model, which then draws tokens


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer with the ids that rows need."""

    backend: PreTrainedTokenizerFast
    digest: str  # SHA-256 of the whole tokenizer, including merges and normaliser
    vocabulary_size: int
    start_id: int  # begin-of-text id or, where there is none, end-of-text id (as lm-eval does)
    end_id: int  # end-of-text id; also pads, as in the published study
    new_tokens: Mapping[int, str] = field(default_factory=dict)  # that are in none of its files
    other_class: str = ""  # of transformers, that would make other tokens than tokenizer.json does

    @cached_property
    def unknown_id(self) -> int | None:
        """The token for text that the tokenizer does not know; None: it knows every text.

        It is the one that the tokenizer's model writes; if it writes none, the one that the
        settings beside it name. Tokenizers of bytes know every text; some name their end-of-text
        token here.
        """
        whole = self.backend.backend_tokenizer
        model: Any = whole.model
        if isinstance(model, Unigram):
            unknown = json.loads(whole.to_str())["model"]["unk_id"]
        else:
            unknown = whole.token_to_id(model.unk_token) if model.unk_token else None
        if unknown is None:
            unknown = self.backend.unk_token_id
        is_end = unknown in (self.start_id, self.end_id) and self._knows_bytes
        return unknown if isinstance(unknown, int) and not is_end else None

    @cached_property
    def loses_text(self) -> bool:
        """Whether there is text that becomes no token at all, not even one for unknown text.

        Letters of many scripts are tried, since a step before the model may take some of them out.
        """
        model: Any = self.backend.backend_tokenizer.model
        if isinstance(model, BPE) and not model.unk_token and not self._knows_bytes:
            return True
        tried = self._run([_TRIED], add_special_tokens=False, return_offsets_mapping=True)
        return _find_lost(_TRIED, tried["offset_mapping"][0]) is not None

    @cached_property
    def count_altered(self) -> Callable[[str], int]:
        """How many letters of a text are changed before tokens are looked for; not white space."""
        return make_counter(self.backend)

    @cached_property
    def _knows_bytes(self) -> bool:
        """Whether every byte has a token of its own."""
        whole = self.backend.backend_tokenizer
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        has_fallback = getattr(whole.model, "byte_fallback", False)
        names = fallback if has_fallback else bytes_to_unicode().values()
        return all(whole.token_to_id(name) is not None for name in names)

    @property
    def chat_template(self) -> str | None:
        """How messages are written, in Jinja; None: the tokenizer does not say."""
        templates = self.backend.chat_template
        return templates.get("default") if isinstance(templates, dict) else templates

    @property
    def end_of_text(self) -> str:
        """The end-of-text token."""
        return str(self.backend.eos_token)

    @cached_property
    def added_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no text, such as those that end a turn.

        Some tokenizers have runs of spaces among their added tokens; these are text.
        """
        added = self.backend.added_tokens_decoder
        return frozenset(i for i, token in added.items() if token.content.strip())

    @cached_property
    def ending_ids(self) -> frozenset[int]:
        """Ids of tokens that end an answer: end-of-text, and all others that `decode` leaves out.

        Some tokenizers mark a token that ends a turn as special in tokenizer.json alone.
        """
        added = self.backend.added_tokens_decoder
        special = {i for i, token in added.items() if token.special and i != self.unknown_id}
        return frozenset({self.end_id, *special})

    def decode(self, ids: Sequence[int], *, with_special: bool = False) -> str:
        """The text of tokens; special tokens have none, unless they are asked for."""
        return str(self.backend.decode(list(ids), skip_special_tokens=not with_special))

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files beside a model, so that the folder can be used alone."""
        self.backend.save_pretrained(folder)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, without special tokens."""
        encode = partial(self._encode, add_special_tokens=False)
        if len(texts) == 1 and len(texts[0]) > PART:
            return [encode_text(texts[0], encode)]
        return encode(texts)

    def encode_as_configured(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, with the special tokens that the tokenizer adds by itself.

        A text that begins with the start token gets no other one, as in lm-evaluation-harness.
        """
        start = str(self.backend.decode([self.start_id]))
        ids = self._encode(texts, add_special_tokens=True)
        for i, text in enumerate(texts):
            if text.startswith(start):
                ids[i] = self._encode([text], add_special_tokens=False)[0]
        return ids

    def write_texts(self, texts: Sequence[str]) -> list[Written]:
        """Each text with the special tokens that the tokenizer adds by itself."""
        encoded = self._run(texts, return_offsets_mapping=True)
        self._refuse_lost(texts, encoded)
        return _collect(texts, encoded)

    def write_chats(
        self, chats: Sequence[Turns], *, adds_header: bool = False, marks_assistant: bool = False
    ) -> list[Written]:
        """Each conversation as the chat template writes it.

        Args:
            chats: Messages in their order.
            adds_header: Also write what stands before the answer that comes next.
            marks_assistant: Say which tokens the template marks with {% generation %}.
        """
        conversations = [[{"role": t.role, "content": t.content} for t in chat] for chat in chats]
        apply: Any = self.backend.apply_chat_template
        texts = apply(conversations, tokenize=False, add_generation_prompt=adds_header)
        encoded = apply(
            conversations,
            add_generation_prompt=adds_header,
            return_assistant_tokens_mask=marks_assistant,
            tokenizer_kwargs={"return_offsets_mapping": True, "verbose": False},
        )
        self._refuse_lost(texts, encoded)
        return _collect(texts, encoded)

    def _encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        encoded = self._run(
            texts,
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_offsets_mapping=self.loses_text,
        )
        self._refuse_lost(texts, encoded)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _run(self, texts: Sequence[str], **how: bool) -> BatchEncoding:
        with reading_user_files(
            f"{self.backend.name_or_path}: the tokenizer cannot read a text",
            "Give it a token for unknown text, or choose another base model.",
        ):
            encoded: BatchEncoding = self.backend(list(texts), verbose=False, **how)
            return encoded

    def _refuse_lost(self, texts: Sequence[str], encoded: BatchEncoding) -> None:
        """Check that every letter of the texts is in a token; `encoded` has their offsets.

        Raises:
            InputError: One is not, so that the text would be scored without it; or a part of a text
                is a token that is in none of the tokenizer's files.
        """
        for ids in encoded["input_ids"] if self.new_tokens else ():
            if found := self.new_tokens.keys() & set(ids):
                raise InputError(
                    f"{self.new_tokens[min(found)]!r} in a text would be one token, by "
                    "tokenizer_config.json, and tokenizer.json does not have it: its embedding was "
                    "never trained. Remove it from the special tokens there."
                )
        if not self.loses_text:
            return
        for text, spans in zip(texts, encoded["offset_mapping"], strict=True):
            if (place := _find_lost(text, spans)) is not None:
                raise InputError(
                    f"the tokenizer has no token for {text[place]!r}, nor one for unknown text, so "
                    f"{text[max(0, place - 20) : place + 20]!r} would be read without it. "
                    "Choose a base model whose tokenizer knows every text."
                )


def _find_lost(text: str, spans: Sequence[tuple[int, int]]) -> int | None:
    """Where the first letter is that lies in none of the spans of tokens; None: there is none."""
    read = {place for begin, end in spans for place in range(begin, end)}
    lost = (i for i, letter in enumerate(text) if i not in read and not letter.isspace())
    return next(lost, None)


def _collect(texts: Sequence[str], encoded: BatchEncoding) -> list[Written]:
    masks = encoded.get("assistant_masks", [None] * len(texts))
    columns = (texts, encoded["input_ids"], encoded["offset_mapping"], masks)
    return [Written(*row) for row in zip(*columns, strict=True)]


def load_tokenizer(folder: Path, chat_template: str | None = None) -> Tokenizer:
    """The tokenizer stored in a Hugging Face model folder.

    A `chat_template` takes the place of the tokenizer's own, also where the tokenizer is saved.

    Raises:
        InputError: There is no tokenizer, it is a slow one, or it has no end-of-text token.
    """
    with reading_user_files(
        f"{folder}: no tokenizer can be loaded",
        "Put tokenizer.json, or the model's own vocabulary files, beside config.json.",
    ):
        whole = folder / "tokenizer.json"
        if whole.is_file() and (said := describe_pointer(whole)):
            raise ValueError(f"{whole.name} {said}")
        named = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        backend = named
        if isinstance(named, PreTrainedTokenizerFast):
            backend = follow_file(folder, named)
        n_tokens = len(backend)
    if not isinstance(backend, PreTrainedTokenizerFast):
        raise InputError(
            f"{folder}: there is only a slow Python tokenizer. Convert it to tokenizer.json first."
        )
    if backend.backend_tokenizer.get_vocab_size(with_added_tokens=False) == 0:
        raise InputError(  # transformers makes an empty one if it knows the model type
            f"{folder}: there is no tokenizer. "
            "Put tokenizer.json, or the model's own vocabulary files, beside config.json."
        )
    model: Any = backend.backend_tokenizer.model
    if chances := [name for name in _CHANCES if getattr(model, name, None)]:
        raise InputError(
            f"{folder / 'tokenizer.json'}: {chances[0]} of the model is set, so the same text "
            "would become different tokens each time. Set it to null."
        )
    end_id = backend.eos_token_id
    if not isinstance(end_id, int):
        raise InputError(
            f"{folder}: the tokenizer names no end-of-text token. "
            "Set eos_token in tokenizer_config.json."
        )
    new = find_new_tokens(folder, backend)
    refuse_new_ends(folder, backend, new)
    refuse_other_ids(folder, backend)
    start_id = backend.bos_token_id
    if chat_template is not None:
        backend.chat_template = chat_template
    text = backend.backend_tokenizer.to_str()
    return Tokenizer(
        backend=backend,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        vocabulary_size=n_tokens,
        start_id=start_id if isinstance(start_id, int) else end_id,
        end_id=end_id,
        new_tokens=new,
        other_class="" if backend is named else type(named).__name__,
    )
