"""Prepare a run: base model, adapters, optimizer, and the manifest."""

from dataclasses import dataclass

import torch

from lorastudy.config.models import Arm, Training
from lorastudy.errors import ConfigError
from lorastudy.machine.environment import take_fingerprint
from lorastudy.model.adapters import ArmModel, attach_arm
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.base import count_parameters, load_base, move_model
from lorastudy.model.base_folder import digest_base
from lorastudy.model.base_weights import IN_8_BITS, PACKED, uses_bitsandbytes
from lorastudy.model.checkpointing import checkpoint_layers
from lorastudy.model.placement import ResolvedPlacement
from lorastudy.model.scoring import make_scorer
from lorastudy.model.sharing import AnyScorer, share_scorer
from lorastudy.run.context import RunContext
from lorastudy.run.layout import TrainingLayout, lay_out_training, read_first_rows
from lorastudy.store.records import Manifest
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.optimizer import make_optimizer, scale_rates


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """A run in memory."""

    model: ArmModel
    scorer: AnyScorer
    layout: TrainingLayout
    inputs: TrainingInputs | None  # None: the baseline, which trains nothing
    manifest: Manifest


def _attach_to_base(
    context: RunContext, placement: ResolvedPlacement, layout: TrainingLayout
) -> ArmModel:
    """The base model with the arm: on the device, or on the CPU if a team will divide it."""
    arm, base = context.spec.arm, context.reader.base
    cpu = torch.device("cpu")
    at_last = cpu if context.team.strategy == "fsdp2" else context.device
    # an adapter's start is computed on the CPU, so that it is rounded alike on every device
    starts_from_weights = arm.trains_adapter and not arm.has_plain_start
    at_first = cpu if starts_from_weights and arm.base_weights not in PACKED else at_last
    network = load_base(base.folder, device=at_first, base_weights=arm.held_weights)
    model = attach_arm(
        network,
        arm,
        placement,
        seed=context.spec.seed,
        base=context.spec.base_model,
        rows=read_first_rows(layout),
    )
    move_model(network, at_last)
    return model


def set_up_run(context: RunContext) -> RunSetup:
    """Load the base model, attach the arm, and make the manifest.

    If a team divides a model, it goes to the device part by part, never as a whole.

    Raises:
        ConfigError: The team cannot train this run, or torch.compile is needed but does not work.
    """
    spec, reader, device, team = context.spec, context.reader, context.device, context.team
    refuse_team(team.size, spec.training, spec.arm)
    placement = resolve_arm(spec.arm, reader.base)
    layout = lay_out_training(spec, reader)
    if team.strategy == "fsdp2":
        refuse_divided(spec.training, spec.arm)
        _refuse_divided_parts(spec.arm, placement)
    model = _attach_to_base(context, placement, layout)
    network = model.network
    alone = make_scorer(
        network,
        spec.training.precision,
        implementation=spec.training.implementation,
        keep_copies=team.strategy != "fsdp2",
    )
    if spec.training.activation_checkpointing:
        checkpoint_layers(network, drops_by_function=alone.drops_by_function)
    scorer = share_scorer(alone, team, device)
    return RunSetup(
        model=model,
        scorer=scorer,
        layout=layout,
        inputs=_make_inputs(context, model, scorer, layout) if model.trained_tensors() else None,
        manifest=_describe_run(context, placement, layout, model),
    )


def _make_inputs(
    context: RunContext, model: ArmModel, scorer: AnyScorer, layout: TrainingLayout
) -> TrainingInputs:
    """What the training loop needs, with a new optimizer."""
    spec, trained = context.spec, model.trained_tensors()
    return TrainingInputs(
        model=model,
        scorer=scorer,
        optimizer=make_optimizer(
            trained,
            spec.training.optimizer,
            scale_rates(trained, spec.arm.loraplus_lr_ratio),
            seed=spec.seed,
        ),
        schedule=layout.schedule,
        settings=spec.training,
        plan=layout.plan,
        table=layout.drawn,
        tokens=layout.corpus.tokens,
        padding=layout.padding,
        device=context.device,
        team=context.team,
    )


def _refuse_divided_parts(arm: Arm, placement: ResolvedPlacement) -> None:
    if placement.parts:
        raise ConfigError(
            f"arm {arm.name!r}: query, key and value inside one module cannot be trained by "
            "processes that divide the model. Use --strategy ddp."
        )


def refuse_divided(training: Training, *arms: Arm) -> None:
    """Check that processes which divide the model can train these arms.

    Raises:
        ConfigError: They cannot.
    """
    for arm in arms:
        if arm.base_weights in PACKED:
            raise ConfigError(
                f"arm {arm.name!r}: base_weights: {arm.base_weights} cannot be divided among "
                "processes. Use --strategy ddp, or bfloat16."
            )
    if training.optimizer.name == IN_8_BITS:
        raise ConfigError(
            "training.optimizer.name: adamw-8bit cannot be divided among processes. "
            "Use --strategy ddp, or adamw."
        )


def refuse_team(size: int, training: Training, *arms: Arm) -> None:
    """Check that a team of `size` processes can train together.

    Raises:
        ConfigError: A micro-batch has fewer rows than there are processes, layers are compiled, or
            one of `arms` rounds its weights by itself.
    """
    if size > 1 and (alone := [a.name for a in arms if a.trained_weights != "float32"]):
        raise ConfigError(
            f"arm {alone[0]!r}: trained_weights: bfloat16-stochastic is for runs of one process, "
            "since torch adds gradients of several in bfloat16. Use float32 for a team."
        )
    if size > 1 and training.implementation == "compiled":
        raise ConfigError(
            "training.implementation: compiled is for runs of one process; use fast for a team."
        )
    if size > training.micro_batch:
        raise ConfigError(
            f"training.micro_batch: {training.micro_batch} rows cannot be shared by {size} "
            "processes. Start fewer with --nproc, or give all arms a larger micro-batch (in a "
            "new folder: it changes how sums are rounded)."
        )


def _describe_run(
    context: RunContext, placement: ResolvedPlacement, layout: TrainingLayout, model: ArmModel
) -> Manifest:
    spec, reader, table = context.spec, context.reader, layout.epoch
    trains = spec.arm.method != "baseline"
    return Manifest(
        run_id=spec.run_id,
        modules=placement.paths,
        rank=placement.rank if spec.arm.budget else None,
        trainable_parameters=model.n_trained,
        total_parameters=count_parameters(model.network),
        optimizer_steps=layout.plan.n_steps if trains else 0,
        warmup_steps=layout.schedule.n_warmup if trains else 0,
        train_rows=table.n_rows,
        train_targets_per_epoch=int(table.n_scored.sum()),
        text_share=float(table.n_scored.sum() / (table.n_rows * (spec.data.rows.length - 1))),
        base_digest=digest_base(reader.base.folder),
        tokenizer_digest=reader.tokenizer.digest,
        train_digest=layout.corpus.digest,
        validation_digest=layout.validation_corpus.digest,
        environment=take_fingerprint(
            context.device,
            spec.training,
            team=context.team,
            uses_bitsandbytes=uses_bitsandbytes(spec.training, [spec.arm]),
        ),
        base_weights=spec.arm.base_weights,
        text_part_of=reader.base.text_part_of,
    )
