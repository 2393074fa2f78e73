"""Where each arm changed the model, as a table."""

from collections.abc import Sequence

from lorastudy.analysis.explanations import ArmExplanation, ModulesUpdate
from lorastudy.analysis.statistics import Estimate
from lorastudy.report.numerals import ABSENT
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell

HOW = (
    "Worth: nats per target that the trained model loses on validation rows if these weights get "
    "their old values back, mean over the explained runs. Values of parts need not add up to the "
    "whole. Moved: norm of the change divided by that of the old weights. Rank for 90 %: fewest "
    "singular values of the change that hold 90 % of its squared norm, mean over layers, and how "
    "many there could be. An adapter was added into the weights first."
)


def build_explanation_table(explanations: Sequence[ArmExplanation]) -> Table:
    """The whole of each arm, its layers, and the same modules of all layers."""
    columns = (
        Column("arm", ("arm",), "left"),
        Column("part", ("part",), "left"),
        Column("worth, nats", ("worth_nats", "n_runs")),
        Column("moved", ("relative_norm",)),
        Column("rank for 90 %", ("rank_90", "rank")),
    )
    rows = [row for explained in explanations for row in _rows(explained)]
    return Table("What training changed", columns, tuple(rows), (Note("", HOW),))


def _rows(explained: ArmExplanation) -> list[tuple[Cell, ...]]:
    rest = (_no_number(1), _no_number(2))
    arm = text_cell(explained.arm)
    return [
        (arm, text_cell("all"), _worth(explained.gain), *rest),
        *((arm, text_cell(f"layer {p.name}"), _worth(p.value), *rest) for p in explained.layers),
        *((arm, text_cell(m.modules), _worth(m.value), *_moved(m)) for m in explained.modules),
    ]


def _worth(value: Estimate) -> Cell:
    return Cell(f"{value.mean:+.4f}", (value.mean, value.n))


def _moved(modules: ModulesUpdate) -> tuple[Cell, Cell]:
    norm = Cell(f"{modules.relative_norm:.3g}", (modules.relative_norm,))
    if modules.rank is None:
        return norm, _no_number(2)
    needed = ABSENT if modules.rank_90 is None else f"{modules.rank_90:.1f}"
    return norm, Cell(needed, (modules.rank_90, modules.rank), detail=f"of {modules.rank:.0f}")


def _no_number(n_values: int) -> Cell:
    return Cell(ABSENT, (None,) * n_values)
