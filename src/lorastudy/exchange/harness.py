"""A run's scores in the layout of lm-evaluation-harness' result files.

One task for each benchmark under each protocol, called `<benchmark>--<protocol>`; metrics are
keyed `<metric>,none` as there (the second part is the harness' filter). The task's version is
the protocol's. Keys as in lm-eval 0.4: results, configs, versions, n-shot, higher_is_better,
n-samples, config, date and the versions of libraries.
"""

from lorastudy.config.models import Benchmark
from lorastudy.exchange.stored_runs import StoredRun
from lorastudy.protocols import find_protocol, is_task
from lorastudy.store.records import EvaluationRecord

_METRICS = (
    ("perplexity", False),
    ("cross_entropy", False),
    ("word_perplexity", False),
    ("byte_perplexity", False),
    ("bits_per_byte", False),
    ("accuracy", True),
)


def make_harness_result(run: StoredRun) -> dict[str, object]:
    """The content of one `results_*.json`."""
    found = {_task(e): e for e in run.result.evaluations}
    values = {task: _values(e) for task, e in found.items()}
    environment = run.manifest.environment if run.manifest else None
    return {
        "results": {
            task: {"alias": task, **{f"{name},none": value for name, value in values[task].items()}}
            for task in found
        },
        "group_subtasks": {task: [] for task in found},
        "configs": {task: _task_config(run, e) for task, e in found.items()},
        "versions": {task: e.protocol_version for task, e in found.items()},
        "n-shot": dict.fromkeys(found, 0),
        "higher_is_better": {
            task: {name: higher for name, higher in _METRICS if name in values[task]}
            for task in found
        },
        "n-samples": {
            task: {"original": e.n_documents, "effective": e.n_documents}
            for task, e in found.items()
        },
        "config": {
            "model": "lorastudy",
            "model_args": {
                "pretrained": _base_name(run),
                "revision": run.study.base_model.revision,
                "arm": run.result.arm,
                "seed": run.result.seed,
                "run_id": run.result.run_id,
            },
            "model_num_parameters": run.result.total_parameters,
            "model_dtype": run.result.precision,
            "device": run.result.device,
            "batch_size": None,
            "limit": None,
        },
        "date": run.ended_at,
        "lorastudy_version": environment.lorastudy if environment else None,
        "transformers_version": environment.libraries.get("transformers") if environment else None,
        "max_length": run.spec.data.rows.length,
        "total_evaluation_time_seconds": str(sum(e.seconds for e in run.result.evaluations)),
    }


def _task(evaluation: EvaluationRecord) -> str:
    return f"{evaluation.benchmark}--{evaluation.protocol}"


def _values(evaluation: EvaluationRecord) -> dict[str, float]:
    """The metrics that the evaluation has, in the table's order."""
    stored = evaluation.model_dump()
    return {name: stored[name] for name, _ in _METRICS if stored.get(name) is not None}


def _task_config(run: StoredRun, evaluation: EvaluationRecord) -> dict[str, object]:
    source: Benchmark = next(b for b in run.study.benchmarks if b.name == evaluation.benchmark)
    return {
        "task": _task(evaluation),
        "dataset_path": source.id or source.builtin or "local files",
        "dataset_name": source.config,
        "test_split": source.split,
        "output_type": _output_type(evaluation.protocol),
        "num_fewshot": 0,
        "metadata": {
            "version": evaluation.protocol_version,
            "protocol": evaluation.protocol,
            "n_tokens": evaluation.n_tokens,
        },
    }


def _output_type(protocol: str) -> str:
    if not is_task(protocol):
        return "loglikelihood_rolling"
    return "multiple_choice" if find_protocol(protocol).chooses else "generate_until"


def _base_name(run: StoredRun) -> str:
    base = run.study.base_model
    return base.id or (f"lorastudy:{base.builtin}" if base.builtin else "local folder")
