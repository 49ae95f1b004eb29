"""A multimodal model's last hidden states, and the logits that follow from them, from one forward pass."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gen2real.errors import ModelError
from gen2real.models.multimodal import MultimodalModel

# Settings of decoders that change logits after the output layer; none of the models here has them.
_AFTERWARDS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def hidden_states(model: MultimodalModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """[N L D]: the last ones, just before the output layer, where a gradient goes as usual.

    Args:
        inputs: the model's, such as `Sequences.inputs`.
    """
    found: Tensor = model.model.base_model(**inputs, use_cache=False)[0]
    return found


def next_token_logits(model: MultimodalModel, hidden: Tensor) -> Tensor:
    """[… V]: logits from some of `hidden_states` [… D], as the model's own forward pass gives them.

    Raises: ModelError for a model that changes its logits after the output layer.
    """
    config = model.model.config.get_text_config()
    if changed := [name for name in _AFTERWARDS if getattr(config, name, None) not in (None, 1.0)]:
        raise ModelError(
            f"{model.name} changes its logits after its output layer ({', '.join(changed)}), which is not supported "
            "here; give a model of the LLaVA, Idefics3, SmolVLM or Qwen-VL families."
        )
    logits: Tensor = model.model.get_output_embeddings()(hidden)
    return logits
