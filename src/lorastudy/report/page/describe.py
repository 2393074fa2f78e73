"""What was compared, in the words of the study file."""

from lorastudy.analysis.findings import Findings
from lorastudy.config.budget import write_amount
from lorastudy.config.models import (
    BaseModelRef,
    BestBy,
    Source,
    Study,
    Training,
    TrainSource,
    ValidationSource,
)
from lorastudy.report.page.integrity import Fact, list_distinct
from lorastudy.store.locks import StudyLock
from lorastudy.units import write_count


def describe_study(findings: Findings) -> list[Fact]:
    """What was compared, from the study file if there is one and from the runs."""
    results, study = findings.results, findings.study
    n_done = sum(run.status == "done" for run in results.runs)
    n_expected = len(results.runs) + len(results.missing)
    facts = [
        Fact("arms", ", ".join(results.arms)),
        Fact("seeds", ", ".join(map(str, results.seeds))),
        Fact("runs", f"{n_done} of {n_expected} finished"),
        Fact("benchmarks", ", ".join(results.benchmarks)),
        Fact("training protocol", results.training_protocol),
        Fact("device", list_distinct((run.device for run in results.runs), ", ")),
        Fact("precision", list_distinct((run.precision for run in results.runs), ", ")),
    ]
    before = _describe_inputs(study) if study else []
    lock = findings.evidence.lock
    read = _describe_texts(lock) if lock else []
    return [fact for fact in (*before, *read, *facts) if fact.text]


def _describe_texts(lock: StudyLock) -> list[Fact]:
    """How much of the texts is read, and from which sources or documents they come."""
    labels = (("train", "training text"), ("validation", "validation text"))
    read = [Fact(label, str(lock.texts[name])) for name, label in labels if name in lock.texts]
    read += [Fact("mixture", str(part)) for part in lock.mixture]
    return [*read, Fact("held out", str(lock.held_out or ""))]


def summarise_study(findings: Findings) -> str:
    """What was compared, in one sentence."""
    results, study = findings.results, findings.study
    n_seeds = len(results.seeds)
    seeds = "one seed" if n_seeds == 1 else f"{n_seeds} seeds"
    where = f" of the base model {describe_source(study.base_model)}" if study else ""
    data = f", trained on {_describe_train(study.data.train)}" if study else ""
    if findings.is_elsewhere:
        data = ", trained elsewhere"
    budget = study.training.budget if study else None
    said = (
        f", each arm with a budget of {write_amount(budget.kind, budget.amount)}" if budget else ""
    )
    return f"{write_count(len(results.arms), 'arm')}{where}{data}{said}, with {seeds}."


def describe_source(source: BaseModelRef | Source) -> str:
    """Where a model or data set comes from: hub id with its parts, path, or builtin name."""
    name, *details = source.parts
    details += ["comes with lorastudy"] if source.builtin else []
    details += [f"revision {source.revision}"] if source.id else []
    return f"{name} ({', '.join(details)})" if details else name


def _describe_train(train: TrainSource) -> str:
    return " and ".join(map(describe_source, train.sources))


def _describe_validation(validation: ValidationSource) -> str:
    if validation.from_train is None:
        return describe_source(validation)
    return f"{validation.from_train:.3g} of the training documents, held out"


def _describe_best_by(task: BestBy | None) -> str:
    """What chooses the best weights, if it is not the validation loss."""
    if task is None:
        return ""
    rows = "validation data" if task.items is None else describe_source(task.items)
    return f"right answers to {rows} ({task.protocol}), then validation loss"


def _describe_moments(training: Training, *, by_loss: bool) -> str:
    """When runs validate and stop, besides after their epochs."""
    every, stopping = training.validate_every, training.early_stopping
    said = f", validated after every {every:,} steps too" if every else ""
    if stopping is not None:
        unit = " nats" if by_loss else ""
        least = f" of more than {stopping.min_delta:g}{unit}" if stopping.min_delta else ""
        said += f", stopped after {stopping.patience} validations without an improvement{least}"
    return said


def _describe_inputs(study: Study) -> list[Fact]:
    data, training = study.data, study.training
    if data.is_elsewhere:
        return [
            Fact("base model", describe_source(study.base_model)),
            *(
                Fact(f"weights of {arm.name}", "; ".join(one.folder for one in arm.weights))
                for arm in study.arms
                if arm.weights
            ),
            Fact("rows", f"at most {data.rows.length:,} tokens, in protocols of rows"),
        ]
    rows = "one row per document" if data.rows.cut == "lines" else "text joined, full rows only"
    rows += "" if data.rows.strip else ", white space around texts kept"
    rows += ", an end-of-text token after each text scored" if data.rows.end == "scored" else ""
    rows += ", of messages only the assistant's answers scored" if data.assistant_only_loss else ""
    rows += ", prompts scored too" if data.completion_only_loss is False else ""
    return [
        Fact("base model", describe_source(study.base_model)),
        Fact("training data", _describe_train(data.train)),
        Fact("validation data", _describe_validation(data.validation)),
        Fact("rows", f"{rows}, at most {data.rows.length:,} tokens"),
        Fact("best weights by", _describe_best_by(data.best_by)),
        Fact(
            "training",
            f"{training.length_in_words}, {training.rows_per_step} rows per optimizer step, "
            f"{training.schedule.shape} schedule, padding {training.padding}"
            f"{_describe_moments(training, by_loss=data.best_by is None)}",
        ),
    ]
