"""The compiled implementation computes what the fast one does.

The layers are traced, forward and backward, and run without kernels of their own (backend
"aot_eager"): what inductor makes of a trace is torch's to test, but for one pass through it.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lorastudy.config.models import Arm
from lorastudy.data.batches import Batch, Padding, make_batch
from lorastudy.data.rows import cut_lines
from lorastudy.errors import ConfigError
from lorastudy.model import scoring
from lorastudy.model.fast.compiled import compile_layers
from lorastudy.model.fast.lora import FastLoraLinear
from lorastudy.model.generating import Ending, generate_greedily
from lorastudy.model.scoring import Scorer, make_scorer
from support.tiny_arms import FULL, as_if_trained, attach, lora

PAD = 256
pytestmark = pytest.mark.filterwarnings("ignore:::torch")  # what torch warns itself of as it traces


@pytest.fixture(autouse=True)
def _traces_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    traced = partial(compile_layers, backend="aot_eager")
    monkeypatch.setattr(scoring, "compile_layers", traced)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def batch_of(*lengths: int) -> Batch:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(2).integers(0, 256, size=offsets[-1])
    return make_batch(tokens, cut_lines(offsets, 24, PAD), np.arange(len(lengths)), Padding(PAD))


def scorer_of(folder: Path, arm: Arm, implementation: str) -> tuple[Scorer, dict[str, Tensor]]:
    """A scorer in training mode without dropout, and what is trained."""
    model = as_if_trained(attach(folder, arm))
    for module in model.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.dim() == 1:  # biases of an untrained base are zero
                parameter += torch.linspace(0, 0.1, len(parameter))
    model.network.train()
    scorer = make_scorer(model.network, "float32", implementation=implementation)
    return scorer, model.trained_tensors()


@pytest.mark.parametrize(("layout", "arm"), [("flat_gpt2", lora("lora-3")), ("tiny_llama", FULL)])
def test_one_trace_for_all_token_counts_has_the_gradients_of_the_fast_implementation(
    layout: str, arm: Arm, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(layout)
    compiled, ours = scorer_of(folder, arm, "compiled")
    fast, theirs = scorer_of(folder, arm, "fast")
    assert compiled.packs and compiled.chunks_head
    before = counters["stats"]["unique_graphs"]  # of trying the compiler
    traces = []
    for batch in (batch_of(20, 3, 17), batch_of(9, 1, 22, 24), batch_of(5, 5)):
        got, expected = compiled.sum_nats(batch), fast.sum_nats(batch)
        assert got.item() == pytest.approx(expected.item(), rel=1e-6)
        got.backward()
        expected.backward()
        traces.append(counters["stats"]["unique_graphs"])
    assert traces[0] > before and traces[0] == traces[-1]
    # answers grow by one token, and no length of them is traced
    prompts, device = [tuple(range(5)), tuple(range(60, 64))], torch.device("cpu")
    one, other = (
        generate_greedily(scorer, prompts, Ending(4, frozenset()), device=device)
        for scorer in (compiled, fast)
    )
    assert one == other and counters["stats"]["unique_graphs"] == traces[-1]
    for name, tensor in theirs.items():
        assert ours[name].grad is not None and tensor.grad is not None
        error = (ours[name].grad - tensor.grad).norm() / tensor.grad.norm()
        assert float(error) < 1e-5, name


def test_backward_of_a_traced_adapter_meets_the_dropout_of_forward(tiny_gpt2: Path) -> None:
    network = as_if_trained(attach(tiny_gpt2, lora("lora-2"))).network.train()
    make_scorer(network, "float32")
    module = next(m for m in network.modules() if isinstance(m, FastLoraLinear))
    x = torch.randn(50, module.in_features, generator=torch.Generator().manual_seed(3))
    direction = torch.randn(50, module.out_features, generator=torch.Generator().manual_seed(4))
    traced = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    adapted = ((traced(x) - module.get_base_layer()(x)) * direction).sum()
    adapted.backward()
    # what the adapter adds is linear in B and in A, so it is their gradient times themselves
    for tensors in (module.lora_A, module.lora_B):
        weight = tensors["default"].weight
        assert float((weight.grad * weight.detach()).sum()) == pytest.approx(
            float(adapted.detach()), rel=1e-4
        )
    torch.manual_seed(1)
    assert not torch.allclose(traced(x), module.eval()(x), rtol=1e-3)


def test_a_compiler_that_is_missing_is_said_before_training(
    tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ConfigError, match=r"compiled needs.*no C\+\+ compiler found\. Install"):
        scorer_of(tiny_gpt2, FULL, "compiled")
