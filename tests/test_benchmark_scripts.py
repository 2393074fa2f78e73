"""The scripts of benchmarks/speed_2cores_202611 run, on a model so small that they say nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "speed_2cores_202611"
KEYS = ("train/dynamic padding/lora-2/float32", "evaluate/IMDB: sorted, merged/lora-2/float32")


def run_script(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_both_sides_train_and_score_the_same_rows(tiny_gpt2: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    only = [part for key in KEYS for part in ("--only", key)]
    common = ("--base", tiny_gpt2, "--threads", "1", "--alternations", "1", "--out", out)
    run_script("speed.py", *common, *only)
    results = json.loads(out.read_text())
    assert [found["key"] for found in results["comparisons"]] == list(KEYS)
    for found in results["comparisons"]:
        (step,) = found["steps"]
        assert step["ours"]["tokens"] == step["peer"]["tokens"] > 100
        assert all(step[side]["seconds"] > 0 for side in ("ours", "peer"))
    nats = {side: results["comparisons"][1]["steps"][0][side]["nats"] for side in ("ours", "peer")}
    assert nats["ours"] == pytest.approx(nats["peer"], rel=1e-6)
    table = run_script("speed.py", "--table", out)
    assert "| dynamic padding | lora-2 |" in table and "| IMDB: sorted, merged |" in table


def test_growth_and_study_print_the_tables_of_a_file(tmp_path: Path) -> None:
    size = {"rows": 70, "length": 100, "vocabulary": 8192, "rank": 16, "arm": "lora-2"}
    cost = {"seconds": 0.7, "peak_bytes": 3 * 2**30, "start_bytes": 2**30, "trained": 5}
    growth = tmp_path / "growth.json"
    growth.write_text(json.dumps({"growth": {"rank": [{**size, **cost}]}}))
    assert "| rank | 16 | 700 | 0.500 | 3,072 | 2,048 |" in run_script(
        "growth.py", "--table", growth
    )
    study = tmp_path / "study.json"
    rounds = [{"two_by_one_thread": 440.0, "one_by_two_threads": 400.0}] * 3
    found = {"first_seconds": 12.0, "cached_seconds": 1.0, "tokens": 9_000_000}
    study.write_text(json.dumps({"jobs": rounds, "tokenising": found}))
    printed = run_script("study.py", "--table", study)
    assert "Median ratio 1.10" in printed and "12.0 s (aimed at <= 15)" in printed
