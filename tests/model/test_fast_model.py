"""The fast implementation against transformers + PEFT on padded, masked rows: one function.

Float32, dropout off unless said otherwise; "relative" is the norm of a difference over the
norm of the tensor, for each tensor by itself.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lorastudy.config.models import Arm
from lorastudy.data.batches import Padding, make_batch
from lorastudy.data.rows import RowTable, cut_lines
from lorastudy.model.adapters import ArmModel
from lorastudy.model.base import load_base
from lorastudy.model.fast import head as fast_head
from lorastudy.model.fast.attention import attend
from lorastudy.model.fast.flat_rows import FlatRows
from lorastudy.model.fast.frozen import FrozenConv1D, FrozenLinear
from lorastudy.model.scoring import make_scorer
from support.families import make_config, save_family
from support.gradients import (
    ARMS,
    LAYOUTS,
    LENGTH,
    PAD,
    Gradients,
    arm_model,
    assert_equal_gradients,
    batch_of,
    gradients_of,
    loss_of_transformers,
    without_dropout,
)
from support.tiny_arms import CPU, attach


@pytest.mark.parametrize("scored", [False, True], ids=["masked", "scored"])
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_every_gradient_are_those_of_transformers(
    layout: str,
    arm: str,
    scored: bool,
    corpus: tuple[np.ndarray, RowTable],
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue(layout)
    batch = batch_of(corpus, scored=scored)
    reference, fast = (arm_model(folder, ARMS[arm]) for _ in range(2))
    scorer = make_scorer(fast.network, "float32")
    assert scorer.packs and scorer.chunks_head
    theirs = loss_of_transformers(reference.network, batch)
    ours = scorer.sum_nats(batch) / batch.n_scored
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert_equal_gradients(gradients_of(fast, ours), gradients_of(reference, theirs))


@pytest.mark.parametrize("arm", ["lora-4", "full"])
def test_gradients_do_not_depend_on_the_chunks_of_the_head(
    arm: str,
    tiny_gpt2: Path,
    corpus: tuple[np.ndarray, RowTable],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = batch_of(corpus)
    whole, cut = (arm_model(tiny_gpt2, ARMS[arm]) for _ in range(2))
    expected = gradients_of(whole, make_scorer(whole.network, "float32").sum_nats(batch))
    monkeypatch.setattr(fast_head, "CHUNK", 7)
    got = gradients_of(cut, make_scorer(cut.network, "float32").sum_nats(batch))
    assert_equal_gradients(got, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nats_of_a_packed_row_do_not_depend_on_the_others(
    layout: str, corpus: tuple[np.ndarray, RowTable], request: pytest.FixtureRequest
) -> None:
    tokens, table = corpus
    model = arm_model(request.getfixturevalue(layout), ARMS["lora-2"])
    scorer = make_scorer(model.network, "float32")
    together = scorer.score(batch_of(corpus))
    alone = [
        scorer.score(make_batch(tokens, table, np.array([row]), Padding(PAD)))
        for row in range(table.n_rows)
    ]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_packing_computes_no_padding(tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]) -> None:
    model = arm_model(tiny_gpt2, ARMS["full"])
    scorer = make_scorer(model.network, "float32")
    widths = []
    model.network.transformer.ln_f.register_forward_hook(
        lambda _module, _inputs, output: widths.append(output.shape[:2])
    )
    batch = batch_of(corpus)
    scorer.score(batch)
    assert widths == [(1, int(batch.n_read.sum()))]
    assert batch.n_read.sum() < batch.input_ids.numel()


def test_reference_implementation_leaves_the_model_as_it_is(tiny_gpt2: Path) -> None:
    model = attach(tiny_gpt2, ARMS["lora-2"])
    before = [type(module) for module in model.network.modules()]
    scorer = make_scorer(model.network, "float32", implementation="reference")
    assert [type(module) for module in model.network.modules()] == before
    assert not scorer.packs and not scorer.chunks_head


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fast_model_run_by_hand_is_still_that_of_transformers(
    layout: str, request: pytest.FixtureRequest
) -> None:
    model = arm_model(request.getfixturevalue(layout), ARMS["lora-3"])
    plain = copy.deepcopy(model.network).eval()
    make_scorer(model.network, "float32")
    ids = torch.arange(40, 80).reshape(2, 20)
    with torch.no_grad():
        ours, theirs = (n(input_ids=ids).logits for n in (model.network.eval(), plain))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_switching_the_adapter_off_still_works(
    tiny_gpt2: Path, corpus: tuple[np.ndarray, RowTable]
) -> None:
    model = arm_model(tiny_gpt2, ARMS["lora-4"])
    base = load_base(tiny_gpt2, device=CPU)
    batch = batch_of(corpus)
    assert model.adapter is not None
    with torch.no_grad():
        with_adapter = make_scorer(model.network.eval(), "float32").sum_nats(batch)
        with model.adapter.disable_adapter():
            without = make_scorer(model.network, "float32").sum_nats(batch)
        expected = make_scorer(base, "float32").score(batch).sum()
    assert float(without) == pytest.approx(float(expected), rel=1e-6)
    assert float(with_adapter) != pytest.approx(float(expected), rel=1e-4)


def family(name: str) -> PreTrainedModel:
    plain = {"dropout": 0.0} if name == "opt" else {}  # a function there, not a module
    config = make_config(name, initializer_range=0.3, **plain)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).float()


PACKED = ("gpt_neox", "phi", "qwen2", "mistral", "gemma3_text", "gemma4_text", "granite")
PADDED = ("bloom", "gemma2", "qwen3_5_text")  # attention of another form


@pytest.mark.parametrize("name", [*PACKED, *PADDED, "opt"])
def test_other_families_have_the_gradients_of_transformers(
    name: str, corpus: tuple[np.ndarray, RowTable]
) -> None:
    reference = ArmModel(family(name))
    without_dropout(reference)
    fast = ArmModel(copy.deepcopy(reference.network))
    batch = batch_of(corpus)
    theirs = loss_of_transformers(reference.network, batch)
    ours = make_scorer(fast.network, "float32").sum_nats(batch) / batch.n_scored
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    got, expected = (
        torch.cat([g.flatten() for g in gradients.values()])  # in some, a tensor has none
        for gradients in (gradients_of(fast, ours), gradients_of(reference, theirs))
    )
    assert float((got - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_families_that_mix_positions_by_usual_attention_alone_are_packed(name: str) -> None:
    assert make_scorer(family(name), "float32").packs == (name in PACKED)


_EXPERTS = {"num_local_experts": 1, "num_experts_per_tok": 1}
WINDOWS: dict[str, tuple[dict[str, object], bool]] = {  # of families, and whether they are packed
    "mixtral": ({**_EXPERTS, "sliding_window": 12}, True),
    "phimoe": ({**_EXPERTS, "num_local_experts": 2, "sliding_window": 12}, False),
    "llama4_text": ({**_EXPERTS, "attention_chunk_size": 12, "intermediate_size_mlp": 48}, False),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_rows_longer_than_a_window_that_only_masks_know_are_not_packed(
    name: str, corpus: tuple[np.ndarray, RowTable]
) -> None:
    keys, is_packed = WINDOWS[name]
    config = make_config(name, initializer_range=0.3, **keys)
    network = AutoModelForCausalLM.from_config(config).float().eval()
    batch = batch_of(corpus)
    assert int(batch.n_read.max()) > 12
    theirs = loss_of_transformers(network, batch)
    scorer = make_scorer(network, "float32")
    assert scorer.packs == is_packed
    ours = scorer.sum_nats(batch) / batch.n_scored
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_feed_forward_layers_of_no_width_add_nothing(
    corpus: tuple[np.ndarray, RowTable],
) -> None:  # as shared experts are where config.json says 0 of them
    config = make_config("llama", initializer_range=0.3, intermediate_size=0)
    network = AutoModelForCausalLM.from_config(config).float().eval()
    batch = batch_of(corpus)
    theirs = loss_of_transformers(network, batch)
    ours = make_scorer(network, "float32").sum_nats(batch) / batch.n_scored
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def attention_inputs(n_heads: int = 2, n_tokens: int = 20, width: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randn(
            1, n_heads, n_tokens, width, generator=generator, dtype=torch.float64
        ).requires_grad_()
        for _ in range(3)
    ]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("hides", [False, True])
def test_attention_has_the_gradient_of_its_definition(window: int | None, hides: bool) -> None:
    visible = torch.rand(20, generator=torch.Generator().manual_seed(1)) > 0.3 if hides else None
    rows = FlatRows((0, 7, 8, 20), visible)

    def attended(*inputs: Tensor) -> Tensor:
        module = nn.Identity()
        return attend(module, *inputs, None, flat_rows=rows, sliding_window=window, scaling=0.7)[0]

    inputs = attention_inputs()
    assert torch.autograd.gradcheck(attended, inputs)
    for begin, end in rows.spans:
        q, k, v = (x[:, :, begin:end] for x in inputs)
        offset = torch.arange(end - begin)
        seen = offset[:, None] >= offset
        if window is not None:
            seen = seen & (offset[:, None] - offset < window)
        if visible is not None:
            seen = seen & visible[begin:end]
        expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.7)
        got = attended(*inputs)[:, begin:end].transpose(1, 2)
        assert torch.allclose(got, expected)


def test_attention_of_another_form_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="softcap"):
        attend(nn.Identity(), *attention_inputs(), None, flat_rows=FlatRows((0, 20)), softcap=30.0)


def squared_error(exact: Gradients, rough: Gradients) -> float:
    return sum(float((rough[n] - exact[n]).square().sum()) for n in exact)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_gradients_are_as_near_to_float32_as_those_of_autocast(
    layout: str, arm: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(layout)
    offsets = np.concatenate([[0], np.cumsum([40, 3, 17, 9, 11, 17, 30])])
    table = cut_lines(offsets, LENGTH, PAD)

    def gradients(tokens: np.ndarray, precision: str, implementation: str) -> Gradients:
        model = arm_model(folder, ARMS[arm])
        scorer = make_scorer(model.network, precision, implementation=implementation)
        batch = batch_of((tokens, table))
        return gradients_of(model, scorer.sum_nats(batch) / batch.n_scored)

    errors = {"fast": 0.0, "reference": 0.0}
    for seed in range(8):  # one batch is a matter of luck: ratios from 0.85 to 1.11 were seen
        tokens = np.random.default_rng(seed).integers(0, 256, size=offsets[-1])
        exact = gradients(tokens, "float32", "reference")
        for implementation in errors:
            errors[implementation] += squared_error(
                exact, gradients(tokens, "bfloat16", implementation)
            )
    assert 0 < errors["fast"] <= 1.05**2 * errors["reference"]


BIASES = [
    Arm(name="bitfit", method="bitfit", learning_rates=(1e-3,)),
    Arm(
        **{"name": "lora", "method": "peft", "placement": ("attention",)},
        **{"peft": {"peft_type": "LORA", "bias": "all"}, "learning_rates": (1e-3,)},
    ),
]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("arm", BIASES, ids=lambda arm: arm.name)
def test_biases_of_frozen_weights_are_trained_in_every_implementation(
    arm: Arm,
    precision: str,
    tolerance: float,
    tiny_gpt2: Path,
    corpus: tuple[np.ndarray, RowTable],
) -> None:
    found: list[Gradients] = []
    for implementation in ("fast", "reference"):
        model = arm_model(tiny_gpt2, arm)
        scorer = make_scorer(model.network, precision, implementation=implementation)
        found.append(gradients_of(model, scorer.sum_nats(batch_of(corpus))))
    assert_equal_gradients(*found, tolerance)


@pytest.mark.parametrize("case", ["router", "adapter"])
def test_subclasses_of_linear_modules_that_compute_something_else_stay_in_bfloat16(
    case: str, tiny_llama: Path, corpus: tuple[np.ndarray, RowTable], tmp_path: Path
) -> None:
    arm = Arm(
        **{"name": "vera", "method": "peft", "placement": ("attention",)},
        **{"peft": {"peft_type": "PVERA", "r": 8}, "learning_rates": (1e-3,)},
    )
    nats: list[float] = []
    for implementation in ("fast", "reference"):
        if case == "router":
            network = load_base(save_family("llama4", tmp_path), device=CPU).requires_grad_(False)
        else:
            network = arm_model(tiny_llama, arm).network.eval()
        scorer = make_scorer(network, "bfloat16", implementation=implementation)
        with torch.no_grad():
            nats.append(float(scorer.score(batch_of(corpus)).sum()))
    assert nats[0] == pytest.approx(nats[1], rel=2e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_of_frozen_weights_follow_the_precision(
    layout: str, request: pytest.FixtureRequest
) -> None:
    for arm, is_frozen in (("lora-2", True), ("full", False)):
        model = attach(request.getfixturevalue(layout), ARMS[arm])
        make_scorer(model.network, "float32")
        frozen = (FrozenLinear, FrozenConv1D)
        assert not any(isinstance(m, frozen) for m in model.network.modules())
        make_scorer(model.network, "bfloat16")
        has_copies = any(isinstance(m, frozen) for m in model.network.modules())
        assert has_copies is is_frozen
