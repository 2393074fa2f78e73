"""What `check` says about a study, on a terminal."""

import shlex
from collections.abc import Sequence

from rich import box
from rich.table import Table

from lorastudy.analysis.outlook import Outlook
from lorastudy.analysis.planning import MOST_SEEDS
from lorastudy.analysis.summary import ScoreKey
from lorastudy.api.checking import Wishes
from lorastudy.api.facts import CheckFacts
from lorastudy.api.memory import DeviceMemory
from lorastudy.cli.console import make_console
from lorastudy.cli.options import console_width
from lorastudy.config.budget import describe_memory, write_amount
from lorastudy.config.models import Study
from lorastudy.protocols import find_protocol
from lorastudy.report.wording import join, write_size
from lorastudy.study.check import StudyCheck
from lorastudy.study.notes import list_texts, note_overlaps
from lorastudy.study.price import Price
from lorastudy.units import write_count, write_duration, write_mib, write_portion


def print_check(
    study: Study, checked: StudyCheck, facts: CheckFacts, wishes: Wishes, *, name: str
) -> None:
    """What a study, called `name` by the user, will do, cost and find out, and notes on it."""
    _print_arms(study, checked, facts, wishes)
    for line in list_outlooks(facts.separable, wishes.difference):
        print(line)
    if facts.device_memory is not None:
        print_memory(facts.device_memory, name)
    for line in list_texts(checked.lock):
        print(line)
    for note in (*facts.notes, *note_overlaps(checked.lock)):
        print(f"Note: {note}")


def _print_arms(study: Study, checked: StudyCheck, facts: CheckFacts, wishes: Wishes) -> None:
    console = make_console(max(console_width(), 100))
    base = checked.reader.base
    console.print(
        f"{study.name}: {write_count(checked.n_runs, 'run')} on a {base.model_type} model of "
        f"{base.total_parameters:,} parameters",
    )
    console.print(_make_table(facts, by_budget=any(arm.budget for arm in study.arms)))
    layout = checked.arms[0].layout
    share = layout.epoch.n_scored.sum() / (layout.epoch.n_rows * (study.data.rows.length - 1))
    what = "text" if layout.epoch.marks is None else "scored"
    console.print(
        f"{layout.epoch.n_rows:,} training rows. If all of them were padded to "
        f"{study.data.rows.length} tokens, {write_portion(share, 1)} of their tokens would be "
        f"{what}. {write_mib(checked.available_bytes)} MiB of memory are available.",
    )
    for line in list_budget(facts):
        console.print(line)
    console.print(write_time(facts, wishes.price))


def list_budget(facts: CheckFacts) -> list[str]:
    """What the budget of the study means for each arm; empty if it has none."""
    if facts.budget is None:
        return []
    kind, amount = facts.budget.kind, facts.budget.amount
    lines = [f"Every arm has the same budget, {write_amount(kind, amount)}:"]
    for arm in facts.arms:
        if arm.planned_amount is None or arm.method == "baseline":
            continue
        means = describe_memory(arm.token_budget, is_checkpointed=arm.activation_checkpointing)
        if kind != "peak_memory":
            means = (
                f"{arm.optimizer_steps:,} steps, {arm.train_epochs:.3g} epochs, "
                f"{arm.train_tokens:,} scored tokens"
            )
        lines.append(f"  {arm.name}: {means} ({write_amount(kind, arm.planned_amount)})")
    return lines


def _make_table(facts: CheckFacts, *, by_budget: bool) -> Table:
    table = Table()
    table.add_column("arm", overflow="fold")  # only names give way, so no number is cut
    kind = ("peak MiB", "one run") if facts.is_probed else ("predicted peak MiB", "one run, about")
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
        else "a rough guess from shapes and half a second of measuring, much too long if other "
        "programs used the CPU meanwhile; --probe tries every arm"
    )
    cost = f" and {price.write_cost(facts.predicted_seconds)}" if price else ""
    return (
        f"All runs ({facts.n_runs}), one after the other: about "
        f"{write_duration(facts.predicted_seconds)}{cost} ({how}). They keep "
        f"{write_mib(facts.predicted_disk_bytes)} MiB on the disk."
    )


def print_memory(memory: DeviceMemory, study: str) -> None:
    """The memory of every arm by part, which rows fit, and what to change."""
    console = make_console(max(console_width(), 100))
    name = f"{memory.device}: " if not memory.device[:1].isdecimal() else ""
    console.print(
        f"\n{name}{write_mib(memory.bytes)} MiB, {write_mib(memory.usable_bytes)} MiB of them "
        "for tensors. Predicted MiB:"
    )
    console.print(_make_parts_table(memory))
    console.print("Full rows that fit at once, at most those of a step, by the format of weights:")
    console.print(_make_rows_table(memory))
    for line in list_advice(memory, study):
        print(line)  # unbroken, so that a command can be copied


_PARTS = {  # the columns: what of the prediction is shown together
    "weights": ("weights",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer",),
    "layers": ("base_activations",),
    "adapter inputs": ("adapter_inputs",),
    "dropout masks": ("dropout_masks",),
    "logits": ("logits",),
    "other": ("libraries", "workspace"),
}


def _make_parts_table(memory: DeviceMemory) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # many columns
    table.add_column("arm", overflow="fold", min_width=8)
    for title in (*_PARTS, "sum", "fits"):
        table.add_column(title, justify="right")
    for arm in memory.arms:
        own = arm.formats[0]
        sums = [sum(getattr(own.parts, part) for part in parts) for parts in _PARTS.values()]
        total = own.predicted_peak_bytes
        table.add_row(arm.arm, *map(write_mib, (*sums, total)), "yes" if own.fits else "no")
    return table


def _make_rows_table(memory: DeviceMemory) -> Table:
    table = Table()
    table.add_column("arm", overflow="fold")
    formats = list(dict.fromkeys(f.base_weights for arm in memory.arms for f in arm.formats))
    for held in formats:
        table.add_column(held, justify="right")
    for arm in memory.arms:
        rows = {one.base_weights: str(one.most_rows) for one in arm.formats}
        table.add_row(arm.arm, *(rows.get(held, "") for held in formats))
    return table


_HARM = {
    "none": "This changes only rounding.",
    "named": "These are other settings, so name them beside the results.",
    "other data": "Rows are cut shorter, so this is another study.",
}


def list_advice(memory: DeviceMemory, study: str) -> list[str]:
    """A line for each arm that does not fit, and the command with which all of them do."""
    lines = []
    for arm in memory.arms:
        if arm.fits:
            continue
        if not arm.change:
            lines.append(f"{arm.arm} does not fit, whatever is changed. Use a smaller base model.")
            continue
        changes = ", ".join(f"{key}: {write_value(v)}" for key, v in arm.change.items())
        lines.append(f"{arm.arm} fits with {changes}. {_HARM[arm.harm]}")
    if memory.change:
        options = " ".join(f"--set {key}={write_value(v)}" for key, v in memory.change.items())
        lines.append(f"For all arms:  lorastudy run {shlex.quote(study)} {options}")
    return lines


def write_value(value: object) -> str:
    """A value as a study file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def list_outlooks(outlooks: Sequence[Outlook], wanted: float | None) -> list[str]:
    """What each benchmark can find out, one line for each, and what the numbers rest on."""
    if not outlooks:
        return []
    first = outlooks[0]
    lines = [
        f"{one.benchmark} ({one.protocol}, {write_count(one.n_documents, _unit_of(one))}): "
        f"{_say_outlook(one)}" + (f" {_say_needed(one, wanted)}" if wanted is not None else "")
        for one in outlooks
    ]
    sources = join(list(dict.fromkeys(one.spread.source for one in outlooks)))
    return [
        f"Differences that {write_count(first.n_seeds, 'seed')} can show with a chance of 80 %, "
        f"with {write_count(first.n_pairs, 'pair')} of arms (if runs spread as in {sources}):",
        *lines,
    ]


def _say_outlook(one: Outlook) -> str:
    if one.n_seeds == 1:
        return "nothing about training, since that needs several seeds."
    if one.n_documents == 1:
        return f"nothing, since one {_unit_of(one)} says nothing about others."
    if one.smallest_difference is None:
        return "nothing yet: with fewer than three trained arms, three seeds are needed."
    return f"at least about {_write_loss(one.smallest_difference, one)}."


def _unit_of(one: Outlook) -> str:
    kind = find_protocol(one.protocol)
    return "window" if kind.joins_documents else "item" if kind.is_task else "document"


def _say_needed(one: Outlook, wanted: float) -> str:
    about = f"For {_write_loss(wanted, one)}:"
    if one.documents_needed is not None:
        needed = write_count(one.documents_needed, _unit_of(one))
        return f"{about} at least {needed}, however many seeds."
    if one.seeds_needed is None or one.seeds_needed > MOST_SEEDS:
        return f"{about} more than {MOST_SEEDS:,} seeds."
    return f"{about} about {write_count(one.seeds_needed, 'seed')}."


def _write_loss(nats: float, one: Outlook) -> str:
    key = ScoreKey(one.benchmark, one.protocol, 0)
    if key.is_task:
        return f"{key.percent(nats):.2g} percentage points of accuracy"
    return f"{nats:.2g} nats per token (a perplexity {write_size(nats, key)})"
