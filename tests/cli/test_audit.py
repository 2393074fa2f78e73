"""`audit` and the units of `evaluate`: keys, numbers and refusals, end to end."""

import json
import math
import shutil
from pathlib import Path

import pytest

from support.command_line import call

TEXT = "The last boat.\n\nIt came in with the song.\nYes.\n"
SIZES = (14, 25, 4)  # bytes of its lines, a token each


@pytest.fixture
def tale(tmp_path: Path) -> Path:
    path = tmp_path / "tale.txt"
    path.write_text(TEXT)
    return path


def audit(*arguments: object) -> dict:
    answer = call("audit", *arguments, "--length", 21, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_audit_of_a_model_holds_the_keys_of_the_contract(tiny_gpt2: Path, tale: Path) -> None:
    found = audit(tiny_gpt2, "--benchmark", tale, "--protocol", "rows-text", "--device", "cpu")
    assert (found["benchmark"], found["rows"], found["length"]) == ("tale", 3, 21)
    assert found["text_share"] == (14 + 20 + 4) / 60
    assert [(c["class"], c["n_targets"]) for c in found["classes"]] == [
        ("first", 3),
        ("text", 13 + 19 + 3),
        ("first-padding", 2),
        ("other-padding", 5 + 15),
    ]
    assert set(found["perplexity"]) == {"paper-padded", "rows-text"}
    assert found["undone"] is None
    nats = sum(c["n_targets"] * c["cross_entropy"] for c in found["classes"])
    # three rows are one batch, so the mean of batch means is the mean over targets
    assert math.exp(nats / 60) == pytest.approx(found["perplexity"]["paper-padded"])


def test_audit_scores_the_protocols_that_are_asked_for(tiny_gpt2: Path, tale: Path) -> None:
    found = audit(tiny_gpt2, "--benchmark", tale, "--protocol", "document", "--reported", 3)
    assert list(found["perplexity"]) == ["paper-padded", "document"]
    assert found["undone"]["text_perplexity"] == pytest.approx(3 ** (60 / 38))


def test_reported_number_needs_no_weights(byte_tokenizer: Path, tale: Path) -> None:
    assert not list(byte_tokenizer.glob("*.safetensors"))
    found = audit("--reported", 2.5, "--benchmark", tale, "--tokenizer", byte_tokenizer)
    undone = found["undone"]
    assert undone["reported"] == 2.5
    assert undone["text_perplexity"] == undone["high"] == pytest.approx(2.5 ** (60 / 38))
    assert undone["low"] < undone["high"]
    assert found["perplexity"] == {}
    assert [c["cross_entropy"] for c in found["classes"]] == [None] * 4


def test_tokenizer_may_be_a_hub_id_in_the_mirror(
    byte_tokenizer: Path, tale: Path, tmp_path: Path
) -> None:
    shutil.copytree(byte_tokenizer, tmp_path / "mirror" / "someone" / "bytes")
    found = audit(
        *("--reported", 2.5, "--benchmark", tale, "--tokenizer", "someone/bytes"),
        *("--mirror", tmp_path / "mirror", "--offline"),
    )
    assert found["rows"] == 3


def test_audit_reads_as_a_table(tiny_gpt2: Path, tale: Path) -> None:
    answer = call("audit", tiny_gpt2, "--benchmark", tale, "--length", 21, "--reported", 2.5)
    assert answer.code == 0
    for part in ("other-padding", "padding scored", "rows-text v1", "reported 2.5", "0.6333"):
        assert part in answer.out


@pytest.fixture
def indented(tmp_path: Path) -> Path:
    path = tmp_path / "indented.txt"
    path.write_text("  A boat. \n\n \n Yes.\n")  # 7 + 4 bytes, 4 blanks around them
    return path


def test_audit_counts_stripped_texts_and_texts_as_they_are(
    byte_tokenizer: Path, indented: Path
) -> None:
    command = ("--reported", 2.5, "--benchmark", indented, "--tokenizer", byte_tokenizer)
    stripped, kept = audit(*command), audit(*command, "--no-strip")
    assert (stripped["text_share"], kept["text_share"]) == (11 / 40, 15 / 40)
    assert [r["text_share"] for r in stripped["readings"]] == [11 / 40, 15 / 40]
    assert [r["strip"] for r in kept["readings"]] == [False, True]
    assert kept["undone"] == kept["readings"][0]["undone"] == stripped["readings"][1]["undone"]
    assert kept["undone"]["text_perplexity"] == pytest.approx(2.5 ** (40 / 15))


def test_white_space_is_kept_only_in_row_protocols(tiny_gpt2: Path, indented: Path) -> None:
    command = ("evaluate", tiny_gpt2, "--benchmark", indented, "--length", 21, "--json")
    command += ("--protocol", "rows-text", "--protocol", "document")

    def count(*more: str) -> list[int]:
        answer = json.loads(call(*command, *more).out)
        return [evaluation["n_tokens"] for evaluation in answer["evaluations"]]

    assert (count(), count("--no-strip")) == ([11, 11], [15, 11])


MISTAKES = [
    ((), "--reported with --tokenizer"),
    (("--reported", 2), "--reported with --tokenizer"),
    (("MODEL", "--tokenizer", "x/y"), "brings its own tokenizer"),
    (("--reported", 2, "--tokenizer", "TOKENIZER", "--protocol", "document"), "need a MODEL"),
    (("--reported", 0.5, "--tokenizer", "TOKENIZER"), "at least 1"),
    (("MODEL", "--protocol", "rows-txt"), "is not a protocol"),
    (
        ("MODEL", "--length", 65),
        "the 64 positions of the base model. Use a shorter length: --length",
    ),
    (("MODEL", "--protocol", "blocks-65"), "65 tokens are longer than the 64 positions"),
    (("MODEL", "--precision", "float16"), "use float32 or bfloat16"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_audit_that_cannot_be_done_says_why(
    arguments: list[str], message: str, tiny_gpt2: Path, byte_tokenizer: Path, tale: Path
) -> None:
    places = {"MODEL": tiny_gpt2, "TOKENIZER": byte_tokenizer}
    given = [places.get(a, a) for a in arguments]
    length = () if "--length" in arguments else ("--length", 21)
    answer = call("audit", *given, "--benchmark", tale, *length)
    assert answer.code == 2
    assert message in answer.err


def test_audit_without_a_benchmark_asks_for_one(byte_tokenizer: Path) -> None:
    answer = call("audit", "--reported", 2, "--tokenizer", byte_tokenizer)
    assert (answer.code, "--benchmark" in answer.err) == (2, True)


def test_tokenizer_that_is_not_there_is_an_input_error(tale: Path, tmp_path: Path) -> None:
    for name in (tmp_path, "no/such"):
        answer = call(
            *("audit", "--reported", 2, "--benchmark", tale, "--tokenizer", name, "--offline")
        )
        assert answer.code == 3, answer.err


@pytest.mark.parametrize("protocol", ["rows-text", "lm-eval-wikitext", "lm-eval-lambada"])
def test_benchmark_without_a_text_is_an_input_error(
    protocol: str, tiny_gpt2: Path, tmp_path: Path
) -> None:
    path = tmp_path / "blank.txt"
    path.write_text("\n \n")
    command = ("evaluate", tiny_gpt2, "--benchmark", path, "--length", 40)
    answer = call(*command, "--protocol", protocol)
    assert answer.code == 3
    assert "blank" in answer.err


def test_evaluate_shows_every_unit_that_is_defined(tiny_gpt2: Path, tale: Path) -> None:
    command = ("evaluate", tiny_gpt2, "--benchmark", tale, "--length", 40)
    command += ("--protocol", "rows-text", "--protocol", "lm-eval-lambada")
    whole, last = call(*command).out.splitlines()
    assert "word perplexity" in whole and "bits per byte" in whole and "accuracy" not in whole
    assert "accuracy" in last and "nats/document" in last and "word perplexity" not in last
    rows, lambada = json.loads(call(*command, "--json").out)["evaluations"]
    assert rows["bits_per_byte"] == pytest.approx(rows["sum_nats"] / sum(SIZES) / math.log(2))
    assert (rows["n_words"], rows["n_bytes"], rows["n_documents_cut"]) == (10, sum(SIZES), 0)
    assert 0 <= lambada["accuracy"] <= 1
    assert lambada["tokenizer_digest"] == rows["tokenizer_digest"]


def test_evaluate_says_how_many_documents_were_cut(tiny_gpt2: Path, tale: Path) -> None:
    command = ("evaluate", tiny_gpt2, "--benchmark", tale, "--length", 20)
    answer = call(*command, "--protocol", "rows-text")
    assert "3 documents, 1 of them cut" in answer.out
    assert "bits per byte" not in answer.out
