"""What `check` says about the cost of a study before it starts."""

import json
from pathlib import Path

import pytest

import lorastudy as ls
from support.command_line import call, names_in, write_study
from support.forked_studies import call_study


@pytest.fixture(scope="module")
def study_file(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), tiny_gpt2)


def test_a_probe_predicts_every_run_and_leaves_nothing_behind(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
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
    assert "time, about" in text and "EUR (from shapes" in text and "--probe" in text


@pytest.mark.parametrize("price", ["x", "1.20", "1,20/h", "-1/h", "1e3/h", "9" * 5000 + "/h", ""])
def test_a_price_that_cannot_be_read_is_answered_with_the_right_form(price: str) -> None:
    answer = call("check", "demo", f"--price={price}")
    assert answer.code == 2 and "1.20/h" in answer.err and len(answer.err) < 300
    with pytest.raises(ls.StudyError, match=r"1\.20/h"):
        ls.check("demo", price=price)
