"""An arm's method and place in plain words, for reports, cards and messages."""

from lorastudy.config.arms import Arm

_OWN_WEIGHTS = {
    "baseline": "the base model",
    "full": "full fine-tuning",
    "head": "the output layer alone",
    "bitfit": "all biases (BitFit)",
    "layer-norms": "all normalisation layers",
    "elsewhere": "trained elsewhere",
}


def name_method(arm: Arm) -> str:
    """The method in a few words: "LoRA", "rsLoRA", "DoRA started with pissa", "PEFT's VERA"."""
    if arm.method == "peft":
        return f"PEFT's {(arm.peft or {}).get('peft_type')}"
    if arm.method == "last-layers":
        n_layers = (arm.layers or "").removeprefix("last-")
        return "the last layer" if n_layers == "1" else f"the last {n_layers} layers"
    if arm.method != "lora":
        return _OWN_WEIGHTS[arm.method]
    name = "DoRA" if arm.use_dora else "LoRA"
    if arm.use_rslora:
        name = f"rs{name}"
    if arm.loraplus_lr_ratio is not None:
        name += "+"
    return name if arm.init_lora_weights is True else f"{name} started with {arm.init_lora_weights}"


def list_places(arm: Arm) -> tuple[str, ...]:
    """Where the arm trains, as the study file says it; empty if that is the whole model."""
    layers = (f"layers {arm.layers}",) if arm.layers and arm.method != "last-layers" else ()
    return (*arm.placement, *layers)


def list_settings(arm: Arm) -> tuple[str, ...]:
    """What else was set, in the order of the keys: "rank 16", "alpha 32", "dropout 0.1"."""
    said: list[str] = []
    if arm.method == "lora":
        by_budget = f"the largest rank within {arm.budget:,} parameters" if arm.budget else ""
        said += [by_budget or f"rank {arm.rank}", f"alpha {write_alpha(arm)}"]
        said.append(f"dropout {arm.dropout:g}")
        said += [f"rank {v} at {k}" for k, v in (arm.rank_pattern or {}).items()]
        said += [f"alpha {v:g} at {k}" for k, v in (arm.alpha_pattern or {}).items()]
        if arm.loraplus_lr_ratio is not None:
            said.append(f"{arm.loraplus_lr_ratio:g} times the learning rate for B")
    if arm.trained_weights != "float32":
        said.append("weights in bfloat16, rounded stochastically")
    said += [f"{k} {v}" for k, v in (arm.peft or {}).items() if k != "peft_type"]
    return tuple(said)


def write_alpha(arm: Arm) -> str:
    """Alpha as the study file has it: "32", or "2r" where it follows the rank."""
    return f"{arm.alpha:g}" if isinstance(arm.alpha, float) else f"{arm.alpha}"
