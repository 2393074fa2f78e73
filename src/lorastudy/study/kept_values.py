"""How many numbers layers and adapters keep per position from forward to backward, by family."""

from dataclasses import dataclass

from lorastudy.model.base import BaseDescription
from lorastudy.model.placement import LinearModule, ResolvedPlacement


@dataclass(frozen=True, slots=True)
class _Kept:
    """Numbers that a layer keeps per position: multiples of hidden and of inner widths."""

    hidden: float
    inner: float  # the width between the two maps of the MLP
    trained_hidden: float  # more, where linear weights are trained
    trained_inner: float


# By implementation and family, counted with torch's hooks on saved tensors. A gated MLP keeps its
# gate before and after its activation, and what the gate multiplies; GPT-2's written-out GELU keeps
# four arrays.
_KEPT = {
    ("fast", "gpt2"): _Kept(6, 1, 1.5, 0),
    ("fast", "opt"): _Kept(5.5, 1, 1, 0),
    ("fast", "gated"): _Kept(5.2, 3, 5.3, 1),
    ("fast", "plain"): _Kept(6, 1, 1, 1),
    ("reference", "gpt2"): _Kept(8, 4, 5, 0.25),
    ("reference", "opt"): _Kept(7.6, 1, 2.8, 0),
    ("reference", "gated"): _Kept(4, 3, 5, 1),
    ("reference", "plain"): _Kept(6.5, 1, 3.7, 1),
}


def count_kept(base: BaseDescription, trained_parameters: int, *, is_fast: bool) -> int:
    """Numbers that all layers keep per position."""
    inner = max(
        (module.in_features for module in base.linear_modules if not module.is_output),
        default=4 * base.hidden_size,
    )
    widening = [m for m in base.linear_modules if m.out_features == inner and not m.is_output]
    form = "gated" if len(widening) >= 2 * base.n_layers else "plain"
    implementation = "fast" if is_fast else "reference"
    kept = _KEPT.get((implementation, base.model_type), _KEPT[implementation, form])
    is_trained = trained_parameters == base.total_parameters
    hidden = kept.hidden + kept.trained_hidden * is_trained
    return round(
        base.n_layers
        * (hidden * base.hidden_size + (kept.inner + kept.trained_inner * is_trained) * inner)
    )


_LAST_OF_BLOCK = ("o_proj", "out_proj", "c_proj", "dense", "down_proj", "fc2", "w2", "wo")


def count_distinct_inputs(placement: ResolvedPlacement) -> int:
    """Features of the inputs of all adapted modules, those that modules share counted once.

    Queries, keys and values read one tensor, and so do the two widening maps of a gated MLP.
    """
    inputs = {name_input(target): target.in_features for target in placement.targets}
    return sum(inputs.values())


def name_input(module: LinearModule) -> tuple[str, int]:
    """A name of what a linear module reads; modules that read one tensor have the same."""
    parent, _, name = module.path.rpartition(".")
    is_last = name.endswith(_LAST_OF_BLOCK) or "4h_to_h" in name
    return module.path if is_last or module.is_output else parent, module.in_features
