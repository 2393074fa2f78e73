"""Results of all runs in the shapes that other programs read, by name."""

from pathlib import Path

from lorastudy.errors import ConfigError
from lorastudy.exchange.stored_runs import StoredRun, read_runs
from lorastudy.exchange.trackers import TRACKERS, replay
from lorastudy.store.files import write_text
from lorastudy.store.folders import StudyFolder
from lorastudy.units import write_json

_NOT_TRAINED = ("baseline", "elsewhere")
SHAPES = (*TRACKERS, "lm-eval", "peft-comparison")


def export_results(study: StudyFolder, shape: str, out: Path) -> list[str]:
    """Write runs that ended and are not damaged to `out` in a `shape` of SHAPES; return their ids.

    Raises:
        ConfigError: The shape does not exist, its package is missing, or no run has ended.
    """
    if shape not in SHAPES:
        raise ConfigError(
            f"--to {shape}: without RUN it is one of {', '.join(SHAPES)}. "
            "To export a model, name its run as `lorastudy status` lists it, or its arm."
        )
    runs = tuple(run for run in read_runs(study) if run.result.status != "damaged")
    if shape == "peft-comparison":  # which knows methods of fine-tuning only
        runs = tuple(run for run in runs if run.spec.arm.method not in _NOT_TRAINED)
    if shape in TRACKERS:
        replay(runs, shape, out)
    else:
        _write_results(runs, shape, out)
    return [run.result.run_id for run in runs]


def _write_results(runs: tuple[StoredRun, ...], shape: str, out: Path) -> None:
    from lorastudy.exchange.harness import make_harness_result
    from lorastudy.exchange.peft_comparison import make_comparison_result

    make = make_harness_result if shape == "lm-eval" else make_comparison_result
    prefix = "results_" if shape == "lm-eval" else ""
    for run in runs:
        text = write_json(make(run), indent=2) + "\n"
        write_text(out / f"{prefix}{run.result.run_id}.json", text)
