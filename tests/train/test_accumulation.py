"""What one optimizer step sees: the same gradient however its rows are cut, dropout included."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lorastudy.config.models import Optimizer, Schedule, Training
from lorastudy.data.batches import Padding
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.data.steps import StepPlan
from lorastudy.model.adapters import ArmModel
from lorastudy.model.base import load_base
from lorastudy.model.scoring import make_scorer
from lorastudy.store.training_state import Progress
from lorastudy.train.groups import TrainingInputs
from lorastudy.train.loop import EpochDone, StepDone, train
from lorastudy.train.schedule import lay_out_schedule
from support.families import save_family

CPU, PAD, LENGTH, RATE = torch.device("cpu"), 256, 24, 1e-3
Gradient = dict[str, Tensor]
DROPS = {  # families whose configuration has no dropout by itself
    "phi3": {
        "resid_pdrop": 0.1,
        "sliding_window": None,
        "original_max_position_embeddings": 16,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0, 8.0, 16.0, 32.0],
        },
    },
}


class RecordingAdamW(torch.optim.AdamW):
    """AdamW that keeps the gradients of every step."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        super().__init__(list(parameters.values()), lr=RATE)
        self._named = parameters
        self.gradients: list[Gradient] = []

    def step(self, closure: object = None) -> None:
        self.gradients.append({n: p.grad.clone() for n, p in self._named.items()})
        super().step()


class DrawnOrder(TrainingInputs):
    """Training that never sorts the rows of a step by length."""

    cuts_by_length = False


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, RowTable]:
    """13 documents of 1 to 40 tokens."""
    rng = np.random.default_rng(11)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 40, size=13))])
    return rng.integers(0, 256, size=offsets[-1]), cut_lines(offsets, LENGTH, PAD)


def load_without_dropout(folder: Path) -> nn.Module:
    network = load_base(folder, device=CPU)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return network


def prepare(
    folder: Path,
    corpus: tuple[np.ndarray, RowTable],
    *,
    micro_batch: int,
    padding: Padding = Padding(PAD),  # noqa: B008  frozen
    drops: bool = False,
    **settings: str | int,
) -> TrainingInputs:
    tokens, table = corpus
    training = Training(
        epochs=2,
        rows_per_step=6,
        micro_batch=micro_batch,
        schedule=Schedule(shape="constant", warmup=0.0),
        optimizer=Optimizer(max_grad_norm=None),
        **settings,
    )
    plan = StepPlan(table.n_rows, 2, 6, micro_batch, training.first_group, seed=3)
    model = ArmModel(load_base(folder, device=CPU) if drops else load_without_dropout(folder))
    return TrainingInputs(
        model=model,
        scorer=make_scorer(model.network, "float32", implementation=training.implementation),
        optimizer=RecordingAdamW(model.trained_tensors()),
        schedule=lay_out_schedule(training.schedule, RATE, plan),
        settings=training,
        plan=plan,
        table=table,
        tokens=tokens,
        padding=padding,
        device=CPU,
    )


def gradients_of(inputs: TrainingInputs) -> list[Gradient]:
    list(train(inputs, Progress()))
    assert isinstance(inputs.optimizer, RecordingAdamW)
    return inputs.optimizer.gradients


def first_gradient(inputs: TrainingInputs) -> Gradient:
    next(train(inputs, Progress()))
    assert isinstance(inputs.optimizer, RecordingAdamW)
    return inputs.optimizer.gradients[0]


def difference(ours: Gradient, theirs: Gradient) -> float:
    """Norm of the difference over the norm, all tensors together."""
    assert ours.keys() == theirs.keys()
    of_difference = sum(float((ours[n] - theirs[n]).double().square().sum()) for n in ours)
    return (of_difference / sum(float(g.double().square().sum()) for g in theirs.values())) ** 0.5


@pytest.fixture(scope="module")
def whole_step(tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]) -> Gradient:
    """Of a step with dropout, as those that are compared with it."""
    return first_gradient(prepare(tiny_gpt2, corpus, micro_batch=6, drops=True))


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_gradient_does_not_depend_on_micro_batching(
    micro_batch: int, tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable], whole_step: Gradient
) -> None:
    cut = first_gradient(prepare(tiny_gpt2, corpus, micro_batch=micro_batch, drops=True))
    assert 0 < difference(cut, whole_step) < 1e-6


@pytest.mark.parametrize("budget", [1, 30, 60])
def test_gradient_does_not_depend_on_the_token_budget(
    budget: int, tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable], whole_step: Gradient
) -> None:
    inputs = prepare(tiny_gpt2, corpus, micro_batch=6, token_budget=budget, drops=True)
    assert len(list(inputs.batches(inputs.collect_group(1)[0].rows))) > 1
    assert 0 < difference(first_gradient(inputs), whole_step) < 1e-6


def test_token_budget_changes_no_mean_of_a_micro_batch(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    means = {"accumulation": "micro-batch-means", "first_group": "one"}
    whole = prepare(tiny_gpt2, corpus, micro_batch=3, **means)
    cut = prepare(tiny_gpt2, corpus, micro_batch=3, token_budget=20, **means)
    assert difference(first_gradient(cut), first_gradient(whole)) < 1e-6
    losses = [
        [e.ended.train_loss for e in train(inputs, Progress()) if isinstance(e, EpochDone)]
        for inputs in (whole, cut)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_row_has_other_masks_in_every_epoch(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable], whole_step: Gradient
) -> None:
    still = first_gradient(prepare(tiny_gpt2, corpus, micro_batch=6))
    assert difference(whole_step, still) > 0.01  # there is dropout
    inputs = prepare(tiny_gpt2, corpus, micro_batch=6, drops=True)
    batch, _ = inputs.batches(np.array([4, 5]))[0]
    first, second = (
        inputs.open_streams(replace(inputs.collect_group(1)[0], epoch=epoch), batch).seeds
        for epoch in (1, 2)
    )
    assert len({*first, *second}) == 4


# rows that are padded; padded, with dropout called as a function, also of attention; one by one
@pytest.mark.parametrize("family", ["openai-gpt", "xglm", "opt", "phi3"])
def test_masks_of_every_family_belong_to_rows(
    family: str, corpus: tuple[np.ndarray, RowTable], tmp_path: Path
) -> None:
    folder = save_family(family, tmp_path, **DROPS.get(family, {}))
    whole, cut = (
        first_gradient(prepare(folder, corpus, micro_batch=n_rows, drops=True)) for n_rows in (6, 2)
    )
    assert difference(cut, whole) < 1e-5
    still = first_gradient(prepare(folder, corpus, micro_batch=6))
    assert difference(whole, still) > 0.01  # there is dropout


def test_gradient_does_not_depend_on_the_implementation(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    whole, cut = (
        prepare(tiny_gpt2, corpus, micro_batch=n_rows, implementation=implementation)
        for n_rows, implementation in ((6, "fast"), (2, "reference"))
    )
    assert not cut.scorer.packs
    assert 0 < difference(first_gradient(cut), first_gradient(whole)) < 1e-6


def test_gradient_does_not_depend_on_sorting_the_rows_of_a_step(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    by_length = prepare(tiny_gpt2, corpus, micro_batch=2)
    again = prepare(tiny_gpt2, corpus, micro_batch=2)
    drawn = DrawnOrder(**{name: getattr(again, name) for name in TrainingInputs.__slots__})
    first = [inputs.collect_group(1)[0].rows.tolist() for inputs in (by_length, drawn)]
    assert first[0] != first[1]
    assert difference(first_gradient(by_length), first_gradient(drawn)) < 1e-6


def test_gradient_is_that_of_the_mean_over_the_tokens_of_the_step(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    inputs = prepare(tiny_gpt2, corpus, micro_batch=2)
    reference = load_without_dropout(tiny_gpt2)
    nats = [
        row_nats(reference, corpus, row)
        for index in inputs.plan.group_of(1)
        for row in inputs.plan.rows_of(index)
    ]
    torch.cat(nats).mean().backward()
    assert difference(first_gradient(inputs), named_gradients(reference)) < 1e-6


def row_nats(network: nn.Module, corpus: tuple[np.ndarray, RowTable], row: int) -> Tensor:
    tokens, table = corpus
    text = tokens[table.begins[row] : table.ends[row]].tolist()
    ids = torch.tensor([[PAD, *text]])
    logits = network(input_ids=ids).logits[0, :-1]
    return nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")


def named_gradients(network: nn.Module) -> Gradient:
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def test_means_of_unequal_micro_batches_give_another_gradient(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable], whole_step: Gradient
) -> None:
    inputs = prepare(tiny_gpt2, corpus, micro_batch=2, accumulation="micro-batch-means")
    assert difference(first_gradient(inputs), whole_step) > 0.01


def plain_loop(folder: Path, batches: list[dict[str, Tensor]], accumulation: int) -> list[Gradient]:
    """The published study's loop: a counter from 0 through all epochs."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    gradients = []
    for counter, batch in enumerate(batches):
        (network(**batch).loss / accumulation).backward()
        if counter % accumulation == 0:
            gradients.append(named_gradients(network))
            optimizer.step()
            optimizer.zero_grad()
    return gradients


def padded(corpus: tuple[np.ndarray, RowTable], rows: np.ndarray) -> dict[str, Tensor]:
    tokens, table = corpus
    ids = torch.full((len(rows), LENGTH), PAD)
    for i, row in enumerate(rows):
        text = tokens[table.begins[row] : table.ends[row]]
        ids[i, 1 : 1 + len(text)] = torch.from_numpy(text)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": ids}


def test_published_accumulation_is_that_of_a_plain_loop(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    inputs = prepare(
        tiny_gpt2,
        corpus,
        micro_batch=2,
        padding=Padding(PAD, LENGTH),
        accumulation="micro-batch-means",
        first_group="one",
    )
    plan = inputs.plan
    batches = [padded(corpus, plan.rows_of(i)) for i in range(plan.n_micro_batches)]
    theirs = plain_loop(tiny_gpt2, batches, accumulation=3)
    ours = gradients_of(inputs)
    assert len(ours) == len(theirs) == plan.n_steps == 5  # micro-batches 0, 3, 6, 9, 12 of 14
    for step in range(5):
        assert difference(ours[step], theirs[step]) < 2e-5


def test_loss_of_a_step_is_the_mean_over_its_tokens(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    inputs = prepare(tiny_gpt2, corpus, micro_batch=2)
    reference = load_without_dropout(tiny_gpt2)
    rows = [row for index in inputs.plan.group_of(1) for row in inputs.plan.rows_of(index)]
    nats = torch.cat([row_nats(reference, corpus, row) for row in rows]).detach().double()
    event = next(train(inputs, Progress()))
    assert isinstance(event, StepDone)
    assert event.record.n_tokens == len(nats)
    assert event.record.loss == pytest.approx(float(nats.mean()), rel=1e-6)


@pytest.mark.parametrize("first_group", ["full", "one"])
def test_every_micro_batch_counts_once_in_the_loss_of_its_epoch(
    first_group: str, tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    inputs = prepare(tiny_gpt2, corpus, micro_batch=2, first_group=first_group)
    # without moving the weights, both epochs have the loss of the whole training text
    still = replace(inputs, schedule=replace(inputs.schedule, peak=0.0))
    ended = [e.ended for e in train(still, Progress()) if isinstance(e, EpochDone)]
    nats = torch.cat([row_nats(inputs.model.network, corpus, row) for row in range(13)]).detach()
    assert [e.epoch for e in ended] == [1, 2]
    for one in ended:
        assert one.train_loss == pytest.approx(float(nats.double().mean()), rel=1e-6)
