"""Write the curves of a finished or running study to a tracker that people already use.

Trackers are copies: they are written from the run folders, can be deleted and written again, and
nothing is ever read back from them. Each is an optional package and is imported
only when it is asked for.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorastudy.errors import ConfigError
from lorastudy.exchange.stored_runs import StoredRun
from lorastudy.store.records import EpochRecord, ValidationRecord


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one curve at an optimizer step."""

    name: str
    step: int
    value: float


def list_points(run: StoredRun) -> Iterator[Point]:
    """All curves of a run: steps, epochs, validations within them, final scores at the end."""
    last = 0
    for step in run.steps:
        yield Point("train/loss", step.step, step.loss)
        yield Point("train/learning_rate", step.step, step.learning_rate)
        yield Point("train/gradient_norm", step.step, step.gradient_norm)
        last = step.step
    for epoch in run.result.epochs:
        yield Point("epoch/train_loss", epoch.step, epoch.train_loss)
        yield from _list_validation("epoch", epoch)
    for within in run.result.validations:
        yield from _list_validation("step", within)
    for found in run.result.evaluations:
        name = f"test/{found.benchmark}--{found.protocol}"
        if found.cross_entropy is None or found.perplexity is None:
            yield Point(f"{name}/accuracy", last, found.shown)
            continue
        yield Point(f"{name}/cross_entropy", last, found.cross_entropy)
        yield Point(f"{name}/perplexity", last, found.perplexity)


def _list_validation(after: str, line: EpochRecord | ValidationRecord) -> Iterator[Point]:
    yield Point(f"{after}/validation_loss", line.step, line.validation_loss)
    if line.validation_accuracy is not None:
        yield Point(f"{after}/validation_accuracy", line.step, line.validation_accuracy)


def list_settings(run: StoredRun) -> dict[str, str | int | float]:
    """What a tracker shows in addition to the curves."""
    result = run.result
    found: dict[str, str | int | float | None] = {
        "study": run.study.name,
        "arm": result.arm,
        "method": result.method,
        "seed": result.seed,
        "learning_rate": result.learning_rate,
        "trainable_parameters": result.trainable_parameters,
        "best_epoch": result.best_epoch,
        "status": result.status,
        "device": result.device,
        "precision": result.precision,
    }
    return {key: value for key, value in found.items() if value is not None}


def replay(runs: tuple[StoredRun, ...], tracker: str, out: Path) -> None:
    """Write every run to `tracker` under the folder `out`.

    Raises:
        ConfigError: The tracker's package is not installed, or `out` holds something: a tracker
            adds to what it finds and would show every run twice.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(
            f"{out} is not empty, and {tracker} would show these runs twice. "
            "Delete it if it is an earlier export, or give a new folder with --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        TRACKERS[tracker](run, out)


def _need(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"--to {extra} needs the package {extra}, which is not installed. "
            f"Install it:  ./run python -m pip install {extra}"
        ) from error


def _to_tensorboard(run: StoredRun, out: Path) -> None:
    files = _need("tensorboard.summary.writer.event_file_writer", "tensorboard")
    events = _need("tensorboard.compat.proto.event_pb2", "tensorboard")
    summaries = _need("tensorboard.compat.proto.summary_pb2", "tensorboard")
    writer = files.EventFileWriter(str(out / run.result.run_id))
    for point in list_points(run):
        value = summaries.Summary.Value(tag=point.name, simple_value=point.value)
        summary = summaries.Summary(value=[value])
        writer.add_event(events.Event(wall_time=run.ended_at, step=point.step, summary=summary))
    writer.close()


def _to_mlflow(run: StoredRun, out: Path) -> None:
    mlflow = _need("mlflow", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    known = client.get_experiment_by_name(run.study.name)
    home = known.experiment_id if known else client.create_experiment(run.study.name)
    created = client.create_run(home, run_name=run.result.run_id)
    number = created.info.run_id
    for key, setting in list_settings(run).items():
        client.log_param(number, key, setting)
    milliseconds = int(run.ended_at * 1000)
    metrics = [
        mlflow.entities.Metric(point.name, point.value, milliseconds, point.step)
        for point in list_points(run)
    ]
    for begin in range(0, len(metrics), 1000):  # MLflow's limit per request
        client.log_batch(number, metrics=metrics[begin : begin + 1000])
    client.set_terminated(number, "FINISHED" if run.result.status == "done" else "FAILED")


def _to_wandb(run: StoredRun, out: Path) -> None:
    wandb = _need("wandb", "wandb")
    with wandb.init(
        mode="offline",
        dir=str(out),
        project=run.study.name,
        id=run.result.run_id,  # so that syncing a second export replaces the first
        name=run.result.run_id,
        group=run.result.arm,
        config=list_settings(run),
        reinit="finish_previous",
        settings=wandb.Settings(silent=True),
    ) as session:
        for step, values in _by_step(run):
            session.log(values, step=step)


def _to_trackio(run: StoredRun, out: Path) -> None:
    import os

    os.environ["TRACKIO_DIR"] = str(out)  # read when the package is imported
    trackio = _need("trackio", "trackio")
    trackio.init(project=run.study.name, name=run.result.run_id, config=list_settings(run))
    for step, values in _by_step(run):
        trackio.log(values, step=step)
    trackio.finish()


def _by_step(run: StoredRun) -> Iterator[tuple[int, dict[str, float]]]:
    """The values of each step together, in ascending order, for trackers with a single clock."""
    grouped: dict[int, dict[str, float]] = {}
    for point in list_points(run):
        grouped.setdefault(point.step, {})[point.name] = point.value
    yield from sorted(grouped.items())


TRACKERS: dict[str, Callable[[StoredRun, Path], None]] = {
    "tensorboard": _to_tensorboard,
    "mlflow": _to_mlflow,
    "wandb": _to_wandb,
    "trackio": _to_trackio,
}
