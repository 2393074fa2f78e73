"""Write docs/methods.md: what every method of the installed PEFT does as an arm, tried one by one.

./run python tools/describe_methods.py > docs/methods.md

Each method is trained, resumed, stored and loaded again on a tiny GPT-2 and a tiny Llama, by the
code of tests/model/test_methods.py.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEAD = """\
# Methods

An arm says by `method` what it trains, and by `placement` where.

```yaml
arms:
  - {name: baseline, method: baseline}                                # nothing
  - {name: full, method: full, learning_rates: [1.0e-4]}              # every parameter
  - name: lora
    method: lora
    placement: [attention]
    rank: 16
    alpha: 32
    learning_rates: [1.0e-3]
  - name: vera
    method: peft
    peft: {peft_type: VERA, r: 64}
    placement: [attention]
    learning_rates: [1.0e-2]
  - {name: head, method: head, learning_rates: [1.0e-3]}              # the output layer alone
  - {name: biases, method: bitfit, learning_rates: [1.0e-3]}          # all biases
  - {name: norms, method: layer-norms, learning_rates: [1.0e-3]}      # all normalisation layers
  - {name: top, method: last-layers, layers: last-2, learning_rates: [1.0e-4]}
```

`head`, `bitfit`, `layer-norms` and `last-layers` train weights of the base model itself. Their best
epoch is stored as a whole model, as that of `full`. A head that shares its weight with the
embedding gets a weight of its own, so that the embedding stays as it is.

## LoRA and its variants

`method: lora` is LoRA as PEFT computes it. These keys change it:

| key | does |
|---|---|
| `use_rslora: true` | scales by alpha / sqrt(rank) (rsLoRA) |
| `use_dora: true` | trains the length of every output's weights by itself (DoRA) |
| `init_lora_weights: NAME` | starts from other values, such as `gaussian`, `pissa` or `eva` |
| `loraplus_lr_ratio: 16` | trains B at 16 times the learning rate of A (LoRA+) |
| `rank_pattern`, `alpha_pattern` | sets ranks and alphas of some modules: `{feed-forward: 8}` |
| `budget: 1.6M` | chooses the largest rank with at most this many trained parameters |
| `alpha: 2r` | is twice the rank, whatever the rank is; a number stays as it is |

PiSSA, OLoRA and CorDA take their initial values out of the base weights. Their adapters are stored
as plain LoRA of twice the rank for the original base model, so other programs load them as usual.
EVA and CorDA run the base model on the first 256 training rows, in the order of the run's seed. EVA
is used with PEFT's `rho: 1`, which leaves every module its rank, and CorDA in its mode `ipm`. Both
are computed on the CPU, and again when a run resumes. Weight decay is the same for A and B, also
with LoRA+.

`loftq` needs `base_weights: nf4`, `nf4-double` or `int8`. The adapter begins as the best correction
of what packing has lost, for the scale alpha / rank. The base stays as `base_weights` packs it, so
others load the adapter on the packed base. This is LoftQ with one iteration, as PEFT has it for
GPUs. It computes a singular value decomposition of every adapted weight when a run starts, which
takes minutes for a large model on a CPU.

## Placement

`placement` lists layer types or patterns ([Own data and model](own-data.md#another-model)). There
are also:

- `all-linear` is every linear module but the output layer, as in PEFT. In some mixtures of experts,
  PEFT also means the tensors of experts and routers by it. There it is refused, and the message
  lists the patterns to use.
- `query`, `key` and `value` are these three by themselves. Where a model computes them in one
  module, LoRA's B is trained in their rows only and stays zero elsewhere. Every part has its own A.
- `layers: 0-5`, `layers: last-4` or `layers: 7` keeps the modules of these layers. Layers count
  from 0.

With equal `budget`s, placements of different size are compared at about equal numbers of trained
parameters. `lorastudy check` and the report print the ranks that were chosen.

## Methods of PEFT

`method: peft` takes any other method by PEFT's own name. The keys beside `peft_type` are those of
PEFT's configuration class, and are read from it: an unknown key or a wrong type is refused, and the
message lists what is allowed. `placement` and `layers` say where the adapter goes, not
`target_modules`. A key that names modules, such as IA3's `feedforward_modules`, takes layer types
and patterns as well.

The table says what PEFT {version} does here. Every method was trained, resumed bit for bit, stored,
and loaded by `PeftModel.from_pretrained` with equal logits, or refused before training. GPT-2 has
Conv1D modules, which many methods do not know; Llama has Linear modules.

| method | GPT-2 | Llama |
|---|---|---|
"""
FOOT = """
LN_TUNING takes normalisation layers (`placement: [model.layers.*.input_layernorm]`), and
TRAINABLE_TOKENS the embedding of a model whose head has a weight of its own. The tiny models share
this weight. (`tools/describe_methods.py` writes this page.)
"""


def describe_page(kinds: tuple[str, ...], try_method: Callable[[str, str], Any]) -> str:
    """The whole page; `try_method` gives what became of a method on a tiny model."""
    import peft

    rows = [
        f"| {kind} | {_say(try_method(kind, 'tiny_gpt2'))} "
        f"| {_say(try_method(kind, 'tiny_llama'))} |\n"
        for kind in kinds
    ]
    return HEAD.replace("{version}", peft.__version__) + "".join(rows) + FOOT


def _say(tried: Any) -> str:
    if tried.refused is None:
        return "yes"
    reason = re.sub(r"^arm '\w+': PEFT's \w+ ", "", tried.refused)
    reason = re.sub(r" Choose .*$", "", reason).replace("\n", " ").rstrip(".")
    for begin in ("cannot be an arm, since ", "cannot adapt these modules: "):
        reason = reason.removeprefix(begin)
    if "Conv1D" in reason:  # PEFT says so in as many ways as there are methods
        reason = "it does not take Conv1D modules"
    return f"no: {reason.replace('|', '/')}"


def main() -> None:
    """Try every method and print the page."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import torch

    from support.methods import KINDS, arm_of, try_arm
    from support.tiny_models import save_tiny_gpt2, save_tiny_llama

    torch.set_num_threads(1)  # tiny matrices gain nothing from more
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folders = {
            "tiny_gpt2": save_tiny_gpt2(root / "gpt2"),
            "tiny_llama": save_tiny_llama(root / "llama"),
        }
        print(
            describe_page(
                KINDS,
                lambda kind, layout: try_arm(
                    arm_of(kind, layout), folders[layout], root / kind / layout
                ),
            ),
            end="",
        )


if __name__ == "__main__":
    main()
