"""Mixtures of experts, whose experts PEFT adapts as tensors, under names that modules have.

transformers holds the experts of a layer in one tensor of three dimensions, where earlier versions
had a module for each. PEFT translates the names of these modules for LoRA: on such a model, its
`all-linear`, and every target that ends with a name such as `down_proj`, also mean the tensors of
experts and routers. Arms adapt modules only, so what PEFT would translate is refused.
"""

import copy
from collections.abc import Sequence

from peft import PeftConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel

from lorastudy.config.models import Arm
from lorastudy.errors import ConfigError, show_names
from lorastudy.model.linear_modules import list_linear_modules
from lorastudy.model.placement import ALL_LINEAR, summarise


def refuse_experts(
    network: PreTrainedModel, config: PeftConfig, arm: Arm, paths: Sequence[str]
) -> None:
    """Check that PEFT takes the modules at `paths`, which `arm` adapts, for modules and no more.

    Raises:
        ConfigError: It also means tensors of experts; the message says which modules can be named.
    """
    modules, whole = copy.deepcopy(config), copy.deepcopy(config)
    linear = [module.path for module in list_linear_modules(network)]
    modules.target_modules = {*linear, *paths}  # type: ignore[attr-defined]
    whole.target_modules = ALL_LINEAR  # type: ignore[attr-defined]
    for each in (modules, whole):
        convert_peft_config_for_transformers(each, network, None)
    kept: set[str] = modules.target_modules  # type: ignore[attr-defined]
    tensors = getattr(whole, "target_parameters", None)
    is_whole = ALL_LINEAR in arm.placement
    if tensors and (is_whole or not kept.issuperset(paths)):
        what = ALL_LINEAR if is_whole else show_names(sorted({*paths} - kept), most=2)
        raise ConfigError(
            f"placement of arm {arm.name!r}: on this model, {what} also means tensors of experts "
            f"and routers to PEFT ({show_names(sorted(tensors))}), and adapters are in modules "
            f"here. Use patterns of {summarise(path for path in linear if path in kept)}."
        )
