"""Turn text into token ids with the base model's own tokenizer, and identify the tokenizer.

Start tokens belong to rows, and rows belong to protocols. Only the protocols that follow
lm-evaluation-harness also use the tokens that a tokenizer adds by itself.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers.models import BPE
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lorastudy.data.messages import Turns
from lorastudy.data.turns import Written
from lorastudy.errors import InputError, reading_user_files


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer with the ids that rows need."""

    backend: PreTrainedTokenizerFast
    digest: str  # SHA-256 of the whole tokenizer, including merges and normaliser
    vocabulary_size: int
    start_id: int  # begin-of-text id or, where there is none, end-of-text id (as lm-eval does)
    end_id: int  # end-of-text id; also pads, as in the published study

    @property
    def unknown_id(self) -> int | None:
        """The token for text that the tokenizer does not know; None: it knows every text.

        Tokenizers of bytes know every text; some name their end-of-text token here.
        """
        unknown = self.backend.unk_token_id
        is_own = isinstance(unknown, int) and unknown not in (self.start_id, self.end_id)
        return unknown if is_own else None

    @cached_property
    def loses_text(self) -> bool:
        """Whether there is text that becomes no token at all, not even one for unknown text."""
        whole = self.backend.backend_tokenizer
        model: Any = whole.model
        if not isinstance(model, BPE) or model.unk_token or model.byte_fallback:
            return False
        return any(whole.token_to_id(letter) is None for letter in bytes_to_unicode().values())

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
        """Ids of tokens that end an answer: end-of-text, and others that stand for no text."""
        special = {i for i in self.backend.all_special_ids if i != self.unknown_id}
        return frozenset({self.end_id, *special})

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; special tokens have none."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files beside a model, so that the folder can be used alone."""
        self.backend.save_pretrained(folder)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, without special tokens."""
        return self._encode(texts, add_special_tokens=False)

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
        encoded = self.backend(list(texts), return_offsets_mapping=True, verbose=False)
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
        encoded = self.backend(
            list(texts),
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_offsets_mapping=self.loses_text,
            verbose=False,
        )
        self._refuse_lost(texts, encoded)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _refuse_lost(self, texts: Sequence[str], encoded: BatchEncoding) -> None:
        """Check that every letter of the texts is in a token; `encoded` has their offsets.

        Raises:
            InputError: One is not, so that the text would be scored without it.
        """
        if not self.loses_text:
            return
        for text, spans in zip(texts, encoded["offset_mapping"], strict=True):
            read = {place for begin, end in spans for place in range(begin, end)}
            for place, letter in enumerate(text):
                if place not in read and not letter.isspace():
                    raise InputError(
                        f"the tokenizer has no token for {letter!r}, nor one for unknown text, so "
                        f"{text[max(0, place - 20) : place + 20]!r} would be read without it. "
                        "Choose a base model whose tokenizer knows every text."
                    )


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
        backend = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
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
    end_id = backend.eos_token_id
    if not isinstance(end_id, int):
        raise InputError(
            f"{folder}: the tokenizer names no end-of-text token. "
            "Set eos_token in tokenizer_config.json."
        )
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
    )
