"""Every method of the installed PEFT, with keys that fit tiny models, tried as an arm."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from torch import Tensor

from lorastudy.config.models import Arm, Optimizer, Schedule, Training
from lorastudy.data.batches import Padding, make_batch
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.data.steps import StepPlan
from lorastudy.errors import ConfigError
from lorastudy.model.adapter_files import WEIGHTS
from lorastudy.model.adapters import ArmModel, attach_arm, load_adapter
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.arm_size import measure_arm
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.store.training_state import Progress
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.loop import StepDone, train
from lorastudy.train.optimizer import make_optimizer, read_moments, restore_moments, scale_rates
from lorastudy.train.schedule import lay_out_schedule
from support.bases import copy_base, description_of
from support.families import load_plain
from support.tiny_arms import CPU, logits_of

KINDS = tuple(sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING))
PLACEMENT = {"tiny_gpt2": ("attention", "projection"), "tiny_llama": ("attention", "projection")}
NORMS = {
    "tiny_gpt2": ("transformer.h.*.ln_1", "transformer.ln_f"),
    "tiny_llama": ("model.layers.*.input_layernorm", "model.norm"),
}
EMBEDDING = {"tiny_gpt2": ("transformer.wte",), "tiny_llama": ("model.embed_tokens",)}
# PEFT's defaults are for wide models; these fit modules of width 32.
KEYS: dict[str, dict[str, object]] = {
    "ADALORA": {"total_step": 10, "tinit": 1, "tfinal": 5},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 10},
    "GRALORA": {"r": 4},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4, "r": 0},
    "PSOFT": {"r": 4},
    "PVERA": {"r": 8},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [65, 66]},
    "VBLORA": {"vector_length": 16, "num_vectors": 8},
    "VERA": {"r": 8},
    "WAVEFT": {"n_frequency": 16},
}
SETTINGS = Training(
    epochs=1,
    rows_per_step=2,
    micro_batch=2,
    schedule=Schedule(warmup=0.0, shape="constant"),
    optimizer=Optimizer(),
)
PAD, RATE = 256, 5e-3


@dataclass(frozen=True)
class Tried:
    """What became of a method on a model: numbers that it trains, or why it was refused."""

    n_trained: int | None = None
    refused: str | None = None


def arm_of(kind: str, layout: str) -> Arm:
    """An arm with this method of PEFT."""
    keys = KEYS.get(kind, {})
    placement = {"LN_TUNING": NORMS, "TRAINABLE_TOKENS": EMBEDDING}.get(kind, PLACEMENT)[layout]
    if kind == "IA3":
        keys = {"feedforward_modules": ["projection"]}
    return Arm(
        name=kind.lower(),
        method="peft",
        peft={"peft_type": kind, **keys},
        placement=placement,
        learning_rates=(RATE,),
    )


def try_arm(arm: Arm, folder: Path, scratch: Path) -> Tried:
    """Train, resume, store and reload an arm; every difference is an AssertionError."""
    base = description_of(folder)
    try:
        placement = resolve_arm(arm, base)
        size = measure_arm(arm, base, placement)
        model = attach_anew(folder, arm)
    except ConfigError as error:
        return Tried(refused=str(error))
    assert model.n_trained == size.trained
    _assert_implementations_agree(model)

    # train to the end, and once more from the middle
    inputs = prepare(model, arm)
    before = logits_of(model.network.eval())
    middle: dict[str, dict[str, Tensor]] = {}
    for event in train(inputs, Progress()):
        if isinstance(event, StepDone) and event.progress.step == 2:
            trained = model.trained_tensors()
            middle["weights"] = {n: t.detach().clone() for n, t in trained.items()}
            moments = read_moments(inputs.optimizer, trained)
            middle["moments"] = {name: tensor.clone() for name, tensor in moments.items()}
            progress = event.progress
    trained_logits = logits_of(model.network.eval())
    assert not torch.equal(trained_logits, before), "training changed nothing"
    again = attach_anew(folder, arm)
    inputs = prepare(again, arm)
    again.load_trained(middle["weights"])
    restore_moments(inputs.optimizer, again.trained_tensors(), middle["moments"])
    for _ in train(inputs, progress):
        pass
    for (name, one), other in zip(
        model.trained_tensors().items(), again.trained_tensors().values(), strict=True
    ):
        assert torch.equal(one, other), f"{name} differs after a resume"
    assert torch.equal(logits_of(again.network.eval()), trained_logits)

    assert_everybody_reads(model, arm, folder, scratch)
    if arm.trains_adapter:
        assert sum(t.numel() for t in load_file(scratch / WEIGHTS).values()) == size.stored
    return Tried(n_trained=size.trained)


def assert_everybody_reads(model: ArmModel, arm: Arm, folder: Path, scratch: Path) -> None:
    """Store a trained arm of the base model in `folder`, and read the same model from there."""
    trained_logits = logits_of(model.network.eval())
    model.save(scratch)
    if arm.trains_adapter:
        ours = logits_of(load_adapter(load_base(folder, device=CPU), scratch).network)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's advice to readers
            theirs = PeftModel.from_pretrained(load_plain(folder), str(scratch))
    else:
        ours, theirs = logits_of(load_base(scratch, device=CPU)), load_plain(scratch)
    assert torch.equal(logits_of(theirs.eval()), ours)
    best = attach_anew(folder, arm)
    best.load_best(scratch)
    for logits in (trained_logits, logits_of(best.network.eval())):
        torch.testing.assert_close(logits, ours, rtol=1e-5, atol=1e-4)


def attach_anew(folder: Path, arm: Arm) -> ArmModel:
    """The base model with the arm as it begins, which may follow from training rows."""
    placement = resolve_arm(arm, description_of(folder))
    return attach_arm(copy_base(folder), arm, placement, seed=1, rows=read_rows())


def read_rows() -> list[Tensor]:
    """The token ids of every training row, (T,) each."""
    tokens, table = _make_rows()
    numbers = np.arange(table.n_rows)[:, None]
    return [make_batch(tokens, table, row, Padding(PAD)).input_ids[0] for row in numbers]


def _assert_implementations_agree(model: ArmModel) -> None:
    """Losses of a batch by PEFT's own modules, padded, and by the fast form; which stays."""
    tokens, table = _make_rows()
    batch = make_batch(tokens, table, np.arange(table.n_rows), Padding(PAD))
    model.network.eval()
    with torch.no_grad():
        scorer = make_scorer(model.network, "float32", implementation="reference")
        expected = scorer.score(batch)
        scorer = make_scorer(model.network, "float32")
        assert scorer.packs, "the fast form pads rows"
        torch.testing.assert_close(scorer.score(batch), expected, rtol=1e-5, atol=1e-4)


def _make_rows() -> tuple[np.ndarray, RowTable]:
    """Six rows of 4 to 14 tokens."""
    offsets = np.cumsum([0, 9, 3, 13, 7, 5, 11])
    tokens = np.random.default_rng(2).integers(0, 256, size=offsets[-1])
    return tokens, cut_lines(offsets, 16, PAD)


def prepare(model: ArmModel, arm: Arm) -> TrainingInputs:
    """What training an arm on a few rows takes, in three optimizer steps."""
    tokens, table = _make_rows()
    plan = StepPlan(table.n_rows, 1, SETTINGS.rows_per_step, SETTINGS.micro_batch, "full", seed=3)
    trained = model.trained_tensors()
    return TrainingInputs(
        model=model,
        scorer=make_scorer(model.network, "float32"),
        optimizer=make_optimizer(
            trained, SETTINGS.optimizer, scale_rates(trained, arm.loraplus_lr_ratio)
        ),
        schedule=lay_out_schedule(SETTINGS.schedule, arm.learning_rates[0], plan),
        settings=SETTINGS,
        plan=plan,
        table=table,
        tokens=tokens,
        padding=Padding(PAD),
        device=CPU,
    )
