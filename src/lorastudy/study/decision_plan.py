"""The plan of a study that runs until its question is decided: what is asked for, and refused.

A plan says what the question is and how many seeds an arm may get. It is written into the study's
folder with the seeds of the first look, before any run starts, and is not changed afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lorastudy.analysis.question import list_pairs
from lorastudy.analysis.until_decided import first_seeds
from lorastudy.config.models import Study
from lorastudy.config.study_file import MOST_NEW_SEEDS
from lorastudy.errors import ConfigError, show_names
from lorastudy.protocols import scores_padding
from lorastudy.store.collect import read_study
from lorastudy.store.decisions import (
    AskedQuestion,
    Entry,
    Plan,
    Seeds,
    append_decision,
    read_decisions,
)
from lorastudy.store.folders import StudyFolder
from lorastudy.store.leases import own
from lorastudy.store.rates import list_runs

MOST_SEEDS = 10  # unless another number is asked for


@dataclass(frozen=True, slots=True)
class UntilDecided:
    """What was asked for: None means what the folder has, else what is usual."""

    most_seeds: int | None = None
    question: AskedQuestion | None = None
    least_seeds: int | None = None  # of the first look


def wish_for(
    is_wanted: bool,
    least_seeds: int | None,
    most_seeds: int | None,
    question: AskedQuestion | None,
) -> UntilDecided | None:
    """What the options of a command mean; None: the study has the runs of its file.

    Raises:
        ConfigError: Options that mean something only with --until-decided.
    """
    seeds = {"--min-seeds": least_seeds, "--max-seeds": most_seeds}
    for flag, n_seeds in seeds.items():
        if n_seeds is not None and n_seeds > MOST_NEW_SEEDS:
            raise ConfigError(f"{flag} {n_seeds}: {MOST_NEW_SEEDS:,} seeds are the most.")
    if is_wanted:
        return UntilDecided(most_seeds, question, least_seeds)
    options = {**seeds, "--question": question}
    for flag, value in options.items():
        if value is not None:
            raise ConfigError(f"{flag} is for --until-decided. Add that, or leave {flag} out.")
    return None


def plan_study(study: Study, wish: UntilDecided, decisions: Sequence[Entry] = ()) -> Plan:
    """The plan that `wish` means for this study, in a folder with these decisions.

    Raises:
        ConfigError: The study cannot be carried out like this.
    """
    known = [e for e in decisions if isinstance(e, Plan)]
    declared = known[-1].question if known else study.question
    if wish.question is not None and declared not in (None, wish.question):
        where = "decisions.jsonl" if known else "the study file"
        raise ConfigError(
            f"--question {wish.question}: {where} has the question {_show(declared)}, which cannot "
            "be changed once it is declared. Leave --question out, or start a new folder."
        )
    question = declared or wish.question or "full-or-lora"
    most = wish.most_seeds or (known[-1].most_seeds if known else MOST_SEEDS)
    if known and most < known[-1].most_seeds:
        raise ConfigError(
            f"--max-seeds {most}: the study was started with up to {known[-1].most_seeds} seeds. "
            "Give this number or a larger one, or leave it out."
        )
    if not known:
        _refuse_unfit(study, question, most)
    _refuse_first_look(wish.least_seeds, most, decisions)
    return Plan(question=question, most_seeds=most)


def _refuse_unfit(study: Study, question: AskedQuestion, most_seeds: int) -> None:
    """Refuse a study that cannot run until `question` is decided."""
    if study.training.epochs is None:
        raise ConfigError(
            "--until-decided: it compares learning rates after whole epochs, and training.budget "
            "ends runs within one. Give all arms training.epochs instead of the budget."
        )
    several = [arm.name for arm in study.arms if len(arm.learning_rates) > 1]
    if several and not study.tuning_seeds:
        raise ConfigError(
            f"--until-decided: {', '.join(several)} has several learning rates, and the study has "
            "no tuning_seeds to search among them: seeds that choose a rate cannot also report it. "
            "Add `tuning_seeds: [100]` to the study file, or give each arm one rate."
        )
    if several and study.data.best_by is not None:
        raise ConfigError(
            f"--until-decided: learning rates of {', '.join(several)} are searched by validation "
            "loss, and data.best_by chooses by right answers. Give each arm one rate, or leave "
            "data.best_by or --until-decided out."
        )
    if not list_pairs(question, study):
        needed = {
            "full-or-lora": "an arm with method: full and one with method: lora",
            "where": "two arms with method: lora",
            "all": "two trained arms",
        }
        raise ConfigError(
            f"--until-decided: the question {_show(question)} needs "
            f"{needed.get(str(question), 'two arms of these names')}, and this study does not have "
            "them. Add arms, or ask another question with --question where or --question all."
        )
    if not any(
        benchmark.role != "forgetting" and not all(map(scores_padding, benchmark.protocols))
        for benchmark in study.benchmarks
    ):
        raise ConfigError(
            "--until-decided: the study has no test to decide on. Add a benchmark without "
            "role: forgetting, under a protocol that scores text alone."
        )
    if most_seeds < (least := first_seeds(study).n_seeds):
        raise ConfigError(
            f"--max-seeds {most_seeds}: this study needs {least} seeds for its first look. "
            f"Give {least} or more."
        )


def _refuse_first_look(wanted: int | None, most: int, decisions: Sequence[Entry]) -> None:
    """Refuse a `--min-seeds` that the first look cannot have, or did not have."""
    if wanted is None:
        return
    if wanted > most:
        raise ConfigError(
            f"--min-seeds {wanted}: an arm may get at most {most} seeds. Give a smaller number, or "
            "a larger --max-seeds."
        )
    first = next((e.n_seeds for e in decisions if isinstance(e, Seeds)), wanted)
    if first < wanted:
        raise ConfigError(
            f"--min-seeds {wanted}: the first look of this study was planned with {first} seeds. "
            "Leave --min-seeds out, or start a new folder."
        )


def refuse_looked_at(folder: StudyFolder, study: Study) -> None:
    """Refuse to plan looks at a folder whose reported runs may have been looked at before.

    Raises:
        ConfigError: Trained runs that are reported have finished in it.
    """
    finished = [
        run.run_id
        for run in list_runs(study, folder)
        if run.seed not in study.tuning_seeds
        and run.arm.method != "baseline"
        and folder.run(run.run_id).result.exists()
    ]
    if finished:
        raise ConfigError(
            f"--until-decided: {folder.path} was started without it, and {show_names(finished)} "
            "finished. A question is declared, and its looks are planned, before any result can be "
            "seen. Run the study file with another --out."
        )


def _show(question: AskedQuestion | None) -> str:
    return question if isinstance(question, str) else f"[{', '.join(question or ())}]"


def start_plan(folder: StudyFolder, wish: UntilDecided) -> None:
    """Write the plan and the seeds of its first look into a study's folder, unless it has them.

    Raises:
        ConfigError: See `plan_study`.
    """
    with own(folder.path):
        decisions = read_decisions(folder)
        study = read_study(folder)
        plan = plan_study(study, wish, decisions)
        new: list[Entry] = [] if plan in decisions else [plan]
        if not any(isinstance(entry, Seeds) for entry in decisions):
            new.append(first_seeds(study, wish.least_seeds))
        if new:
            append_decision(folder, *new)
