"""The budget that every arm had, and what each arm made of it."""

from lorastudy.analysis.budget import ArmBudget, SharedBudget
from lorastudy.config.budget import TrainingBudget, describe_memory, list_disturbed, write_amount
from lorastudy.report.numerals import ABSENT
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell

_HOW = {
    "steps": "",
    "tokens": "Tokens are scored tokens. A plan has the most steps that read no more than the "
    "budget on average over the rows of an epoch; rows of a seed may be a little longer.",
    "flops": "Operations are matrix products of forward and backward passes, counted from shapes. "
    "A plan has the most steps with which an arm computes no more than the budget.",
    "seconds": "A plan was made once, from the first steps of each arm on the machine that started "
    "the study, and holds for all seeds. The seconds that runs took are in the table of times.",
    "peak_memory": "A plan changes only how much is computed at once, which changes rounding and "
    "nothing else. Prediction and measurement are compared below.",
}


def state_budget(shared: SharedBudget | None) -> str | None:
    """What every arm had the same amount of, in one sentence; None: the study has no budget."""
    if shared is None:
        return None
    return f"Every arm had the same budget: {_write(shared.budget, shared.budget.amount)}."


def build_budget_table(shared: SharedBudget | None) -> Table:
    """One row for each trained arm; no rows without a budget."""
    columns: tuple[Column, ...] = (
        Column("arm", ("arm",), "left"),
        Column("optimizer steps", ("optimizer_steps",)),
        Column("epochs", ("epochs",)),
        Column("scored tokens", ("train_tokens",)),
        Column("planned use of the budget", ("planned",)),
        Column("computed", ("computed",), "left"),
    )
    if shared is None:
        return Table("Budget", columns, ())
    has_memory = shared.budget.kind == "peak_memory"
    rows = tuple(_cells(arm, shared.budget) for arm in shared.arms)
    how = _HOW[shared.budget.kind]
    return Table(
        "The same budget for every arm",
        columns if has_memory else columns[:-1],
        rows if has_memory else tuple(row[:-1] for row in rows),
        (Note("", how),) if how else (),
    )


def _cells(arm: ArmBudget, budget: TrainingBudget) -> tuple[Cell, ...]:
    planned = arm.planned
    amount = budget.amount_of(arm.arm)
    computed = (
        ""
        if planned is None
        else describe_memory(planned.token_budget, is_checkpointed=planned.activation_checkpointing)
    )
    return (
        text_cell(arm.arm),
        Cell(ABSENT if arm.steps is None else f"{arm.steps:,.0f}", (arm.steps,)),
        Cell(ABSENT if arm.epochs is None else f"{arm.epochs:.3g}", (arm.epochs,)),
        Cell(ABSENT if arm.tokens is None else f"{arm.tokens:,.0f}", (arm.tokens,)),
        Cell(
            ABSENT if amount is None else _write(budget, amount),
            (amount,),
            detail="measured while other programs used the CPU"
            if arm.arm in list_disturbed(budget)
            else "",
        ),
        text_cell(computed or ABSENT),
    )


def _write(budget: TrainingBudget, amount: float) -> str:
    return write_amount(budget.kind, amount)
