"""What `check` says about the cost of a study before it starts."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

import lorastudy as ls
from lorastudy.analysis.outlook import Score, read_spreads
from support.command_line import call, names_in
from support.forked_studies import call_study

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_a_probe_predicts_every_run_and_leaves_nothing_behind(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # chosen once; TMPDIR is read no more
    before = names_in(study_file.parent)
    answer = call_study("check", study_file, "--probe", "--price", "$7.20/h", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["is_probed"] and names_in(study_file.parent) == before
    assert not list(tmp_path.iterdir())
    baseline, *trained = found["arms"]
    assert baseline["seconds"]["training"] == 0 < baseline["seconds"]["scoring"]
    for arm in trained:
        assert min(arm["seconds"].values()) > 0
        assert sum(arm["seconds"].values()) == pytest.approx(arm["predicted_seconds"])
        assert arm["fits"] and arm["measured_peak_bytes"]["resident"] > 0
    whole = baseline["predicted_seconds"] + 2 * sum(arm["predicted_seconds"] for arm in trained)
    assert found["predicted_seconds"] == pytest.approx(whole)
    assert found["predicted_cost"] == pytest.approx(whole * 7.20 / 3600)


def test_without_a_probe_time_is_said_to_be_rough(study_file: Path) -> None:
    answer = call("check", study_file, "--price", "3600 EUR/h")
    assert answer.code == 0, answer.err
    text = " ".join(answer.out.split())
    assert "one run, about" in text and "EUR (a rough guess" in text and "--probe" in text
    assert "too long if other programs used the CPU" in text


@pytest.mark.parametrize("price", ["x", "1.20", "1,20/h", "-1/h", "1e3/h", "9" * 5000 + "/h", ""])
def test_a_price_that_cannot_be_read_is_answered_with_the_right_form(price: str) -> None:
    answer = call("check", "demo", f"--price={price}")
    assert answer.code == 2 and "1.20/h" in answer.err and len(answer.err) < 300
    with pytest.raises(ls.StudyError, match=r"1\.20/h"):
        ls.check("demo", price=price)


def test_a_card_is_known_by_its_name_or_its_memory(study_file: Path) -> None:
    by_name = json.loads(call("check", study_file, "--gpu", "NVIDIA GeForce rtx3060", "--json").out)
    by_size = json.loads(call("check", study_file, "--device-memory", "12GiB", "--json").out)
    memory = by_name["device_memory"]
    assert (memory["device"], memory["bytes"]) == ("RTX 3060", 12 * 2**30)
    assert memory["arms"] == by_size["device_memory"]["arms"]
    for arm in memory["arms"]:
        for held in arm["formats"]:
            assert sum(held["parts"].values()) == held["predicted_peak_bytes"]
            assert held["fits"] and held["most_rows"] == 4
    assert ls.check(study_file, gpu="RTX 3060").device_memory.bytes == 12 * 2**30
    smaller_than_a_driver = ls.check(study_file, device_memory="1MB").device_memory
    assert smaller_than_a_driver.usable_bytes == 0


def test_what_to_change_is_a_command(study_file: Path) -> None:
    answer = call("check", study_file, "--device-memory", "1.2MB", "--device", "cpu")
    assert answer.code == 0 and "full does not fit, whatever is changed" in answer.out
    peaks = json.loads(call("check", study_file, "--gpu", "T4", "--json").out)["device_memory"]
    needed = max(arm["formats"][0]["predicted_peak_bytes"] for arm in peaks["arms"])
    answer = call("check", study_file, "--device-memory", f"{(needed + 500 * 2**20 - 1) / 1e3}kB")
    assert f"lorastudy run {study_file} --set training.token_budget=" in answer.out
    assert "full fits with training.token_budget" in answer.out


@pytest.mark.parametrize(
    "keys",
    [
        "method: lora, rank: 1000000000, alpha: 8",
        "method: lora, rank: 4, rank_pattern: {attention: 1000000000}, alpha: 8",
        "method: peft, peft: {peft_type: VERA, r: 1000000000}",
    ],
)
def test_an_adapter_that_is_larger_than_memory_is_refused_by_name(
    keys: str, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorastudy.study.check.available_bytes", lambda device: 2**30)
    arm = f"{{name: lora, placement: [attention], learning_rates: [1e-3], {keys}}}"
    answer = call("check", study_file, "--set", f"arms.lora={arm}")
    assert answer.code == 7 and "lora: with rank 1,000,000,000, the adapter alone" in answer.err


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        (("--device-memory", "12"), "12GB"),
        (("--device-memory=-3GB",), "12GB"),
        (("--device-memory", ""), "12GB"),
        (("--device-memory", "0GB"), "12GB"),
        (("--device-memory", "much"), "12GB"),
        (("--gpu", "RTX 3066"), "did you mean 'RTX 3060'?"),
        (("--gpu", "abacus"), "--device-memory 12GB"),
        (("--gpu", "T4", "--device-memory", "12GB"), "one of them"),
    ],
)
def test_a_device_that_cannot_be_read_is_answered_with_what_can(
    arguments: tuple[str, ...], form: str
) -> None:
    answer = call("check", "demo", *arguments)
    assert answer.code == 2 and form in answer.err


def test_a_study_says_before_it_starts_what_it_can_separate(study_file: Path) -> None:
    two_seeds = call("check", study_file, "--difference", "0.02", "--json")
    (found,) = json.loads(two_seeds.out)["separable"]
    assert (found["benchmark"], found["n_seeds"], found["n_documents"]) == ("tale", 2, 2)
    assert found["smallest_difference"] is None and found["n_pairs"] == 3
    answer = call("check", study_file, "--set", "seeds=[0, 1, 2, 3]", "--difference", "0.02")
    assert "tale (rows-text, 2 documents): at least about" in answer.out
    assert "documents, however many seeds." in answer.out
    windows = ("seeds=[0, 1, 2, 3]", "benchmarks.tale.protocols=[blocks-8]")
    answer = call("check", study_file, *(part for value in windows for part in ("--set", value)))
    assert re.search(r"tale \(blocks-8, \d+ windows\): at least about", answer.out)
    one = call("check", study_file, "--set", "seeds=[0]")
    assert "nothing about training" in one.out


def test_a_plan_has_the_spread_of_a_study_that_it_is_like(study_file: Path) -> None:
    like = BENCHMARKS / "scored-padding_2cores_202611" / "demo-masked"
    arguments = ("check", study_file, "--like", like)
    (found,) = json.loads(call(*arguments, "--json").out)["separable"]
    assert found["spread"] == asdict(read_spreads(like).of_others)
    (same,) = json.loads(call(*arguments, "--set", "benchmarks.tale.name=licences", "--json").out)[
        "separable"
    ]
    licences = Score("licences", "rows-text", n_documents=1, is_joined=False)
    assert same["spread"] == asdict(read_spreads(like).of(licences))
    assert same["spread"] != found["spread"]
    assert f"(if runs spread as in {like})" in call(*arguments).out


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        (("--difference", "-0.02"), "as 0.02"),
        (("--difference", "nan"), "as 0.02"),
        (("--difference", "1e-300"), "as 0.02"),
        (("--difference", "x"), "--difference"),
        (("--like", "nowhere"), "nowhere"),
        (("--like", ""), "--like"),
        (("--like", BENCHMARKS / "smollm2_2cores_202611"), "several seeds"),
    ],
)
def test_a_plan_that_cannot_be_read_is_refused(arguments: tuple[object, ...], form: str) -> None:
    answer = call("check", "demo", *arguments)
    assert answer.code == 2 and form in answer.err
