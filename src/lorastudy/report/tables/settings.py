"""What differs between the arms, what they share, and which modules a placement became."""

import re
from collections import Counter
from collections.abc import Sequence

from lorastudy.analysis.findings import Findings
from lorastudy.config.arm_words import list_places, list_settings, name_method, write_alpha
from lorastudy.config.models import Arm, Study
from lorastudy.report.numerals import ABSENT, write_rate
from lorastudy.report.tables.table import Cell, Column, Note, Table, text_cell
from lorastudy.report.wording import name_arm
from lorastudy.store.records import Manifest

_ELSEWHERE = (
    "These models were trained elsewhere, so what else differs is not known here. The base model "
    "and the scoring are the same."
)
_ELSE = "Nothing else differs: base model, data, order of rows, schedule and scoring are the same."


def build_difference_table(study: Study) -> Table:
    """One row per arm; only settings in which two arms differ have a column."""
    settings = {name: tuple(map(write, study.arms)) for name, write in _SETTINGS.items()}
    differing = {name: texts for name, texts in settings.items() if len(set(texts)) > 1}
    shared = [f"{name} {texts[0]}" for name, texts in settings.items() if name not in differing]
    columns = (
        Column("arm", ("arm",), "left"),
        *(Column(name, (name.replace(" ", "_"),), "wrap") for name in differing),
    )
    rows = tuple(
        (text_cell(arm.name), *(text_cell(texts[position]) for texts in differing.values()))
        for position, arm in enumerate(study.arms)
    )
    unsaid = (f" {ABSENT}", "base weights float32")
    said = [text for text in shared if not text.endswith(unsaid)]
    note = f"The same in every arm: {', '.join(said)}. {_ELSE}" if said else _ELSE
    if study.data.is_elsewhere:
        note = _ELSEWHERE
    return Table("What differs between the arms", columns, rows, (Note("", note),))


def build_module_table(findings: Findings) -> Table:
    """The modules that received adapters, layers folded into `*` with their number."""
    columns = (
        Column("arm", ("arm",), "left"),
        Column("modules", ("n_modules",)),
        Column("by path, with the number of layers", ("modules",), "wrap"),
    )
    rows, composites = [], set[str]()
    for arm in findings.arms:
        manifests = [
            e.manifest for e in findings.evidence.runs if e.run.arm == arm.arm and e.manifest
        ]
        composites.update(m.text_part_of for m in manifests if m.text_part_of)
        modules = manifests[0].modules if manifests else None
        if modules is None:
            shown = Cell("not known: no manifest", (None,))
        else:
            shown = text_cell(
                _describe_modules(manifests[0]) or _without_adapter(findings, arm.arm)
            )
        n = None if modules is None else len(modules)
        rows.append((text_cell(arm.arm), Cell(ABSENT if n is None else str(n), (n,)), shown))
    notes = ["As resolved before the first step; the full paths are in manifest.json of each run."]
    notes += [
        f"The base model is a {name}. Only its text part was loaded and counted; its other parts "
        "are unchanged."
        for name in sorted(composites)
    ]
    return Table(
        "Modules that received adapters", columns, tuple(rows), tuple(Note("", n) for n in notes)
    )


def _describe_modules(manifest: Manifest) -> str:
    folded = ", ".join(fold_modules(manifest.modules))
    return f"rank {manifest.rank}, chosen by the budget: {folded}" if manifest.rank else folded


def _without_adapter(findings: Findings, name: str) -> str:
    """What is trained without an adapter."""
    run = next(run for run in findings.results.runs if run.arm == name)
    match run.method:
        case "baseline":
            return "nothing is trained"
        case "full":
            return "no adapter: every parameter is trained"
        case "elsewhere":
            return "no adapter: a whole model, trained elsewhere"
    said = name_arm(findings, name).removesuffix(f" ({name})")
    return f"no adapter: trained are {said}"


def fold_modules(modules: Sequence[str]) -> tuple[str, ...]:
    """Module paths that differ in a layer's number alone as one: `h.*.attn.c_proj (12)`."""
    folded = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", module) for module in modules)
    return tuple(f"{path} ({n})" if n > 1 else path for path, n in folded.items())


def _lora_only(arm: Arm, text: str) -> str:
    return text if arm.method == "lora" else ABSENT


def _write_keys(arm: Arm) -> str:
    """What was set besides, in the order of the keys."""
    known = ("rank ", "alpha ", "dropout ")
    said = [text for text in list_settings(arm) if not text.startswith(known) or " at " in text]
    return ", ".join(said) or ABSENT


_SETTINGS = {
    "method": name_method,
    "placement": lambda arm: ", ".join(list_places(arm)) or ABSENT,
    "rank": lambda arm: _lora_only(arm, f"{arm.rank}" if arm.rank else "by budget"),
    "alpha": lambda arm: _lora_only(arm, write_alpha(arm)),
    "dropout": lambda arm: _lora_only(arm, f"{arm.dropout:g}"),
    "other settings": _write_keys,
    "base weights": lambda arm: arm.base_weights,
    "learning rates": lambda arm: ", ".join(map(write_rate, arm.learning_rates)) or ABSENT,
}
