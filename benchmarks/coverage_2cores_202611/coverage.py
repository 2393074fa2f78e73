"""How often the report is wrong, and what it finds, on synthetic studies whose truth is known.

A study has a baseline with one run, A trained arms with S seeds, and m documents. The loss per
target of arm a, seed s on document i is: arm a + seed s + own effect of (a, s) + effect of (a, i)
+ rest. Seed and own effects are normal and have the same variance; `spread` is the standard
deviation of both together. Effects of (a, i) have Student's t with 5 degrees of freedom and a
deviation of 0.05, the rest is normal with 0.045, as in the demo. Documents have lognormal numbers
of targets. All studies of a cell go through the functions that the report uses, as arrays.

Run from the root of the repository; results.txt beside this file is what it printed:

    python benchmarks/coverage_2cores_202611/coverage.py > results.txt
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from lorastudy.analysis.families import separate
from lorastudy.analysis.layout import (
    ARMS_FOR_RARE,
    CommonVariance,
    least_seeds,
    measure_layout,
    prior_freedom,
    shrink_variance,
)
from lorastudy.analysis.paired import (
    SIGNIFICANCE,
    Clusters,
    Difference,
    Errors,
    FloatArray,
    cluster_windows,
    document_freedom,
    make_rare,
    measure_parts,
)
from lorastudy.analysis.planning import seeds_for_equivalence, seeds_needed, smallest_difference

MARGIN = 0.02
SEEDS, SPREADS = (2, 3, 5, 10), (0.002, 0.01, 0.03, 0.06, 0.1)
PATTERNS = ("equal", "one x10", "one x100", "ladder 100")
TRUE_MEANS = (0.0, 0.0, 0.05, 0.2, 0.6)  # of five trained arms; the baseline's is 1
RULES: dict[str, float | None] = {"this rule": None, "d0 = 2": 2.0, "own variance": 0.0}
DOCUMENT, REST = 0.05, 0.045
_AT_ONCE = 3_000_000  # effects of one trained arm held in memory


@dataclass(frozen=True, slots=True)
class Cell:
    """What the studies of one cell have in common."""

    n_seeds: int
    spread: float
    m: int = 100
    n_arms: int = 5
    pattern: str = "equal"
    article: float = 0.0  # share of a document's variance that neighbours have in common


@dataclass(frozen=True, slots=True)
class Measured:
    """All pairs of all studies of a cell; arrays (studies, pairs)."""

    pairs: tuple[tuple[int, int], ...]  # of arms; the last arm is the baseline
    means: FloatArray
    own: FloatArray  # variance over seeds of a pair by itself
    commons: tuple[CommonVariance, ...]  # by pair
    documents: FloatArray
    shared: FloatArray
    m: int  # documents
    n_clusters: int | None  # of them; None: every one by itself

    def errors(self, n_seeds: int, prior: float | None = None) -> Errors:
        """The errors, with `prior` degrees of freedom for the common variance.

        None: as many as the report gives it.
        """
        is_own_rule = prior is None
        n_arms = max(b for _, b in self.pairs)
        if prior is None:
            prior = prior_freedom(n_arms, n_seeds)
        shrunk = [
            shrink_variance(own, n_seeds, common, prior)
            if prior
            else (own, np.full(own.shape, n_seeds - 1.0))
            for own, common in zip(self.own.T, self.commons, strict=True)
        ]
        seeds, freedom = (np.stack(part, axis=-1) for part in zip(*shrunk, strict=True))
        of_documents = np.full(seeds.shape, document_freedom(self.m, self.n_clusters))
        errors = Errors(seeds / n_seeds, self.documents, self.shared, freedom, of_documents)
        has_rare = is_own_rule and n_seeds == 2 and n_arms >= ARMS_FOR_RARE
        return self._with_rare(errors, n_seeds) if has_rare else errors

    def _with_rare(self, errors: Errors, n_seeds: int) -> Errors:
        """The errors with the small tails that pairs of trained arms have with two seeds."""
        n_arms = max(b for _, b in self.pairs)
        common = np.stack([c.value for c in self.commons], axis=-1) / n_seeds
        rare = make_rare(errors, common, n_arms)
        is_trained = np.array([b < n_arms for _, b in self.pairs])
        parts = {
            name: np.where(is_trained, getattr(rare, name), getattr(errors, name))
            for name in ("seeds", "seed_freedom", "seed_scale")
        }
        return replace(errors, rare=replace(errors, **parts))

    def shifts(self, means_of_arms: tuple[float, ...]) -> FloatArray:
        """The true differences of all pairs (pairs)."""
        return np.array([means_of_arms[a] - means_of_arms[b] for a, b in self.pairs])


def variances(pattern: str, n_arms: int) -> FloatArray:
    """Relative variances of the arms' own effects, one in the mean."""
    values = np.ones(n_arms)
    if pattern.startswith("one"):
        values[0] = float(pattern.removeprefix("one x"))
    elif pattern.startswith("ladder"):
        values = np.geomspace(float(pattern.removeprefix("ladder ")), 1.0, n_arms)
    return values / values.mean()


def draw(rng: np.random.Generator, cell: Cell, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets (n, m), nats of trained arms (n, A, S, m) and of the baseline (n, m)."""
    a, s, m = cell.n_arms, cell.n_seeds, cell.m
    targets = np.maximum(5, rng.lognormal(4, 0.7, (n, m))).round()
    half = cell.spread * np.sqrt(0.5)
    own = rng.normal(0, half, (n, a, s)) * np.sqrt(variances(cell.pattern, a))[:, None]
    of_runs = own + rng.normal(0, half, (n, 1, s))
    of_documents = rng.standard_t(5, (n, a + 1, m)) * (DOCUMENT / np.sqrt(5 / 3))
    if cell.article:  # articles of four windows in the mean
        article = np.cumsum(rng.random((n, 1, m)) < 0.25, axis=-1)
        effects = rng.standard_t(5, (n, a + 1, m + 1)) * (DOCUMENT / np.sqrt(5 / 3))
        together = np.take_along_axis(effects, np.broadcast_to(article, of_documents.shape), -1)
        of_documents *= np.sqrt(1 - cell.article)
        of_documents += np.sqrt(cell.article) * together
    nats = of_runs[..., None] + of_documents[:, :a, None] + rng.normal(0, REST, (n, a, s, m))
    return targets, nats * targets[:, None, None], of_documents[:, a] * targets


def measure(cell: Cell, n_studies: int, clusters: Clusters | None = None) -> Measured:
    """All pairs of `n_studies` studies without a true difference."""
    rng = np.random.default_rng(
        [cell.n_seeds, round(cell.spread * 1e4), cell.m, cell.n_arms, PATTERNS.index(cell.pattern)]
    )
    step = max(1, _AT_ONCE // (cell.n_seeds * cell.m))
    sizes = [min(step, n_studies - begin) for begin in range(0, n_studies, step)]
    chunks = [_measure_chunk(*draw(rng, cell, size), clusters) for size in sizes]
    joined = [np.concatenate(part) for part in zip(*(c[1:] for c in chunks), strict=True)]
    means, own, documents, shared, *common = joined
    commons = (CommonVariance(common[0], common[1]), CommonVariance(common[2], common[3]))
    n_clusters = None if clusters is None else len(np.unique(clusters))
    of_pairs = tuple(commons[b == cell.n_arms] for _, b in chunks[0][0])
    return Measured(chunks[0][0], means, own, of_pairs, documents, shared, cell.m, n_clusters)


def _measure_chunk(
    targets: FloatArray, nats: FloatArray, baseline: FloatArray, clusters: Clusters | None
) -> tuple[tuple[tuple[int, int], ...], *tuple[FloatArray, ...]]:
    n_arms = nats.shape[1]
    layout = measure_layout(nats.sum(axis=-1) / targets.sum(axis=-1)[:, None, None])
    pairs = tuple(combinations(range(n_arms + 1), 2))
    found = [
        measure_parts(
            targets, nats[:, a] - (nats[:, b] if b < n_arms else baseline[:, None]), clusters
        )
        for a, b in pairs
    ]
    trained, constant = layout.of_trained, layout.of_constant
    return (
        pairs,
        np.stack([f.means for f in found], axis=-1),
        np.stack([f.of_seeds.var(axis=-1, ddof=1) for f in found], axis=-1),
        np.stack([f.documents for f in found], axis=-1),
        np.stack([f.shared for f in found], axis=-1),
        *(trained.value, trained.freedom, constant.value, constant.freedom),
    )


def false_separations(measured: Measured, n_seeds: int, prior: float | None = None) -> float:
    """Per cent of studies with at least one false separation; nothing differs in truth."""
    separated, _ = separate(measured.means, measured.errors(n_seeds, prior))
    return 100 * float(separated.any(axis=-1).mean())


def one_question(measured: Measured, n_seeds: int) -> float:
    """Per cent of studies that separate the first two arms, asked about by themselves."""
    errors = measured.errors(n_seeds)
    return 100 * float((np.abs(measured.means) > errors.half_width(SIGNIFICANCE))[:, 0].mean())


def print_false(n_studies: int) -> None:
    """Chance of a false separation in a study, by rule."""
    print("\nFALSE SEPARATIONS, % of studies; five trained arms, 15 pairs")
    print(f"{'seeds':>5} {'spread':>6} {'docs':>5} {'variances':>10}", *(f"{r:>13}" for r in RULES),
          f"{'one question':>13}", f"{'95 % covers':>12} {'worst pair':>10}")  # fmt: skip
    cells = [Cell(s, spread, 100, 5, p) for s, p, spread in product(SEEDS, PATTERNS, SPREADS)]
    cells += [Cell(s, x, 1000, 5, p) for s, p, x in product(SEEDS, PATTERNS[::2], SPREADS[::2])]
    worst: dict[tuple[int, str], list[float]] = {}
    for cell in cells:
        n = n_studies if cell.m == 100 else n_studies // 2
        measured = measure(cell, n)
        found = [false_separations(measured, cell.n_seeds, prior) for prior in RULES.values()]
        half = measured.errors(cell.n_seeds).half_width(SIGNIFICANCE)
        covered = 100 * (np.abs(measured.means) <= half).mean(axis=0)
        worst.setdefault((cell.n_seeds, cell.pattern), []).append(found[0])
        print(f"{cell.n_seeds:>5} {cell.spread:>6g} {cell.m:>5} {cell.pattern:>10}",
              *(f"{f:>13.1f}" for f in found), f"{one_question(measured, cell.n_seeds):>13.1f}",
              f"{covered.mean():>12.1f} {covered.min():>10.1f}", flush=True)  # fmt: skip
    print("\nworst cell of this rule")
    for (n_seeds, pattern), values in worst.items():
        print(f"{n_seeds:>5} seeds, variances {pattern}: {max(values):.1f}")


def print_layouts(n_studies: int) -> None:
    """Layouts of few and of many arms, where seeds dominate."""
    print("\nOTHER NUMBERS OF ARMS: false separations, % of studies, spread 0.1, 50 documents")
    print(f"{'arms':>5} {'seeds':>5} {'equal':>7} {'one x10':>8} {'one x100':>9}  verdict")
    for n_arms, n_seeds in product((1, 2, 3, 4, 8), (2, 3, 5)):
        found = [
            false_separations(measure(Cell(n_seeds, 0.1, 50, n_arms, pattern), n_studies), n_seeds)
            for pattern in PATTERNS[:3]
        ]
        allowed = "yes" if n_seeds >= least_seeds(n_arms) else "refused"
        print(f"{n_arms:>5} {n_seeds:>5} {found[0]:>7.1f} {found[1]:>8.1f} {found[2]:>9.1f}  "
              f"{allowed}", flush=True)  # fmt: skip


def print_power(n_studies: int) -> None:
    """Chance to separate true differences; and whether all adjusted intervals cover at once."""
    print("\nPOWER: true differences of 0.05, 0.2, 0.6 nats between trained arms, 15 pairs")
    print(f"{'seeds':>5} {'spread':>6} {'docs':>5}", *(f"{rule:>18}" for rule in RULES),
          f"{'all 15 covered':>15}")  # fmt: skip
    for n_seeds, m, spread in product(SEEDS, (100, 1000), SPREADS[:3]):
        n = n_studies if m == 100 else n_studies // 4
        measured = measure(Cell(n_seeds, spread, m), n)
        truth = measured.shifts((*TRUE_MEANS, 1.0))
        shown = []
        for prior in RULES.values():
            errors = measured.errors(n_seeds, prior)
            separated, levels = separate(measured.means + truth, errors)
            chances = [separated[:, _between(measured, k)].mean() for k in (2, 3, 4)]
            shown.append(" / ".join(f"{chance:.2f}" for chance in chances))
            if prior is None:
                is_covered = np.abs(measured.means) <= errors.half_width(levels)
        print(f"{n_seeds:>5} {spread:>6g} {m:>5}", *(f"{text:>18}" for text in shown),
              f"{100 * is_covered.all(axis=-1).mean():>15.1f}", flush=True)  # fmt: skip


def _between(measured: Measured, arm: int) -> list[int]:
    """The pairs of `arm` and the two arms with the lowest loss."""
    return [measured.pairs.index((0, arm)), measured.pairs.index((1, arm))]


def print_equivalence(n_studies: int) -> None:
    """Chance that equal arms are called equivalent, and that arms at the margin are."""
    print(f"\nEQUIVALENCE within {MARGIN} nats; arms at 0, 0, {MARGIN}, {MARGIN}, {2 * MARGIN}")
    print(f"{'seeds':>5} {'spread':>6} {'docs':>5} {'equal arms':>11} {'false in a study':>17}")
    for n_seeds, m, spread in product(SEEDS, (100, 1000), (0.002, 0.005, 0.01)):
        measured = measure(Cell(n_seeds, spread, m), n_studies if m == 100 else n_studies // 4)
        truth = measured.shifts((0.0, 0.0, MARGIN, MARGIN, 2 * MARGIN, 1.0))
        means = measured.means + truth
        errors = measured.errors(n_seeds)
        _, levels = separate(means, errors)
        within = np.abs(means) + errors.half_width(levels) < MARGIN
        is_beyond = np.abs(truth) > MARGIN - 1e-12
        found = 100 * within[:, truth == 0].mean(), 100 * within[:, is_beyond].any(axis=-1).mean()
        print(f"{n_seeds:>5} {spread:>6g} {m:>5} {found[0]:>11.1f} {found[1]:>17.1f}", flush=True)


def print_windows(n_studies: int) -> None:
    """Windows of one text: neighbours are alike, in articles of four windows in the mean."""
    print(
        "\nWINDOWS: false separations, % of studies; half of a window's variance is its article's"
    )
    print(f"{'seeds':>5} {'spread':>6} {'windows':>8} {'each alone':>11} {'cube root':>10}"
          f" {'in blocks':>10}")  # fmt: skip
    for n_seeds, m, spread in product((2, 3, 5), (60, 240), (0.002, 0.01)):
        cell = Cell(n_seeds, spread, m, article=0.5)
        found = [
            false_separations(measure(cell, n_studies // 2, clusters), n_seeds)
            for clusters in (None, np.arange(m) // round(m ** (1 / 3)), cluster_windows(m))
        ]
        print(f"{n_seeds:>5} {spread:>6g} {m:>8} {found[0]:>11.1f} {found[1]:>10.1f}"
              f" {found[2]:>10.1f}", flush=True)  # fmt: skip


def differences(measured: Measured, n_seeds: int, n: int) -> Iterator[Difference]:
    """The first pair of the first `n` studies, as the report has it."""
    errors = measured.errors(n_seeds)
    for study in range(n):
        yield Difference(
            mean=float(measured.means[study, 0]),
            n_seeds=n_seeds,
            n_documents=measured.m,
            seed_variance=float(errors.seeds[study, 0]),
            document_variance=float(errors.documents[study, 0]),
            shared_variance=float(errors.shared[study, 0]),
            common_freedom=float(measured.commons[0].freedom[study]),
            n_arms=max(b for _, b in measured.pairs),
            seed_freedom=float(errors.seed_freedom[study, 0]),
            rare_variance=None if errors.rare is None else float(errors.rare.seeds[study, 0]),
        )


def print_plans(n_studies: int) -> None:
    """Seeds needed as three seeds tell them, and the chance that so many seeds separate."""
    print("\nPLANS over 15 pairs for a chance of 80 %: seeds needed, told by studies of 3 seeds")
    print(f"{'spread':>6} {'wanted':>7} {'median plan':>12} {'quartiles':>10} {'chance then':>12}"
          f" {'one seed less':>14}")  # fmt: skip
    for spread, wanted in ((0.01, 0.05), (0.03, 0.05), (0.03, 0.1), (0.06, 0.1)):
        pilot = measure(Cell(3, spread), 300)
        plans = [seeds_needed(d, wanted, n_pairs=15) or 999 for d in differences(pilot, 3, 300)]
        low, plan, high = (round(q) for q in np.quantile(plans, [0.25, 0.5, 0.75]))
        chances = [
            _reached(Cell(n, spread), wanted, n_studies // 4) if n > 1 else 0.0
            for n in (plan, plan - 1)
        ]
        print(f"{spread:>6g} {wanted:>7g} {plan:>12} {f'{low}-{high}':>10} {chances[0]:>12.2f}"
              f" {chances[1]:>14.2f}", flush=True)  # fmt: skip
    print(
        "\nSEEDS THAT SHOW EQUIVALENCE of equal arms, 1,000 documents, told by studies of 3 seeds"
    )
    print(f"{'spread':>6} {'median plan':>12} {'quartiles':>10} {'chance then':>12}"
          f" {'one seed less':>14}")  # fmt: skip
    for spread in (0.005, 0.01):
        pilot = measure(Cell(3, spread, 1000), 300)
        told = [seeds_for_equivalence(d, MARGIN, n_pairs=15) for d in differences(pilot, 3, 300)]
        known = [n for n in told if n is not None]  # others lie near the margin by chance
        low, plan, high = (round(q) for q in np.quantile(known, [0.25, 0.5, 0.75]))
        chances = [_within(Cell(n, spread, 1000), n_studies // 8) for n in (plan, plan - 1)]
        print(f"{spread:>6g} {plan:>12} {f'{low}-{high}':>10} {chances[0]:>12.2f}"
              f" {chances[1]:>14.2f}", flush=True)  # fmt: skip
    print("\nSMALLEST DIFFERENCE that a study shows with a chance of 80 %, as it tells itself")
    print(f"{'seeds':>5} {'spread':>6} {'median':>7} {'quartiles':>14} {'chance then':>12}")
    for n_seeds, spread in product((2, 3, 5), (0.002, 0.01, 0.03)):
        cell = Cell(n_seeds, spread)
        told = differences(measure(cell, 300), n_seeds, 300)
        sizes = [smallest_difference(d, n_pairs=15) or np.nan for d in told]
        low, size, high = np.nanquantile(sizes, [0.25, 0.5, 0.75])
        print(f"{n_seeds:>5} {spread:>6g} {size:>7.3f} {f'{low:.3f}-{high:.3f}':>14} "
              f"{_reached(cell, float(size), n_studies // 4):>12.2f}", flush=True)  # fmt: skip


def _reached(cell: Cell, wanted: float, n: int) -> float:
    """The chance to separate a true difference at the strictest level over 15 pairs."""
    measured = measure(cell, n)
    half = measured.errors(cell.n_seeds).half_width(SIGNIFICANCE / 15)
    return float((np.abs(measured.means + wanted) > half)[:, :4].mean())  # of one arm


def _within(cell: Cell, n: int) -> float:
    """The chance that equal arms are shown to be equivalent at the strictest level."""
    measured = measure(cell, n)
    half = measured.errors(cell.n_seeds).half_width(SIGNIFICANCE / 15)
    return float((np.abs(measured.means) + half < MARGIN)[:, :4].mean())  # of one arm


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=4000, help="in a cell of 100 documents")
    tables = {
        "false": print_false, "power": print_power, "layouts": print_layouts,
        "equivalence": print_equivalence, "windows": print_windows, "plans": print_plans,
    }  # fmt: skip
    parser.add_argument("--only", choices=list(tables), action="append", default=[])
    arguments = parser.parse_args()
    for name, print_table in tables.items():
        if not arguments.only or name in arguments.only:
            print_table(arguments.studies)


if __name__ == "__main__":
    main()
