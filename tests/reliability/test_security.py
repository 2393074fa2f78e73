"""R13 and R14: nothing from outside becomes markup, runs, leaks or reaches the network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lorastudy.analysis.findings import make_findings
from lorastudy.errors import redact_secrets
from lorastudy.report.build import write_report
from support.command_line import call, write_study
from support.forked_studies import call_study, forked_workers
from support.made_results import make_epochs, make_failed_run, make_results, make_run
from support.reliability_rows import Row

CORPUS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'><iframe src=javascript:alert(1)>",
    "</td></table><script src=//evil.example/x.js></script>",
    "<a href='javascript:alert(1)'>x</a>",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script><![CDATA[",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "${7*7}#{7*7}",
    '" autofocus onfocus=alert(1) x="',
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>@import 'https://evil.example/x.css'</style>",
    "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<math><mtext><script>alert(1)</script></mtext></math>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u202e<object data=x>\u0000\x1b[31m",
)
FORBIDDEN = {"iframe", "img", "object", "embed", "link", "base", "form", "math"}

CARRIED = re.compile(r"data:(text/csv|application/json);charset=utf-8;base64,[A-Za-z0-9+/=]*$")


class Seen(HTMLParser):
    """Tags and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.n_scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.n_scripts += tag == "script"
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src", "data", "action", "xlink:href"):
                self.addresses.add(value or "")


def see(page: str) -> Seen:
    seen = Seen()
    seen.feed(page)
    return seen


def test_r13_no_markup_from_outside_reaches_the_page(tmp_path: Path) -> None:
    row = Row("R13")
    sound = write_report(make_findings(make_results()), tmp_path / "plain").read_text()
    plain = see(sound)
    names = [text for text in CORPUS if text.isprintable()]  # as study files have them
    runs = [
        make_run(text, 0, epochs=make_epochs((3.0, 2.0)), device=text, drift=(text,))
        for text in names
    ]
    runs += [make_failed_run("b", seed, text) for seed, text in enumerate(CORPUS)]
    missing = tuple(f"{text}-s1-00" for text in CORPUS)
    results = make_results(runs, name=" ".join(names), arms=(*names, "b"), missing=missing)
    page = write_report(make_findings(results), tmp_path / "hostile").read_text()
    seen = see(page)
    found = seen.tags - plain.tags | seen.attributes - plain.attributes
    outside = {where for where in seen.addresses if ":" in where and not CARRIED.match(where)}
    unescaped = [text for text in CORPUS if "<" in text and text in page]
    row.show(f"{len(unescaped)} of {len(CORPUS)} strings reach the page; new markup: {len(found)}")
    assert (found, outside, unescaped) == (set(), set(), [])
    assert not seen.tags & FORBIDDEN and seen.n_scripts == 1  # the page's own, by its hash
    assert "{{ 7 * 7 }}" in page and page.count("<meta ") == sound.count("<meta ")
    assert len(CORPUS) == 20


def test_r14_a_report_rebuilt_from_the_same_folder_has_the_same_bytes(
    tiny_gpt2: Path, tmp_path: Path
) -> None:
    row, study, folder = Row("R14"), write_study(tmp_path, tiny_gpt2), tmp_path / "out"
    with forked_workers():
        assert call("run", study, "--out", folder, "--jobs", 2).code == 0

    def everything() -> dict[str, bytes]:
        found = [folder / "results.json", *(folder / "report").rglob("*")]
        return {str(p.relative_to(folder)): p.read_bytes() for p in found if p.is_file()}

    before = everything()
    assert call("report", folder).code == 0
    after = everything()
    row.show(f"{sum(before[n] == after.get(n) for n in before)} of {len(before)} files identical")
    assert before == after and len(before) > 10


SMALL = (
    *("--set", "training.epochs=1", "--set", "data.train.limit=8", "--set", "seeds=[0]"),
    *("--set", "data.validation.limit=4", "--set", "benchmarks=[]", "--arm", "lora-1"),
)


def test_the_demo_runs_with_all_sockets_closed(tmp_path: Path) -> None:
    # tests/conftest.py closes them in this process, of which the workers are forks
    answer = call_study("run", "demo", "--out", tmp_path / "demo", *SMALL)
    assert answer.code == 0, answer.err


def test_no_secret_of_the_environment_is_written_anywhere(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + "S3cr3tS3cr3tS3cr3t"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://me:{secret}@proxy.example" if "PROXY" in name else secret)
    study, folder = write_study(tmp_path, tiny_gpt2), tmp_path / "out"

    def fail(point: str) -> None:
        if point == "train:after-forward":
            raise RuntimeError(f"401 for https://me:{secret}@hub.example?token={secret} ({secret})")

    answer = call_study("run", study, "--out", folder, "--seed", 0, handler=fail)
    assert answer.code == 5
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"]
    assert len(files) > 10
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert secret not in answer.out + answer.err
    reasons = [r["reason"] for r in json.loads((folder / "results.json").read_text())["runs"]]
    assert any("[redacted]" in str(reason) for reason in reasons)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_abcdefgh12345678 is wrong", "token hf_[redacted] is wrong"),
        ("https://user:pass@host/x", "https://[redacted]@host/x"),
        ("GET /x?api_key=abc&y=1", "GET /x?api_key=[redacted]&y=1"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("step 3: loss nan; rows 1, 2", "step 3: loss nan; rows 1, 2"),
    ],
)
def test_secrets_in_messages_are_redacted_and_nothing_else(text: str, expected: str) -> None:
    assert redact_secrets(text) == expected


def test_file_names_come_from_checked_names_and_hashes(tiny_gpt2: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path, tiny_gpt2)
    for value in ("arms.lora.name=../x", "benchmarks.tale.name=a/b", "name=../../tiny"):
        answer = call("run", study, "--out", tmp_path / "out", "--set", value)
        assert answer.code == 2, value
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"texts", "study.yaml"}
