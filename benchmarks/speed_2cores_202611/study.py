"""What is spent once or shared in a study: threads and jobs, and tokenising.

    python study.py [--mirror DIR] [--out study.json]       measures and prints
    python study.py --table study.json                      prints a file, measuring nothing

Jobs: two processes that train LoRA-2 with one thread each, at once, against one process with two
threads, in turn; what counts is tokens a second of both together. Tokenising needs a mirror with
GPT-2's tokenizer and the three data sets of the published study: once with an empty cache, and
once with the full one.
"""

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sides import Side, describe_machine
from speed import make_base

HERE = Path(__file__).resolve().parent
WIKITEXT = {"id": "Salesforce/wikitext", "config": "wikitext-2-v1"}
SOURCES = (
    *({**WIKITEXT, "split": split} for split in ("train", "validation", "test")),
    {"id": "EleutherAI/lambada_openai", "config": "en", "split": "test"},
    {"id": "stanfordnlp/imdb", "split": "test"},
)


def measure_jobs(base: Path, n_rounds: int) -> list[dict[str, float]]:
    """Tokens a second of two one-thread processes at once, and of one two-thread process."""
    common = ["--base", str(base), "--steps", str(n_rounds)]
    pair = [Side("ours.py", [*common, "--threads", "1", "--seed", str(s)]) for s in (0, 1)]
    single = Side("ours.py", [*common, "--threads", "2"])
    sides = [*pair, single]
    rounds = []
    try:
        for side in sides:
            side.wait_until_ready()
            side.step()
        with ThreadPoolExecutor(2) as pool:
            for _ in range(n_rounds):
                began = time.perf_counter()
                done = list(pool.map(Side.step, pair))
                seconds = time.perf_counter() - began
                alone = single.step()
                rounds.append(
                    {
                        "two_by_one_thread": sum(cost["tokens"] for cost in done) / seconds,
                        "one_by_two_threads": alone["tokens"] / alone["seconds"],
                    }
                )
    finally:
        for side in sides:
            side.close()
    return rounds


def measure_tokenising(mirror: Path) -> dict[str, float]:
    """Seconds to make all corpora of the published study, and to open them from the cache."""
    from lorastudy.config.models import Source
    from lorastudy.model.tokenizer import load_tokenizer
    from lorastudy.run.inputs import open_corpus_of
    from lorastudy.store.places import Places

    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        places = Places(Path(), mirror, offline=True, cache=Path(cache))
        for name in ("first", "cached"):
            began = time.perf_counter()
            tokenizer = load_tokenizer(mirror / "openai-community" / "gpt2")
            corpora = [
                open_corpus_of(Source.model_validate(source), "texts", tokenizer, places)
                for source in SOURCES
            ]
            found[f"{name}_seconds"] = time.perf_counter() - began
        found["tokens"] = sum(corpus.n_tokens for corpus in corpora)
    return found


def markdown(results: dict[str, Any]) -> str:
    """Sentences with the measured numbers."""
    lines = []
    if rounds := results.get("jobs"):
        ratios = [r["two_by_one_thread"] / r["one_by_two_threads"] for r in rounds]
        pair, single = (
            statistics.median(r[key] for r in rounds)
            for key in ("two_by_one_thread", "one_by_two_threads")
        )
        lines.append(
            f"`--jobs 2` with one thread each: {pair:,.0f} tokens a second together; one run with "
            f"two threads: {single:,.0f}. Median ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}, {len(ratios)} rounds)."
        )
    if found := results.get("tokenising"):
        lines.append(
            f"Tokenising WikiText-2, LAMBADA and IMDB test, {found['tokens']:,.0f} tokens: "
            f"{found['first_seconds']:.1f} s (aimed at <= 15); from the cache "
            f"{found['cached_seconds']:.1f} s."
        )
    return "\n\n".join(lines)


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mirror", type=Path, help="measure tokenising too")
    parser.add_argument("--base", type=Path, help="GPT-2 folder; random weights without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "study.json")
    parser.add_argument("--table", type=Path, help="print what is in this file")
    options = parser.parse_args()
    if options.table:
        print(markdown(json.loads(options.table.read_text())))
        return
    results: dict[str, Any] = {"machine": describe_machine(2)}
    if options.mirror:
        results["tokenising"] = measure_tokenising(options.mirror)
    with tempfile.TemporaryDirectory() as folder:
        base = options.base or make_base(Path(folder))
        results["jobs"] = measure_jobs(base, options.rounds)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
