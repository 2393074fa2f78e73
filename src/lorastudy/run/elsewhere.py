"""Prepare a run that only scores: of the base model, or of weights that were trained elsewhere."""

from dataclasses import dataclass

from lorastudy.machine.environment import take_fingerprint
from lorastudy.model.adapters import ArmModel
from lorastudy.model.base import count_parameters, load_base
from lorastudy.model.base_folder import digest_base
from lorastudy.model.elsewhere import count_trained, load_weights
from lorastudy.model.scoring import Scorer, make_scorer
from lorastudy.run.context import RunContext
from lorastudy.store.records import Manifest


@dataclass(frozen=True, slots=True)
class Scoring:
    """A model in memory that is scored as it is."""

    scorer: Scorer
    manifest: Manifest


def prepare_scoring(context: RunContext) -> Scoring:
    """Load the model of the run, and make its manifest, in which nothing is trained.

    Raises:
        InputError: Its folder is not what it was, or does not fit the base model.
    """
    training = context.spec.training
    model = load_model(context)
    manifest = _describe(context, model)  # before the scorer replaces modules
    scorer = make_scorer(model.network, training.precision, implementation=training.implementation)
    return Scoring(scorer, manifest)


def load_model(context: RunContext) -> ArmModel:
    """The model that the run scores.

    Raises:
        InputError: As in `prepare_scoring`.
    """
    base, device = context.reader.base.folder, context.device
    for weights in context.spec.arm.weights:
        return load_weights(weights, base, device)
    network = load_base(base, device=device)
    network.requires_grad_(False)
    return ArmModel(network)


def _describe(context: RunContext, model: ArmModel) -> Manifest:
    spec, reader, adapter = context.spec, context.reader, model.adapter
    modules = sorted(adapter.targeted_module_names) if adapter is not None else []
    return Manifest(
        run_id=spec.run_id,
        modules=tuple(modules),
        trainable_parameters=sum(count_trained(one, model) for one in spec.arm.weights),
        total_parameters=count_parameters(model.network),
        optimizer_steps=0,
        warmup_steps=0,
        train_rows=0,
        train_targets_per_epoch=0,
        text_share=0.0,
        base_digest=digest_base(reader.base.folder),
        tokenizer_digest=reader.tokenizer.digest,
        train_digest="",
        validation_digest="",
        environment=take_fingerprint(context.device, spec.training, team=context.team),
        text_part_of=reader.base.text_part_of,
    )
