"""Explain the finished runs of a study: what training changed in each, and what it is worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorastudy.analysis.choice import choose_run
from lorastudy.analysis.summary import summarise_arms
from lorastudy.config.mistakes import nearest
from lorastudy.config.spec import RunSpec
from lorastudy.errors import ConfigError, first_line
from lorastudy.machine.environment import choose_device
from lorastudy.model.base import prepare_process
from lorastudy.run.explain import explain_run
from lorastudy.run.readers import open_reader
from lorastudy.store.collect import collect_results, read_overview
from lorastudy.store.explanations import Explanation, read_explanation
from lorastudy.store.files import write_record
from lorastudy.study.open import OpenedStudy


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A run that cannot be explained."""

    run_id: str
    reason: str


def explain_study(
    opened: OpenedStudy,
    arms: Sequence[str] = (),
    *,
    n_rows: int = 128,
    all_seeds: bool = False,
    device: str = "auto",
) -> Iterator[Explanation | Unexplained]:
    """Explain one run of each arm, or all that the report uses; each is stored when it is done.

    A run that has been explained on as many rows is only read.

    Raises:
        ConfigError: The study has no such arm, or no trained arm of it has finished.
        InputError: The base model or the validation split cannot be read.
    """
    specs = _choose_runs(opened, arms, all_seeds=all_seeds)
    prepare_process()
    where = choose_device(device)
    reader = open_reader(opened.study, opened.places)
    for spec in specs:
        run = opened.folder.run(spec.run_id)
        known = read_explanation(run)
        if known is not None and known.n_asked == n_rows:
            yield known
            continue
        try:
            found = explain_run(spec, run, reader, n_rows=n_rows, device=where)
        except ConfigError as error:
            yield Unexplained(spec.run_id, first_line(error))
            continue
        write_record(run.explanation, found)
        yield found


def _choose_runs(opened: OpenedStudy, arms: Sequence[str], *, all_seeds: bool) -> list[RunSpec]:
    """The runs to explain, in the study's order."""
    trained = [arm.name for arm in opened.study.arms if arm.method != "baseline"]
    for name in arms:
        if name not in trained:
            raise ConfigError(
                f"--arm {name}: the study has no trained arm of this name"
                f"{nearest(name, trained)}. It has: {', '.join(trained)}."
            )
    summaries = {arm.arm: arm for arm in summarise_arms(collect_results(opened.folder))}
    specs = {run.spec.run_id: run.spec for run in read_overview(opened.folder)}
    chosen = []
    for name in arms or trained:
        runs = summaries[name].runs if name in summaries else ()
        if all_seeds:
            chosen += [specs[run.run_id] for run in runs]
        elif runs:
            chosen.append(choose_run(opened.folder, name).spec)
    if not chosen:
        raise ConfigError(
            "no trained arm has finished, so there is nothing to explain. "
            f"Finish one:  lorastudy run {opened.folder.path}"
        )
    return chosen
