"""Every method of the installed PEFT is an arm that trains, resumes and reloads, or is refused.

So are the variants of LoRA, and the methods that train a part of the model's own weights.
"""

import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, tuners
from peft.optimizers import create_loraplus_optimizer

from lorastudy.config.models import Arm, Optimizer
from lorastudy.errors import ConfigError
from lorastudy.model.adapters import load_adapter
from lorastudy.model.arm_placement import resolve_arm
from lorastudy.model.arm_size import measure_arm
from lorastudy.model.base import describe_base, load_base
from lorastudy.train.optimizer import make_optimizer, scale_rates
from support.methods import KINDS, RATE, Tried, arm_of, attach_anew, read_rows, try_arm
from support.tiny_arms import CPU, attach, logits_of

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = ("tiny_gpt2", "tiny_llama")


def lora(**keys: Any) -> Arm:
    usual = {"placement": ("attention",), "rank": 4, "alpha": 8.0, "learning_rates": (RATE,)}
    return Arm(name="lora", method="lora", **{**usual, **keys})


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(layout: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(layout)


@pytest.fixture(scope="module")
def try_method(
    tiny_gpt2: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Tried]:
    """What became of a method of PEFT on a model; each is tried once."""
    folders = {"tiny_gpt2": tiny_gpt2, "tiny_llama": tiny_llama}

    @cache
    def try_once(kind: str, layout: str) -> Tried:
        best = tmp_path_factory.mktemp(kind) / "best"
        return try_arm(arm_of(kind, layout), folders[layout], best)

    return try_once


sparse_warning = pytest.mark.filterwarnings("ignore:Sparse invariant")  # of torch, inside FRoD


@sparse_warning
@pytest.mark.parametrize("kind", KINDS)
def test_a_method_of_peft_works_as_an_arm_or_is_refused_before_training(
    kind: str, layout: str, try_method: Callable[[str, str], Tried]
) -> None:
    tried = try_method(kind, layout)
    assert (tried.n_trained is None) != (tried.refused is None)


@sparse_warning
def test_the_page_of_methods_says_what_became_of_them(
    try_method: Callable[[str, str], Tried],
) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "describe_methods.py"))
    written = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert tool["describe_page"](KINDS, try_method) == written


VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True, "dropout": 0.1},
    "dora on the head": {"use_dora": True, "placement": ("output",)},
    "mica": {"init_lora_weights": "mica"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa, rslora": {"init_lora_weights": "pissa_niter_4", "use_rslora": True},
    "olora": {"init_lora_weights": "olora"},
    "eva": {"init_lora_weights": "eva", "placement": ("all-linear",)},
    "eva in dora": {"init_lora_weights": "eva", "use_dora": True, "placement": ("output",)},
    "corda": {"init_lora_weights": "corda", "placement": ("attention", "projection")},
    "lora+": {"loraplus_lr_ratio": 16.0, "dropout": 0.1},
    "patterns": {
        "placement": ("attention", "projection"),
        "rank_pattern": {"projection": 2},
        "alpha_pattern": {"projection": 16.0},
    },
    "all-linear in the last layer": {"placement": ("all-linear",), "layers": "last-1"},
    "query and value": {"placement": ("query", "value"), "dropout": 0.1},
    "key within a budget": {"placement": ("key",), "rank": None, "budget": 600, "alpha": "2r"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_of_lora_trains_resumes_and_reloads(
    variant: str, folder: Path, layout: str, tmp_path: Path
) -> None:
    if variant == "corda":
        pytest.importorskip("attr")
    tried = try_arm(lora(**VARIANTS[variant]), folder, tmp_path / "best")
    if (variant, layout) == ("olora", "tiny_gpt2"):  # PEFT takes a Conv1D for a Linear there
        assert "is not the base model any more" in str(tried.refused)
    else:
        assert tried.n_trained, tried.refused


OWN_WEIGHTS: dict[str, dict[str, Any]] = {
    "head": {},
    "bitfit": {},
    "layer-norms": {"layers": "0"},
    "last-layers": {"layers": "last-1"},
}


@pytest.mark.parametrize("method", OWN_WEIGHTS)
def test_a_part_of_the_own_weights_trains_resumes_and_reloads(
    method: Any, folder: Path, layout: str, tmp_path: Path
) -> None:
    arm = Arm(name="part", method=method, learning_rates=(RATE,), **OWN_WEIGHTS[method])
    tried = try_arm(arm, folder, tmp_path / "best")
    if (method, layout) == ("bitfit", "tiny_llama"):  # it has no biases
        assert tried == Tried(
            refused="arm 'part': this model has no parameters that method: bitfit trains. "
            "Choose another method."
        )
    else:
        assert tried.n_trained, tried.refused


def peft(**keys: Any) -> Arm:
    return Arm(name="x", method="peft", peft=keys, placement=("attention",), learning_rates=(RATE,))


REFUSED = {
    "unknown method": (peft(peft_type="VERRA"), r"no method 'VERRA' \(did you mean 'VERA'\?\)"),
    "unknown key": (
        peft(peft_type="VERA", d_inital=0.1),
        r"peft\.d_inital: unknown key \(did you mean 'd_initial'\?\); allowed: bias, d_initial",
    ),
    "wrong type": (peft(peft_type="VERA", r="many"), r"peft\.r: 'many' is not allowed.*int"),
    "said by placement": (
        peft(peft_type="VERA", target_modules=["c_attn"]),
        r"peft\.target_modules: placement says which modules are adapted; leave it out",
    ),
    "set by the program": (peft(peft_type="VERA", inference_mode=True), "is set by this program"),
    "refused by PEFT": (peft(peft_type="BOFT", boft_block_size=4, boft_block_num=3), "refuses"),
    "unknown start": (lora(init_lora_weights="pisa"), r"init_lora_weights: 'pisa' is not allowed"),
    "LoftQ without packing": (
        lora(init_lora_weights="loftq", base_weights="bfloat16"),
        "base_weights: bfloat16 does not pack them. Add base_weights: nf4, or leave",
    ),
    "LoftQ by iterations": (
        peft(
            peft_type="LORA", init_lora_weights="loftq", loftq_config={"loftq_iter": 5}
        ).model_copy(update={"base_weights": "nf4"}),
        "would need base weights that nobody has. Leave the key out",
    ),
    "LoftQ of DoRA": (
        lora(init_lora_weights="loftq", use_dora=True, base_weights="nf4"),
        "the lengths that DoRA trains would be those of the packed weights",
    ),
    "acts on some tokens": (
        peft(peft_type="LORA", alora_invocation_tokens=[1]),
        r"peft\.alora_invocation_tokens: the adapter of an arm acts on every token",
    ),
    "a form for other bases": (
        peft(peft_type="LORA", use_qalora=True),
        r"peft\.use_qalora: it is for GPTQ weights, which no arm has; leave it out",
    ),
    "the groups of a form for other bases": (
        peft(peft_type="LORA", qalora_group_size=4),
        r"peft\.qalora_group_size: it is for GPTQ weights, which no arm has; leave it out",
    ),
    "a value that no file can hold": (
        peft(peft_type="LORA", runtime_config={}),
        r"peft\.runtime_config: \{\} is not allowed; it holds LoraRuntimeConfig",
    ),
    "a pattern for nothing": (
        peft(peft_type="LORA", rank_pattern={"c_attn": 2, "c_atn": 4}),
        r"peft\.rank_pattern: 'c_atn' matches no adapted module; they are transformer\.h\.0",
    ),
    "no expression": (peft(peft_type="LORA", alpha_pattern={"(": 2}), "not a regular expression"),
    "rank for another module": (
        lora(rank_pattern={"feed-forward": 2}),
        r"rank_pattern: 'feed-forward' means .* where this arm has no adapter",
    ),
    "small budget": (lora(rank=None, budget=10), r"budget 10 is less than the \d+ parameters"),
    "PiSSA of a held base": (
        peft(peft_type="LORA", init_lora_weights="pissa").model_copy(
            update={"base_weights": "bfloat16"}
        ),
        "pissa may change base weights, which are held as they are",
    ),
    "OLoRA of Conv1D": (lora(init_lora_weights="olora"), "is not the base model any more"),
    "EVA with ranks": (
        lora(init_lora_weights="eva", rank_pattern={"attention": 2}),
        "EVA would move ranks between modules; leave out rank_pattern",
    ),
    "too many layers": (lora(layers="1-2"), r"has the layers 0 to 1, and not all of 1 to 2"),
    "no layer": (lora(placement=("output",), layers="0"), r"lm_head \('output'\) is in no layer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_arm_cannot_be_is_refused_without_a_model(case: str, tiny_gpt2: Path) -> None:
    arm, says = REFUSED[case]
    base = describe_base(tiny_gpt2)
    with pytest.raises(ConfigError, match=says):
        measure_arm(arm, base, resolve_arm(arm, base))


STAYS = "nothing that it trains has a gradient at the start"
ODD: dict[str, tuple[dict[str, object], str]] = {
    "LILY": ({}, "its answer for a row depends on the rows that are computed beside it"),
    "OFT": (
        {"r": 0, "oft_block_size": 4, "coft": True},
        "it changes what is trained while it answers",
    ),
    "PVERA": ({"sample_at_inference": True}, "it answers by chance"),
    "PVERA ": ({"generator_seed": 1}, "it draws random numbers of its own"),
    "TINYLORA": ({"init_weights": False}, "nothing sets tinylora_v.default.0 at the start"),
    "HRA": ({"r": 4, "apply_GS": True}, "its answers at the start follow from rounding"),
    "LORA": ({"lora_alpha": 0}, STAYS),
    "LORA ": ({"lora_dropout": 1.0}, STAYS),
    "LOHA": ({"r": 4, "alpha": 0}, STAYS),
    "LOHA ": ({"r": 4, "module_dropout": 1.0}, STAYS),
    "VERA": ({"r": 8, "d_initial": 0.0}, STAYS),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_adapter_that_learns_nothing_or_answers_from_more_than_its_file_and_text_is_refused(
    kind: str, tiny_llama: Path
) -> None:
    keys, why = ODD[kind]
    arm, base = peft(peft_type=kind.strip(), **keys), describe_base(tiny_llama)
    with pytest.raises(ConfigError, match=f"cannot be an arm, since {why}"):
        measure_arm(arm, base, resolve_arm(arm, base))


def test_an_adapter_that_looks_ahead_is_refused(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = tuners.ia3.Linear.forward

    def look_ahead(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return forward(module, x + x.mean(dim=1, keepdim=True))

    monkeypatch.setattr("peft.tuners.ia3.Linear.forward", look_ahead)
    arm, base = peft(peft_type="IA3"), describe_base(tiny_llama)
    with pytest.raises(ConfigError, match="its answer for a token depends on the tokens after it"):
        measure_arm(arm, base, resolve_arm(arm, base))


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("LOHA", {"r": 4, "module_dropout": 0.9}),
        ("LORA", {"r": 4, "init_lora_weights": "pissa_niter_4"}),
    ],
)
def test_an_adapter_that_seldom_answers_or_takes_its_start_from_the_base_is_an_arm(
    kind: str, keys: dict[str, object], tiny_llama: Path
) -> None:
    arm, base = peft(peft_type=kind, **keys), describe_base(tiny_llama)
    assert measure_arm(arm, base, resolve_arm(arm, base)).trained > 0


@pytest.mark.filterwarnings("ignore:Specified to not")  # PEFT's advice
def test_an_adapter_that_is_read_back_as_another_one_is_refused(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peft.VeraConfig.save_pretrained", save_without("projection_prng_key"))
    arm = peft(peft_type="VERA", r=8, save_projection=False, projection_prng_key=5)
    base = describe_base(tiny_llama)
    with pytest.raises(ConfigError, match="it answers otherwise once its files are read back"):
        measure_arm(arm, base, resolve_arm(arm, base))


def test_a_trial_leaves_random_numbers_and_settings_of_torch_alone_and_is_silent(
    tiny_llama: Path, recwarn: pytest.WarningsRecorder
) -> None:
    base, before = describe_base(tiny_llama), torch.get_rng_state()
    arm = peft(peft_type="HRA", r=3)  # PEFT has advice on an odd rank
    measure_arm(arm, base, resolve_arm(arm, base))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not recwarn.list


def save_without(key: str) -> Callable[[PeftConfig, str], None]:
    def save(config: PeftConfig, folder: str) -> None:
        values = {k: v for k, v in config.to_dict().items() if k != key}
        values["target_modules"] = sorted(values["target_modules"])
        (Path(folder) / "adapter_config.json").write_text(json.dumps(values))

    return save


def test_an_adapter_with_fewer_numbers_than_its_rank_trains_and_is_read_back(
    tiny_llama: Path, tmp_path: Path
) -> None:
    arm = peft(peft_type="UNILORA", r=4, theta_d_length=2)
    assert try_arm(arm, tiny_llama, tmp_path / "best") == Tried(n_trained=2)


def test_lora_of_an_embedding_trains_resumes_and_reloads(tiny_llama: Path, tmp_path: Path) -> None:
    arm = peft(peft_type="LORA", r=4).model_copy(update={"placement": ("model.embed_tokens",)})
    tried = try_arm(arm, tiny_llama, tmp_path / "best")
    assert tried.n_trained, tried.refused


def test_a_method_that_leaves_out_modules_at_random_resumes(
    tiny_llama: Path, tmp_path: Path
) -> None:
    tried = try_arm(peft(peft_type="LOHA", r=4, module_dropout=0.5), tiny_llama, tmp_path / "best")
    assert tried.n_trained, tried.refused


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_breaks_the_base_model_is_refused_before_training(
    start: str, tiny_gpt2: Path
) -> None:
    # PEFT changes the embedding with a tied head, and takes a square Conv1D for a Linear
    place = {"pissa": "output", "olora": "attention-projection"}[start]
    with pytest.raises(ConfigError, match="is not the base model any more"):
        attach(tiny_gpt2, lora(init_lora_weights=start, placement=(place,)))


def inputs_of(network: Any, path: str) -> torch.Tensor:
    """What a module of the base model is given on all training rows, (tokens, in)."""
    seen: list[torch.Tensor] = []
    hook = network.get_submodule(path).register_forward_hook(lambda _, x, __: seen.append(x[0][0]))
    with torch.no_grad():
        for row in read_rows():
            network(input_ids=row[None])
    hook.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("n_least", [256, 12])  # all rows at once, or in several parts
def test_eva_starts_in_the_main_directions_of_inputs_on_training_rows(
    n_least: int, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorastudy.model.starts._PART", n_least)
    arm = lora(init_lora_weights="eva")
    model = attach_anew(tiny_llama, arm)
    path = "model.layers.1.self_attn.q_proj"
    a = model.network.get_submodule(path).lora_A["default"].weight.detach()
    inputs = inputs_of(load_base(tiny_llama, device=CPU), path)
    main = torch.linalg.svd(inputs - inputs.mean(0)).Vh[:4]
    found, most = (torch.linalg.vector_norm((inputs - inputs.mean(0)) @ x.T) for x in (a, main))
    assert found > most * (0.9999 if n_least == 256 else 0.9)
    assert a.shape == (4, 32) and model.n_trained == measure_trained(arm, tiny_llama)


def measure_trained(arm: Arm, folder: Path) -> int:
    base = describe_base(folder)
    return measure_arm(arm, base, resolve_arm(arm, base)).trained


def test_corda_takes_out_what_matters_for_training_rows(tiny_llama: Path) -> None:
    """It leaves less of the outputs on these rows to the frozen weights than PiSSA does."""
    pytest.importorskip("attr")
    path, base = "model.layers.1.self_attn.q_proj", load_base(tiny_llama, device=CPU)
    inputs = inputs_of(base, path)
    left = {}
    for start in ("corda", "pissa"):
        model = attach_anew(tiny_llama, lora(init_lora_weights=start))
        residual = model.network.get_submodule(path).get_base_layer().weight
        left[start] = float(torch.linalg.vector_norm(inputs @ residual.T))
    assert left["corda"] < 0.95 * left["pissa"]


def test_a_start_from_fewer_tokens_than_the_rank_is_refused(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match="48 tokens of training rows are fewer than the rank"):
        attach_anew(tiny_llama, lora(init_lora_weights="eva", rank=50))


def test_lora_plus_scales_the_tensors_that_peft_scales(tiny_llama: Path) -> None:
    model = attach(tiny_llama, lora(use_dora=True))
    assert model.adapter is not None
    trained = model.trained_tensors()
    theirs = create_loraplus_optimizer(
        model.adapter, torch.optim.AdamW, lr=1.0, loraplus_lr_ratio=16.0
    )
    ours = make_optimizer(trained, Optimizer(), scale_rates(trained, 16.0))
    rates = {id(p): group["lr"] for group in theirs.param_groups for p in group["params"]}
    factors = {id(p): group["rate_factor"] for group in ours.param_groups for p in group["params"]}
    assert rates == factors
    assert set(factors.values()) == {1.0, 16.0}


def test_pissa_is_stored_as_lora_of_twice_the_rank_on_the_original_base(
    folder: Path, tmp_path: Path
) -> None:
    arm = lora(init_lora_weights="pissa", use_rslora=True)
    model = attach(folder, arm)
    model.save(tmp_path)
    config = LoraConfig.from_pretrained(str(tmp_path))
    assert (config.r, config.init_lora_weights) == (2 * 4, True)
    # untrained, it is the base model: what was taken out comes back
    expected = logits_of(load_base(folder, device=CPU))
    read = load_adapter(load_base(folder, device=CPU), tmp_path).network
    torch.testing.assert_close(logits_of(read), expected, rtol=1e-5, atol=1e-4)


def test_rows_that_are_not_adapted_stay_as_they_were(tiny_gpt2: Path) -> None:
    arm = lora(placement=("query", "value"))
    model = attach(tiny_gpt2, arm)
    assert model.n_trained == 2 * 2 * 4 * (32 + 32)  # layers, parts, rank, in and out features
    b = model.network.get_submodule("transformer.h.0.attn.c_attn").lora_B["default"].weight
    optimizer = make_optimizer(model.trained_tensors(), Optimizer(weight_decay=0.1))
    optimizer.param_groups[0]["lr"] = 0.1
    for _ in range(3):
        model.network(input_ids=torch.arange(40, 60)[None]).logits.square().mean().backward()
        optimizer.step()
    moved = b.detach() != 0  # (96, 8): rows of queries, keys, values; columns of two parts
    expected = torch.zeros(96, 8, dtype=torch.bool)
    expected[:32, :4] = expected[64:, 4:] = True
    assert torch.equal(moved, expected)
    assert model.network.get_submodule("transformer.h.0.attn.c_attn").scaling["default"] == 2.0
