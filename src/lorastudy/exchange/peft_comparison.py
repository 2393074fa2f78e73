"""A run in the shape of a result of PEFT's `method_comparison`, so that its app can show it.

There are three groups: `run_info` (the settings), `train_info` (the results) and `meta_info` (the
environment). A field of its schema that a run here does not have is null, and so is one that means
something else here: `test accuracy` is null unless a benchmark measured an accuracy. Memory is of
the kind that was measured (on CUDA reserved, else allocated; on a CPU resident). Baselines are
left out, because its app calls every run without an adapter full fine-tuning.
"""

import json
from datetime import UTC, datetime

from lorastudy.exchange.stored_runs import StoredRun
from lorastudy.store.records import EpochRecord

_STATUS = {"done": "success"}  # of method_comparison: success, failed, canceled
_MEMORY = ("reserved", "allocated", "resident")
_PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


def make_comparison_result(run: StoredRun) -> dict[str, object]:
    """The content of one result file."""
    return {
        "run_info": _run_info(run),
        "train_info": _train_info(run),
        "meta_info": _meta_info(run),
    }


def _run_info(run: StoredRun) -> dict[str, object]:
    created = datetime.fromtimestamp(run.ended_at, UTC).isoformat(timespec="seconds")
    return {
        "created_at": created,
        "total_time": run.result.total_seconds or 0.0,
        "experiment_name": f"{_method_folder(run)}/{run.result.run_id}",
        "peft_branch": "none",
        "train_config": _train_config(run),
        "peft_config": _peft_config(run),
        "error_msg": run.result.reason or "",
    }


def _method_folder(run: StoredRun) -> str:
    arm = run.spec.arm
    if arm.method == "peft":
        return str((arm.peft or {})["peft_type"]).lower()
    return "full-finetuning" if arm.method == "full" else arm.method


def _train_config(run: StoredRun) -> dict[str, object]:
    training, arm = run.spec.training, run.spec.arm
    base = run.study.base_model
    planned = run.result.planned_steps or run.result.optimizer_steps or 0
    return {
        "model_id": base.id or (base.builtin if base.builtin else "local folder"),
        "dtype": training.precision,
        "max_seq_length": run.spec.data.rows.length,
        "batch_size": training.rows_per_step,
        "batch_size_eval": training.micro_batch,
        "max_steps": planned,
        "eval_steps": training.validate_every
        or planned // (training.epochs or len(run.result.epochs) or 1),
        "compile": False,
        "use_gc": False,
        "query_template": "{query}",
        "seed": run.result.seed,
        "grad_norm_clip": training.optimizer.max_grad_norm or 0.0,
        "optimizer_type": "AdamW",
        "optimizer_kwargs": {
            "lr": arm.learning_rates[0] if arm.learning_rates else 0.0,
            "weight_decay": training.optimizer.weight_decay,
            "betas": list(training.optimizer.betas),
            "eps": training.optimizer.eps,
        },
        "lr_scheduler": training.schedule.shape,
        "use_amp": training.precision != "float32",
        "autocast_adapter_dtype": True,
        "generation_kwargs": {},
        "attn_implementation": run.manifest.environment.attention if run.manifest else None,
        "init_kv_cache_prefix": None,
    }


def _peft_config(run: StoredRun) -> dict[str, object] | None:
    path = run.folder.best / "adapter_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _train_info(run: StoredRun) -> dict[str, object]:
    result = run.result
    memory = next(
        (result.peak_memory_bytes[k] for k in _MEMORY if k in result.peak_memory_bytes), 0
    )
    return {
        "accelerator_memory_reserved_avg": memory,  # only the peak is measured
        "accelerator_memory_max": memory,
        "accelerator_memory_reserved_99th": memory,
        "train_time": result.train_seconds or 0.0,
        "file_size": run.weight_bytes,
        "num_trainable_params": result.trainable_parameters or 0,
        "num_total_params": result.total_parameters or 0,
        "status": _STATUS.get(result.status, "failed"),
        "metrics": [*(_epoch_metrics(e) for e in result.epochs), _final_metrics(run)],
    }


def _epoch_metrics(epoch: EpochRecord) -> dict[str, object]:
    return {
        "step": epoch.step,
        "train loss": epoch.train_loss,
        "valid loss": epoch.validation_loss,
        **({"valid accuracy": found} if (found := epoch.validation_accuracy) is not None else {}),
        "train time": epoch.train_seconds,
    }


def _final_metrics(run: StoredRun) -> dict[str, object]:
    """The last entry, which the app reads, with our scores under names with the protocol."""
    result = run.result
    accuracies = [e.accuracy for e in result.evaluations if e.accuracy is not None]
    best = next((e for e in result.epochs if e.epoch == result.best_epoch), None)
    scores = {
        f"test perplexity {e.benchmark} {e.protocol}": e.perplexity
        for e in result.evaluations
        if e.perplexity is not None
    }
    return {
        "step": result.optimizer_steps or 0,
        "test accuracy": accuracies[0] if accuracies else None,
        "train loss": best.train_loss if best else None,
        "train samples": _count_samples(run),
        "train total tokens": result.train_tokens or 0,
        **scores,
    }


def _count_samples(run: StoredRun) -> int:
    """Rows that the run was trained on; about, if it ended within an epoch."""
    if run.result.planned_steps is not None or run.spec.training.epochs is None:
        return (run.result.optimizer_steps or 0) * run.spec.training.rows_per_step
    return (run.manifest.train_rows if run.manifest else 0) * len(run.result.epochs)


def _meta_info(run: StoredRun) -> dict[str, object]:
    environment = run.manifest.environment if run.manifest else None
    libraries = environment.libraries if environment else {}
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        packages[f"{name}-version"] = libraries.get(name)
        packages[f"{name}-commit-hash"] = None
    return {
        "model_info": {"sha": None, "created_at": None},
        "dataset_info": {},
        "package_info": packages,
        "system_info": {"accelerator": run.result.device or ""},
        "pytorch_info": "",
    }
