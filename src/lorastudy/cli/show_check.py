"""What `check` says about a study, on a terminal."""

from rich.table import Table

from lorastudy.api.checking import Wishes
from lorastudy.api.facts import CheckFacts
from lorastudy.cli.console import make_console
from lorastudy.cli.options import console_width
from lorastudy.config.models import Study
from lorastudy.study.check import StudyCheck
from lorastudy.study.price import Price
from lorastudy.units import write_duration, write_mib


def print_check(study: Study, checked: StudyCheck, facts: CheckFacts, wishes: Wishes) -> None:
    """What a study will do and cost, for each arm."""
    console = make_console(max(console_width(), 100))
    base = checked.reader.base
    console.print(
        f"{study.name}: {checked.n_runs} runs on a {base.model_type} model of "
        f"{base.total_parameters:,} parameters",
    )
    console.print(_make_table(facts, by_budget=any(arm.budget for arm in study.arms)))
    layout = checked.arms[0].layout
    share = layout.table.n_scored.sum() / (layout.table.n_rows * (study.data.rows.length - 1))
    what = "text is" if layout.table.marks is None else "scored tokens are"
    console.print(
        f"{layout.table.n_rows:,} training rows; {what} {share:.1%} of what rows padded to "
        f"{study.data.rows.length} tokens would score. "
        f"{write_mib(checked.available_bytes)} MiB are available.",
    )
    console.print(write_time(facts, wishes.price))


def _make_table(facts: CheckFacts, *, by_budget: bool) -> Table:
    table = Table()
    table.add_column("arm", overflow="fold")  # only names give way, so no number is cut
    kind = ("peak MiB", "time") if facts.is_probed else ("predicted peak MiB", "time, about")
    names = ("trainable", "steps", "warm-up", kind[0], "fits", kind[1])
    for name in ("modules", *(["rank"] if by_budget else []), *names):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in facts.arms:
        table.add_row(
            arm.name,
            str(len(arm.modules)),
            *([str(arm.rank or "")] if by_budget else []),
            f"{arm.trainable_parameters:,}",
            f"{arm.optimizer_steps:,}",
            f"{arm.warmup_steps:,}",
            write_mib(arm.peak_bytes),
            "yes" if arm.fits else "no",
            write_duration(arm.predicted_seconds),
        )
    return table


def write_time(facts: CheckFacts, price: Price | None) -> str:
    """How long all runs take and what they keep on the disk, with how well it is known."""
    how = (
        "from the first steps of every arm"
        if facts.is_probed
        else "from shapes and half a second of measuring, so perhaps half or twice as long; "
        "--probe tries every arm"
    )
    cost = f" and {price.write_cost(facts.predicted_seconds)}" if price else ""
    return (
        f"All {facts.n_runs} runs, one after the other: about "
        f"{write_duration(facts.predicted_seconds)}{cost} ({how}). They keep "
        f"{write_mib(facts.predicted_disk_bytes)} MiB on the disk."
    )
