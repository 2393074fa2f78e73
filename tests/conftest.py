"""What every test gets: closed sockets, one thread, private caches, and tiny models made here.

The environment is set before anything imports torch or transformers, which read it once.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket
from hypothesis import settings

pytest.register_assert_rewrite("support")  # before the first import of a part of it

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "agg"
settings.register_profile("shared machine", deadline=None)  # seconds say nothing beside others
settings.load_profile("shared machine")

ROOT = Path(__file__).resolve().parent.parent
IN_MEMORY = Path("/dev/shm")  # no process that a test starts waits for a disk there
if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 4 * 2**30:
    os.environ.setdefault("TMPDIR", str(IN_MEMORY))
    tempfile.tempdir = None  # chosen again


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers for `-n auto`: none for single files, or where output is to be seen (`-s`).

    One for each core, and one more, since some tests mostly wait for processes that they started.
    """
    if config.option.capture == "no" or all(".py" in argument for argument in config.args):
        return 0
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Whole files to workers, in the order of collection."""
    from support.parallel import make_scheduler

    return make_scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The order in which workers get the files."""
    if hasattr(config, "workerinput"):
        from support.parallel import sort_long_first

        sort_long_first(items)


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


@pytest.fixture(autouse=True, scope="session")
def no_fsync() -> Iterator[None]:
    """Nothing waits for the disk, here and in forks: only a loss of power would show it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


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
    from support.tiny_models import save_byte_tokenizer

    folder = tmp_path_factory.mktemp("byte-tokenizer")
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: GPT-2 with 2 layers, width 32, dropout 0.1, and the byte tokenizer."""
    from support.tiny_models import save_tiny_gpt2

    return save_tiny_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.fixture(scope="session")
def flat_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 with one layer, for runs that are repeated hundreds of times."""
    from support.tiny_models import save_tiny_gpt2

    return save_tiny_gpt2(tmp_path_factory.mktemp("flat-gpt2"), n_layer=1)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: Llama with 2 layers, width 32, a tied head, and the byte tokenizer."""
    from support.tiny_models import save_tiny_llama

    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="module")
def study_file(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny study on the tiny GPT-2, beside its texts."""
    from support.command_line import write_study

    return write_study(tmp_path_factory.mktemp("study"), tiny_gpt2)


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """Reports of a file's tests have blank figures; it is asked for by tests about other things."""
    from support import command_line

    with command_line.blank_figures():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and data sets beside the checkout; without it, a skip."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return folder
