"""How far differences of trained arms spread over seeds and documents in a finished study.

./run python benchmarks/spread_202611/spread.py [STUDY_DIR ...]

For each study the median over its pairs of trained arms: of all benchmarks, and of each one.
Without arguments: the study whose spread `lorastudy check` assumes where none is named.
"""

import sys
from pathlib import Path

from lorastudy.analysis.findings import read_findings
from lorastudy.analysis.outlook import read_spreads

ASSUMED = Path(__file__).parents[1] / "scored-padding_2cores_202611" / "demo-masked"


def main() -> None:
    """Print one line for each score."""
    for folder in map(Path, sys.argv[1:] or [str(ASSUMED)]):
        print(f"{folder.parent.name}/{folder.name}: nats per target, standard deviations")
        print("| score | of seeds | of documents | of both |")
        print("|---|--:|--:|--:|")
        spreads = read_spreads(folder)
        keys = [(c.key.benchmark, c.key.protocol) for c in read_findings(folder).main]
        of_keys = ((", ".join(key), spreads.by_score[key]) for key in keys)
        for name, spread in (("all", spreads.of_others), *of_keys):
            print(f"| {name} | {spread.seeds:.4f} | {spread.documents:.3f} | {spread.both:.3f} |")


if __name__ == "__main__":
    main()
