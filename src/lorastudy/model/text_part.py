"""The part of a model that reads text: all of it, or the language model of a composite one.

A composite model (`...ForConditionalGeneration`) has towers for images or sound beside its language
model. They do nothing for text, so they are not loaded. What is left keeps its class and the paths
of its modules, so adapters fit the composite model as they are. A whole model is written with the
tensors that were left out.
"""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING


def is_composite(config: PretrainedConfig) -> bool:
    """Whether a configuration describes a language model with further parts beside it."""
    return (
        type(config) in MODEL_FOR_MULTIMODAL_LM_MAPPING and config.get_text_config() is not config
    )


def find_body(network: PreTrainedModel) -> PreTrainedModel:
    """The module that makes hidden states of token ids, under the output layer."""
    text = _find_text(network)
    body = getattr(text, text.base_model_prefix, text)
    return body if isinstance(body, PreTrainedModel) else text


def path_of(network: nn.Module, wanted: nn.Module) -> str:
    """The path of a module in `network`."""
    paths: dict[int, str] = {id(module): path for path, module in network.named_modules()}
    return paths[id(wanted)]


def leave_out_other_parts(network: PreTrainedModel) -> None:
    """Take out of a composite model what text does not pass through, in place."""
    if is_composite(network.config):
        keep_only(network, {_find_text(network), network.get_output_embeddings()})


def leave_out_text(network: PreTrainedModel) -> None:
    """Take out of a composite model what `leave_out_other_parts` keeps, in place."""
    kept = (_find_text(network), network.get_output_embeddings())  # the second may be in the first
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in kept:
                setattr(parent, name, None)
    _forget_lost_ties(network)


def _find_text(network: PreTrainedModel) -> PreTrainedModel:
    """`network` itself, or the outermost module of a composite one with its text configuration."""
    if not is_composite(network.config):
        return network
    text = type(network.config.get_text_config())
    return next(
        module
        for module in network.modules()
        if isinstance(module, PreTrainedModel) and type(module.config) is text
    )


def _forget_lost_ties(network: PreTrainedModel) -> None:
    """Tell transformers that no weight is shared with one that was taken out."""
    names = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    network.all_tied_weights_keys = {
        name: owner
        for name, owner in network.all_tied_weights_keys.items()
        if names.issuperset((name, owner))
    }


def keep_only(network: PreTrainedModel, kept: set[nn.Module]) -> None:
    """Take every part out of `network` that is not in `kept` or around it, in place."""
    _take_out(network, kept)
    _forget_lost_ties(network)


def _take_out(module: nn.Module, kept: set[nn.Module]) -> None:
    module._parameters.clear()
    setattr(module, "_is_hf_initialized", True)  # noqa: B010  transformers need not fill anything
    for name, child in list(module.named_children()):
        if child in kept:
            continue
        if kept.isdisjoint(child.modules()):
            setattr(module, name, None)
        else:
            _take_out(child, kept)
