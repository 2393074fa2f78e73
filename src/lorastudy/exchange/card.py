"""The model card of an exported run: what it is, its scores, and how to load it.

The head of the card is the metadata that the hub reads (`library_name`, `base_model`,
`model-index` with a perplexity for each benchmark and protocol); huggingface_hub writes it.
Every metric names its protocol, since a perplexity without one says nothing.
"""

import shlex
from typing import Literal

from huggingface_hub import EvalResult, ModelCardData

from lorastudy.config.arm_words import list_places, list_settings, name_method
from lorastudy.config.models import Arm, BaseModelRef, Data, Source
from lorastudy.exchange.stored_runs import StoredRun
from lorastudy.protocols import protocol_of_rows, scores_answers
from lorastudy.store.records import EvaluationRecord, RunResult

ExportForm = Literal["adapter", "merged", "model"]

HEAD = "lm_head"  # and its name in GPT-NeoX: the output layer, which small models tie
HEADS = (HEAD, "embed_out")
_TIED_HEAD_NOTE = """\
## An adapter on the output layer

This adapter also changes the output layer (`{head}`). If that layer shares its weight with
the token embedding, the adapter applies only to the output. Not every server does this:
llama.cpp's converter has left such an adapter out without an error (ggml-org/llama.cpp#9065),
SGLang did too if the layer is shared, until 2026 (sgl-project/sglang#18634), and vLLM refuses
it for families whose output layer it does not register (vllm-project/vllm#33234). If in
doubt, export with `--merge`: the merged model has an output layer of its own and needs no
adapter. The adapter has only its own matrices, never a copy of the base model's output layer.
"""


def make_card(run: StoredRun, form: ExportForm, *, name: str, weights: str = "float32") -> str:
    """The whole README.md of an exported run.

    Args:
        run: A finished run.
        form: What was exported: the adapter, the base with it merged in, or a fully tuned model.
        name: The name of the model, such as that of its folder.
        weights: The type of the weights of a merged or whole model.
    """
    parts = [
        f"# {name}",
        _summary(run, form, weights),
        "## Measured",
        _score_table(run),
        "## How it was trained",
        _training(run),
        "## Use",
        _usage(run, form),
    ]
    if form == "adapter" and (head := _adapted_head(run)):
        parts.append(_TIED_HEAD_NOTE.format(head=head).strip())
    return f"---\n{_metadata(run, form, name=name)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(run: StoredRun, form: ExportForm, *, name: str) -> str:
    base = run.study.base_model
    data = ModelCardData(
        base_model=base.id,
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["lorastudy", *_tags(run.spec.arm)],
        datasets=[s.id for s in run.study.data.train.sources if s.id] or None,
        model_name=name,
        eval_results=[_metric(run, found) for found in run.result.evaluations] or None,
    )
    return str(data.to_yaml()).strip()


def _metric(run: StoredRun, found: EvaluationRecord) -> EvalResult:
    source = next(b for b in run.study.benchmarks if b.name == found.benchmark)
    return EvalResult(
        task_type="text-generation",
        dataset_type=source.id or source.builtin or source.name,
        dataset_name=source.name,
        dataset_config=source.config,
        dataset_split=source.split,
        dataset_revision=source.revision if source.id else None,
        metric_type=_quantity(found),
        metric_name=f"{_quantity(found)} ({found.protocol} v{found.protocol_version})",
        metric_value=found.shown,
        metric_args={
            "protocol": found.protocol,
            "protocol_version": found.protocol_version,
            "n_tokens": found.n_tokens,
        },
    )


def _quantity(found: EvaluationRecord) -> str:
    return "accuracy" if found.perplexity is None else "perplexity"


def _summary(run: StoredRun, form: ExportForm, weights: str) -> str:
    arm, data, result = run.spec.arm, run.spec.data, run.result
    what = {
        "adapter": f"An adapter ({name_method(arm)}) for",
        "merged": f"An adapter ({name_method(arm)}) merged into",
        "model": "Full fine-tuning of"
        if arm.method == "full"
        else f"Fine-tuning of {name_method(arm)} in",
    }[form]
    return (
        f"{what} {_link(run.study.base_model)}: arm `{result.arm}`, seed {result.seed} of the "
        f"study `{run.study.name}`, {_best(result)} by "
        f"{'validation loss' if data.best_by is None else 'right answers on validation'}. "
        f"{result.trainable_parameters or 0:,} of {result.total_parameters or 0:,} parameters "
        "were trained. "
        f"{'' if form == 'adapter' else f'Its weights are {weights}. '}"
        "Trained and measured with lorastudy."
    )


def _best(result: RunResult) -> str:
    if result.best_step is None:
        return f"best epoch {result.best_epoch} of {len(result.epochs)}"
    return f"best step {result.best_step:,} of {result.optimizer_steps:,}"


def _link(base: BaseModelRef) -> str:
    if base.id is not None:
        return f"[{base.id}](https://huggingface.co/{base.id}) (revision {base.revision})"
    return "the demo's base model" if base.builtin else "a base model from a local folder"


def _score_table(run: StoredRun) -> str:
    evaluations = run.result.evaluations
    rows = [
        f"| {e.benchmark} | {e.protocol} v{e.protocol_version} | {e.perplexity:.4f} "
        f"| {e.cross_entropy:.6f} | {e.n_tokens:,} | {e.n_documents:,} |"
        for e in evaluations
        if e.perplexity is not None
    ]
    tasks = [
        f"| {e.benchmark} | {e.protocol} v{e.protocol_version} | {e.accuracy:.4f} "
        f"| {e.n_documents:,} |"
        for e in evaluations
        if e.perplexity is None
    ]
    head = "| benchmark | protocol | perplexity | nats per token | scored tokens | documents |"
    note = (
        "Perplexities of different protocols, tokenizers or row lengths cannot be compared; "
        f"`{protocol_of_rows(scored_padding=True).pattern}` scores padding as text."
    )
    of_tasks = ["| benchmark | protocol | accuracy | items |", "|:--|:--|--:|--:|", *tasks]
    of_texts = [head, "|:--|:--|--:|--:|--:|--:|", *rows, "", note]
    parts = (of_texts if rows or not tasks else []), (of_tasks if tasks else [])
    return "\n\n".join("\n".join(part) for part in parts if part)


def _training(run: StoredRun) -> str:
    training, data = run.spec.training, run.spec.data
    facts = [
        f"data: {_describe_data(data)}",
        f"rows: {data.rows.cut}, at most {data.rows.length} tokens; padding {training.padding}",
        f"method: {_describe_arm(run.spec.arm)}",
        f"learning rate {run.result.learning_rate:g}, {training.schedule.shape} with "
        f"{training.schedule.warmup:g} warm-up, {training.length_in_words}, "
        f"{training.rows_per_step} rows per optimizer step, {run.result.optimizer_steps} steps"
        f"{_say_early_stop(run.result)}",
        f"AdamW: weight decay {training.optimizer.weight_decay:g}, betas "
        f"{training.optimizer.betas[0]:g} and {training.optimizer.betas[1]:g}, "
        f"eps {training.optimizer.eps:g}, gradient norm clipped at "
        f"{training.optimizer.max_grad_norm or 'nothing'}",
        f"precision {run.result.precision} on {run.result.device}; "
        f"{run.result.train_seconds or 0:.0f} s in optimizer steps",
    ]
    if run.manifest is not None:
        libraries = run.manifest.environment.libraries
        facts.append(", ".join(f"{name} {version}" for name, version in sorted(libraries.items())))
    return "\n".join(f"- {fact}" for fact in facts)


def _say_early_stop(result: RunResult) -> str:
    if result.planned_steps is None:
        return ""
    return f" of {result.planned_steps} planned, since validation no longer improved"


def _describe_data(data: Data) -> str:
    train = " and ".join(map(_describe_source, data.train.sources))
    if (share := data.validation.from_train) is not None:
        return f"{train}, of whose documents {share:g} were held out to validate on"
    return f"{train}, validated on {_describe_source(data.validation)}"


def _describe_source(source: Source) -> str:
    return "local files" if source.path else " ".join(f"`{part}`" for part in source.parts)


def _tags(arm: Arm) -> list[str]:
    if arm.method == "peft":
        return [str((arm.peft or {})["peft_type"]).lower()]
    return ["lora"] if arm.method == "lora" else []


def _describe_arm(arm: Arm) -> str:
    places, settings = ", ".join(list_places(arm)), ", ".join(list_settings(arm))
    if arm.method == "full":
        return "full fine-tuning of every parameter" + (f": {settings}" if settings else "")
    where = f" on {places}" if places else ""
    return f"{name_method(arm)}{where}" + (f": {settings}" if settings else "")


def _usage(run: StoredRun, form: ExportForm) -> str:
    # a composite base model is loaded by its own class
    loader = (run.manifest.text_part_of if run.manifest else None) or "AutoModelForCausalLM"
    base = run.study.base_model.id or "BASE_MODEL_FOLDER"
    if form == "adapter":
        lines = [
            "from peft import PeftModel",
            f"from transformers import {loader}",
            "",
            f"base = {loader}.from_pretrained({_quoted(base)}"
            + (f", revision={_quoted(run.study.base_model.revision)})" if _has_id(run) else ")"),
            'model = PeftModel.from_pretrained(base, "THIS_FOLDER")',
        ]
    else:
        lines = [
            f"from transformers import {', '.join(sorted((loader, 'AutoTokenizer')))}",
            "",
            f'model = {loader}.from_pretrained("THIS_FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
        ]
    score = f"lorastudy evaluate {shlex.quote(base)} --adapter THIS_FOLDER"
    if form != "adapter":
        score = "lorastudy evaluate THIS_FOLDER"
    has_answers = any(scores_answers(e.protocol) for e in run.result.evaluations)
    protocol = protocol_of_rows(has_answers=has_answers).pattern
    return (
        "```python\n" + "\n".join(lines) + "\n```\n\n"
        f"Score it again: `{score} --benchmark FILE --protocol {protocol} "
        f"--length {run.spec.data.rows.length}{'' if run.spec.data.rows.strip else ' --no-strip'}`."
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _has_id(run: StoredRun) -> bool:
    return run.study.base_model.id is not None


def _adapted_head(run: StoredRun) -> str | None:
    modules = run.manifest.modules if run.manifest else ()
    return next((path for path in modules if path.rpartition(".")[2] in HEADS), None)
