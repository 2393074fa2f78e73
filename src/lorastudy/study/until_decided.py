"""A study that runs until its question is decided: from the records of its folder to decisions.

`analysis.until_decided` says what follows from what is known. Here, that is read from the folder,
and what follows is written into it: lines of `decisions.jsonl`, and the seeds and learning rates
that they add to `study.yaml`, as `lorastudy extend` would.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from lorastudy.analysis.halving import TriedRate
from lorastudy.analysis.look_at import look_at
from lorastudy.analysis.looks import Look
from lorastudy.analysis.question import list_pairs
from lorastudy.analysis.until_decided import SoFar, first_seeds, next_entries
from lorastudy.config.models import Study
from lorastudy.config.study_file import MOST_NEW_SEEDS, extend_study
from lorastudy.errors import ConfigError, show_names
from lorastudy.protocols import scores_padding
from lorastudy.store.collect import collect_results, read_study, write_extension
from lorastudy.store.decisions import (
    Ask,
    AskedQuestion,
    Entry,
    Plan,
    Search,
    Seeds,
    SeenPair,
    append_decision,
    count_seeds,
    list_asks,
    read_decisions,
)
from lorastudy.store.folders import StudyFolder
from lorastudy.store.leases import own
from lorastudy.store.lines import read_records
from lorastudy.store.rates import list_runs
from lorastudy.store.records import EpochRecord, RunResult, ValidationRecord

MOST_SEEDS = 10  # unless another number is asked for
_LOST = ("diverged", "damaged")  # such a run is not tried again


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


def decide(folder: StudyFolder) -> tuple[Entry, ...]:
    """Take all decisions that the records allow now, and return them.

    Afterwards the study has the seeds and learning rates that its decisions ask for.

    Raises:
        OwnedError: Another process decides at this moment.
        StorageError: The decisions are not what was written, or cannot be written.
    """
    new: list[Entry] = []
    with own(folder.path):
        while True:
            study = _bring_up_to_date(folder)
            found = next_entries(read_so_far(study, folder), partial(_judge, folder, study))
            if not found:
                return tuple(new)
            append_decision(folder, *found)
            new += found


def _judge(
    folder: StudyFolder, study: Study, looks: tuple[Look, ...], plan: Plan
) -> tuple[SeenPair, ...]:
    return look_at(collect_results(folder), folder.path, study, looks, plan)


def _bring_up_to_date(folder: StudyFolder) -> Study:
    """Add to `study.yaml` what the decisions added; nothing if that was done before."""
    study = read_study(folder)
    wanted = cover_decisions(study, read_decisions(folder))
    if wanted != study:
        write_extension(folder, study, wanted)
    return wanted


def cover_decisions(study: Study, decisions: Sequence[Entry]) -> Study:
    """The study with the seeds and learning rates that its decisions ask for."""
    for entry in decisions:
        if isinstance(entry, Search) and entry.why == "edge":
            study = _add_rates(study, entry.arm, entry.rates)
    n_more = max(count_seeds(decisions).values(), default=0) - len(study.seeds)
    return extend_study(study, (), n_seeds=n_more) if n_more > 0 else study


def _add_rates(study: Study, name: str, rates: Iterable[float]) -> Study:
    arms = tuple(
        arm.model_copy(
            update={"learning_rates": tuple(dict.fromkeys((*arm.learning_rates, *rates)))}
        )
        if arm.name == name
        else arm
        for arm in study.arms
    )
    return study.model_copy(update={"arms": arms})


def read_so_far(study: Study, folder: StudyFolder) -> SoFar:
    """What the folder says about the runs that its decisions asked for."""
    decisions = read_decisions(folder)
    tried: dict[str, dict[float, list[TriedRate]]] = {}
    finished: dict[str, set[int]] = {}
    lost: set[str] = set()
    for ask in list_asks(study, decisions):
        spec, outcome = ask.spec, folder.run(ask.spec.run_id).read_outcome(ask.spec)
        name = spec.arm.name
        if spec.seed in study.tuning_seeds and spec.learning_rate is not None:
            found = tried.setdefault(name, {}).setdefault(spec.learning_rate, [])
            found.append(_read_tried(ask, outcome, folder))
        elif outcome is not None and outcome.status == "done":
            finished.setdefault(name, set()).add(spec.seed)
        elif outcome is not None and outcome.status in _LOST:
            lost.add(name)
    return SoFar(
        study=study,
        decisions=decisions,
        tried={
            arm: {rate: _average(seeds) for rate, seeds in rates.items()}
            for arm, rates in tried.items()
        },
        finished={arm: frozenset(seeds) for arm, seeds in finished.items()},
        lost=frozenset(lost),
    )


def _read_tried(ask: Ask, outcome: RunResult | None, folder: StudyFolder) -> TriedRate:
    """One tuning run, as far as it is."""
    if outcome is not None and outcome.status in _LOST:
        return TriedRate((), has_failed=True)
    run = folder.run(ask.spec.run_id)
    within = read_records(run.validations, ValidationRecord)
    losses = [
        min([e.validation_loss, *(v.validation_loss for v in within if v.epoch == e.epoch)])
        for e in read_records(run.epochs, EpochRecord)
    ]
    if outcome is not None and outcome.status == "done":  # perhaps it stopped early by its own rule
        losses += losses[-1:] * (ask.spec.training.whole_epochs - len(losses))
    return TriedRate(tuple(losses))


def _average(seeds: Sequence[TriedRate]) -> TriedRate:
    """The means over tuning seeds, of the epochs that all of them have."""
    if any(seed.has_failed for seed in seeds):
        return TriedRate((), has_failed=True)
    return TriedRate(tuple(map(fmean, zip(*(seed.losses for seed in seeds), strict=False))))
