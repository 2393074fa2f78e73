"""The fixtures are what other tests take them for."""

import socket
from pathlib import Path

import pytest
import pytest_socket

from support.parallel import LONG_FIRST, ONE_AFTER_THE_OTHER


def test_the_network_is_closed() -> None:
    with pytest.raises(pytest_socket.SocketBlockedError):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def test_local_sockets_are_open() -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()


def test_byte_tokenizer_gives_one_token_a_byte(byte_tokenizer: Path, english: list[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(byte_tokenizer)
    for text in english:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert bytes(ids) == text.encode()
        assert tokenizer.decode(ids) == text


def test_byte_tokenizer_has_one_special_token(byte_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(byte_tokenizer)
    assert len(tokenizer) == 257
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 256


@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_llama"])
def test_tiny_models_load_and_tell_tokens_apart(name: str, request: pytest.FixtureRequest) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue(name)
    assert (folder / "model.safetensors").is_file()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(torch.arange(64)[None]).logits  # (1, 64, V)
    assert logits.shape == (1, 64, 300)
    assert logits.std(-1).min() > 0.1
    assert len(set(logits.argmax(-1)[0].tolist())) > 8


def test_tiny_llama_has_a_tied_head(tiny_llama: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_files_that_are_named_for_the_workers_are_there() -> None:
    root = Path(__file__).resolve().parent.parent
    assert [
        name for name in (*ONE_AFTER_THE_OTHER, *LONG_FIRST) if not (root / name).exists()
    ] == []
