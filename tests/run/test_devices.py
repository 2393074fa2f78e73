"""Devices, precisions and sizes that this machine does not have are refused before training."""

from pathlib import Path

import pytest
import torch

from lorastudy.cli.options import say_slow_precision
from lorastudy.config.spec import expand_study
from lorastudy.errors import ConfigError, OutOfMemoryError
from lorastudy.machine.environment import choose_device, forbid_tf32, refuse_precision
from lorastudy.store.folders import StudyFolder
from lorastudy.store.places import Places
from lorastudy.study.check import check_study
from lorastudy.study.notes import note_study
from lorastudy.study.open import OpenedStudy
from lorastudy.study.start import start_or_continue
from support.tiny_runs import make_study, write_texts

CUDA = torch.device("cuda")


@pytest.fixture
def opened(tiny_gpt2: Path, tmp_path: Path) -> OpenedStudy:
    places = Places(write_texts(tmp_path / "texts"), cache=tmp_path / "cache")
    return OpenedStudy(make_study(tiny_gpt2), StudyFolder(tmp_path / "study"), places)


@pytest.fixture
def old_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Old Card")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(opened: OpenedStudy) -> None:
    with pytest.raises(ConfigError, match="no CUDA device is visible"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="--device tpu: use auto, cpu or cuda"):
        choose_device("tpu")
    with pytest.raises(ConfigError, match="no CUDA device is visible"):
        start_or_continue(opened, expand_study(opened.study), device="cuda")
    assert not opened.folder.path.exists()


def test_a_precision_that_the_device_lacks_is_refused(opened: OpenedStudy, old_card: None) -> None:
    low = opened.study.training.model_copy(update={"precision": "bfloat16"})
    study = opened.study.model_copy(update={"training": low})
    with pytest.raises(ConfigError, match=r"Old Card has no bfloat16.*Use float32"):
        check_study(study, opened.places, CUDA)


def test_float32_and_processors_are_not_refused(old_card: None) -> None:
    refuse_precision(CUDA, "float32")
    refuse_precision(torch.device("cpu"), "bfloat16")


@pytest.mark.parametrize(("instruction", "is_noted"), [("avx2", True), ("avx512_bf16", False)])
def test_bfloat16_without_instructions_for_it_is_noted(
    opened: OpenedStudy,
    instruction: str,
    is_noted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True})
    low = opened.study.training.model_copy(update={"precision": "bfloat16"})
    study = opened.study.model_copy(update={"training": low})
    notes = note_study(study, check_study(study, opened.places, torch.device("cpu")))
    say_slow_precision("cpu", "bfloat16")  # as `evaluate` and `audit` do
    for told in (" ".join(notes), capsys.readouterr().err):
        assert ("no instructions for bfloat16" in told) == is_noted


def test_a_micro_batch_that_cannot_fit_is_refused_before_the_study_starts(
    opened: OpenedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = expand_study(opened.study)
    monkeypatch.setattr("lorastudy.study.start.total_bytes", lambda _device: 100 * 2**20)
    with pytest.raises(OutOfMemoryError, match=r"lora: a micro-batch of 2 rows of 48.*100 MiB"):
        start_or_continue(opened, runs, device="cpu")
    assert not opened.folder.path.exists()
    monkeypatch.setattr("lorastudy.study.start.total_bytes", lambda _device: 2**40)
    assert start_or_continue(opened, runs, device="cpu").missing == runs


def test_float32_is_never_tf32() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        forbid_tf32()
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
