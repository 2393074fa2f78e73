"""What every test gets: closed sockets, one thread, private caches, and tiny models made here.

The environment is set before anything imports torch or transformers, which read it once.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "agg"

ROOT = Path(__file__).resolve().parent.parent
END_OF_TEXT = "<|endoftext|>"
N_VOCABULARY = 300  # more rows than the tokenizer's 257, as real models have
N_CONTEXT = 64


def pytest_runtest_setup() -> None:
    """Close the network; local sockets stay open, since multiprocessing talks through them."""
    pytest_socket.disable_socket(allow_unix_socket=True)


@pytest.fixture(autouse=True, scope="session")
def private_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches of this program and of Hugging Face, in a folder that goes away."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("LORASTUDY_CACHE", str(cache / "lorastudy"))
        patch.setenv("HF_HOME", str(cache / "huggingface"))
        patch.setenv("HF_DATASETS_CACHE", str(cache / "huggingface" / "datasets"))
        yield cache


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Torch on one thread: tiny matrices gain nothing from more, and machines are shared."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def english() -> list[str]:
    """Short documents of different lengths, with a heading, a blank one and other alphabets."""
    return [
        "= A Walk by the River =",
        "The river ran high that spring, and nobody crossed it before May.",
        "Anna wrote three letters; only one of them arrived.",
        "",
        "Was it 7 or 17 miles? The map said neither, the miller said both.",
        "A naïve reader — and who is not one? — believes the first page. Так бывает. 😀",
        "Yes.",
        "When the bridge was mended at last, the town held a feast on it, and the old ferryman "
        "sat at the head of the table, eating little and saying less.",
    ]


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 256 bytes and the end-of-text token (id 256)."""
    folder = tmp_path_factory.mktemp("byte-tokenizer")
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: GPT-2 with 2 layers, width 32, dropout 0.1, and the byte tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2,
        n_embd=32,
        n_head=2,
        vocab_size=N_VOCABULARY,
        n_positions=N_CONTEXT,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
        initializer_range=0.2,  # with the usual 0.02 all logits of so narrow a model are alike
        bos_token_id=256,
        eos_token_id=256,
    )
    return _save_model(GPT2LMHeadModel, config, tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: Llama with 2 layers, width 32, a tied head, and the byte tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=N_VOCABULARY,
        max_position_embeddings=N_CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=256,
        eos_token_id=256,
    )
    return _save_model(LlamaForCausalLM, config, tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data sets beside the checkout; without it, a skip."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return folder


def save_byte_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer without merges to `folder`: one token a byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    vocabulary = {letters[byte]: byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": N_CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _save_model(model_class: type, config: object, folder: Path) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model_class(config).save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder
