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
def test_both_sides_train_and_score_the_same_rows(tiny_gpt2, tmp_path) -> None:
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
