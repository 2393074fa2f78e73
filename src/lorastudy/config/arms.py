"""An arm of a study: its method, where it applies, and its hyperparameters.

Checked here: which keys a method has, and which values fit together. Names of modules, and the
keys of PEFT's methods, are checked in `model`, where a model and PEFT are known.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from lorastudy.config.arm_values import (
    Alpha,
    AlphaPattern,
    Budget,
    Layers,
    PeftKeys,
    Positive,
    RankPattern,
    StartName,
    multiple_of_rank,
)
from lorastudy.config.sources import StoredWeights
from lorastudy.config.syntax import (
    Count,
    IfAny,
    LearningRate,
    Mistake,
    Name,
    PlacementEntry,
    StudyModel,
    refuse,
    repeated,
)

Method = Literal[
    "baseline", "full", "lora", "peft", "head", "bitfit", "layer-norms", "last-layers", "elsewhere"
]  # fmt: skip
BaseWeights = Literal["float32", "bfloat16", "int8", "nf4", "nf4-double"]
TrainedWeights = Literal["float32", "bfloat16-stochastic"]
_FLOAT32 = Field(exclude_if=lambda weights: weights == "float32")
KEEPS_BASE = (True, "gaussian", "eva", "loftq")  # starts that never change base weights
ADAPTER_METHODS: tuple[Method, ...] = ("lora", "peft")  # the others train the model's own weights

_RATE, _HELD = ("learning_rates",), ("base_weights",)
_PLACED = ("placement", "layers", "allow_tied")
_LORA = (
    *("rank", "budget", "alpha", "dropout", "rank_pattern", "alpha_pattern"),
    *("use_rslora", "use_dora", "init_lora_weights", "loraplus_lr_ratio"),
)
# The keys of each method besides its name: those that it needs, and all that it may have.
_NEEDED: dict[Method, tuple[str, ...]] = {
    "baseline": (),
    "full": _RATE,
    "lora": ("placement", "rank", "alpha", *_RATE),
    "peft": ("peft", "placement", *_RATE),
    "head": _RATE,
    "bitfit": _RATE,
    "layer-norms": _RATE,
    "last-layers": ("layers", *_RATE),
    "elsewhere": ("weights",),
}
_ALLOWED: dict[Method, tuple[str, ...]] = {
    "baseline": _HELD,
    "full": ("trained_weights", *_RATE),
    "lora": (*_PLACED, *_LORA, *_HELD, *_RATE),
    "peft": ("peft", *_PLACED, *_HELD, *_RATE),
    "head": _RATE,
    "bitfit": ("layers", *_RATE),
    "layer-norms": ("layers", *_RATE),
    "last-layers": ("layers", *_RATE),
    "elsewhere": ("weights",),
}


class Arm(StudyModel):
    """One side of the comparison: a method, where it applies, and its hyperparameters."""

    name: Name
    """Used in tables and folder names."""
    method: Method
    """baseline trains nothing, full every parameter, lora adapters; for the others see methods."""
    placement: tuple[PlacementEntry, ...] = ()
    """Layer types or dotted module patterns that receive an adapter; for lora and peft."""
    layers: IfAny[Layers | None] = None
    """Only these layers, counted from 0: 3, 0-5 or last-4; null: all of them."""
    rank: Count | None = None
    """r of LoRA (arXiv:2106.09685, section 4.1)."""
    budget: IfAny[Budget | None] = None
    """Instead of rank: the largest rank with at most this many trainable parameters, as 1.6M."""
    alpha: Alpha | None = None
    """The adapter's output is scaled by alpha / rank; 2r: twice the rank, whatever it is."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input; lora only."""
    rank_pattern: IfAny[RankPattern | None] = None
    """Ranks of some modules, by layer types or patterns of the placement; lora only."""
    alpha_pattern: IfAny[AlphaPattern | None] = None
    """Alphas of some modules, by layer types or patterns of the placement; lora only."""
    use_rslora: IfAny[bool] = False
    """Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732); lora only."""
    use_dora: IfAny[bool] = False
    """Train the length of every output's weights by itself (DoRA, arXiv:2402.09353); lora only."""
    init_lora_weights: Annotated[StartName, Field(exclude_if=lambda start: start is True)] = True
    """Initial values by PEFT's name, such as gaussian or pissa; true: B is zero; lora only."""
    loraplus_lr_ratio: IfAny[Positive | None] = None
    """The learning rate of B is this many times that of A (LoRA+, arXiv:2402.12354); lora only."""
    peft: IfAny[PeftKeys | None] = None
    """peft_type and the keys of its configuration in PEFT, such as {peft_type: VERA, r: 64}."""
    allow_tied: bool = False
    """Allow an adapter on an output layer that shares its weight with the embedding."""
    base_weights: Annotated[BaseWeights, _FLOAT32] = "float32"  # which does not enter identities
    """Number format that the base's frozen weights are held in; packed ones need bitsandbytes."""
    trained_weights: Annotated[TrainedWeights, _FLOAT32] = "float32"
    """bfloat16-stochastic: weights in bfloat16, rounded stochastically after a step; full only."""
    weights: IfAny[tuple[StoredWeights, ...]] = ()
    """Of elsewhere, which `lorastudy compare` writes: the models that it scores, one per seed."""
    learning_rates: tuple[LearningRate, ...] = ()
    """Peak learning rates to try, one run each; required unless the method is baseline."""

    @property
    def trains_adapter(self) -> bool:
        """Whether the arm's weights are an adapter beside the base model."""
        return self.method in ADAPTER_METHODS

    @property
    def held_weights(self) -> BaseWeights:
        """Number format that the weights of the base model are held in, trained or not."""
        return self.base_weights if self.trained_weights == "float32" else "bfloat16"

    @property
    def has_plain_start(self) -> bool:
        """Whether its adapters are LoRA's, and begin with LoRA's usual values."""
        return self.method == "lora" and self.init_lora_weights is True

    def alpha_at(self, rank: int) -> float:
        """LoRA's alpha at a rank."""
        assert self.alpha is not None
        if isinstance(self.alpha, str):
            return multiple_of_rank(self.alpha) * rank
        return self.alpha

    @model_validator(mode="after")
    def _check(self) -> Self:
        mistakes = [(key, self._why_surplus(key)) for key in self._surplus()]
        mistakes += [(key, f"is required for method {self.method}") for key in self._missing()]
        for key in ("placement", "learning_rates"):
            mistakes += repeated(key, getattr(self, key))
        refuse(mistakes or self._conflicts())
        return self

    def _surplus(self) -> list[str]:
        known = {"name", "method", *_ALLOWED[self.method]}
        return [
            key
            for key, field in type(self).model_fields.items()
            if key not in known and getattr(self, key) != field.default
        ]

    def _why_surplus(self, key: str) -> str:
        if key != "base_weights":
            return f"does not apply to method {self.method}"
        what = "all of them" if self.method == "full" else "some of them"
        return (
            f"{self.base_weights} is for weights that are not trained, and method {self.method} "
            f"trains {what}. Leave the key out; for method full, trained_weights: "
            "bfloat16-stochastic holds trained weights in bfloat16, and training.precision: "
            "bfloat16 computes in bfloat16 from float32 weights"
        )

    def _missing(self) -> list[str]:
        by_budget = {"rank"} if self.budget is not None else set()
        needed = [key for key in _NEEDED[self.method] if key not in by_budget]
        return [key for key in needed if not getattr(self, key)]

    def _conflicts(self) -> list[Mistake]:
        """Keys that are right by themselves, but not together."""
        found: list[Mistake] = []
        if self.budget is not None and self.rank is not None:
            found.append(("budget", "chooses the rank; leave out rank, or give no budget"))
        if self.budget is not None and self.rank_pattern:
            found.append(("budget", "chooses one rank for all modules; leave out rank_pattern"))
        if self.base_weights != "float32" and self.init_lora_weights not in KEEPS_BASE:
            what = f"{self.init_lora_weights} may change base weights, which are held as they are"
            found.append(("init_lora_weights", f"{what}; leave it out, or base_weights"))
        if self.method == "last-layers" and not (self.layers or "").startswith("last-"):
            found.append(("layers", f"{self.layers!r} are not the last layers; write last-2"))
        if self.method == "peft" and not isinstance((self.peft or {}).get("peft_type"), str):
            found.append(("peft.peft_type", "is required: a method of PEFT, such as VERA"))
        return found


def mistakes_of_elsewhere(arms: Sequence[Arm], *, is_elsewhere: bool) -> list[Mistake]:
    """Arms that are trained here beside those that were trained elsewhere, which share nothing."""
    what = (
        "is for arms that are trained here, and data.train is elsewhere"
        if is_elsewhere
        else "is written by `lorastudy compare`, which scores models that were trained elsewhere; "
        "arms of a study file are trained here"
    )
    return [
        (f"arms.{i}.method", f"{arm.method} {what}")
        for i, arm in enumerate(arms)
        if arm.method != "baseline" and (arm.method == "elsewhere") != is_elsewhere
    ]


assert _NEEDED.keys() == _ALLOWED.keys() == set(get_args(Method))
