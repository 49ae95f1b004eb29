"""The image classifier that starts as zero-shot CLIP: an image encoder and a linear head initialised from text.

RegFT (Park et al. 2024, section 3) and WiSE-FT (Wortsman et al. 2021, section 2) train this classifier end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from gen2real.errors import ModelError
from gen2real.models.dual_encoder import DualEncoder


def text_head(
    encoder: DualEncoder, prompts: Sequence[Sequence[str]], *, batch_size: int = 256
) -> Float[Tensor, "classes dim"]:
    """The zero-shot classifier's weight: row c = exp(logit_scale) · t_c, on the encoder's device, float32.

    t_c = normalise(mean over the prompts of class c of normalise(encode_text(prompt))), so a row's norm is the logit
    scale. Each distinct prompt is encoded once, without gradients, and two classes with the same prompts
    share one row's value.

    Args:
        prompts: one list of prompts a class, none empty; `gen2real.prompts.prompts_for` makes them.
        batch_size: prompts encoded at a time.

    Raises: ModelError where a class has no prompt.
    """
    if empty := [index for index, of_class in enumerate(prompts) if not of_class]:
        raise ModelError(f"the class(es) at position(s) {empty} have no prompt; give each class at least one.")
    row_of = {prompt: row for row, prompt in enumerate(dict.fromkeys(p for of_class in prompts for p in of_class))}
    distinct = list(row_of)
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            batches = [
                encoder.encode_text(distinct[start : start + batch_size])
                for start in range(0, len(distinct), batch_size)
            ]
            embeddings = functional.normalize(torch.cat(batches).float(), dim=-1)
            means = [embeddings[[row_of[prompt] for prompt in of_class]].mean(dim=0) for of_class in prompts]
            return encoder.logit_scale.detach().float().exp() * functional.normalize(torch.stack(means), dim=-1)
    finally:
        encoder.train(was_training)


class TextInitialisedClassifier(nn.Module):
    """logits = head(normalise(f − feature_mean)), where f = vision(pixels) is not normalised.

    Everything learned or measured is in the state dict (`vision.*`, `head.weight`, `head.bias`, `feature_mean`), so
    that a weight-space ensemble covers all of it: RegFT interpolates every key, head and bias included.

    Args:
        vision: pixels [N 3 S S] → un-normalised embeddings [N D]; it is held, not copied. `nn.Identity()` makes a
            classifier of stored embeddings.
        weight: [C D], usually `text_head(...)`; it is copied.
        bias: [C]; zeros where None.
        feature_mean: [D]; subtracted before normalising. Zeros where None: plain CLIP.
    """

    feature_mean: Tensor

    def __init__(
        self,
        vision: nn.Module,
        weight: Float[Tensor, "classes dim"],
        bias: Float[Tensor, " classes"] | None = None,
        *,
        feature_mean: Float[Tensor, " dim"] | None = None,
    ) -> None:
        super().__init__()
        classes, dim = weight.shape
        self.vision = vision
        self.head = nn.Linear(dim, classes, device="meta").to_empty(device=weight.device).float()
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(weight.new_zeros(classes) if bias is None else bias)
        mean = weight.new_zeros(dim) if feature_mean is None else feature_mean
        self.register_buffer("feature_mean", mean.detach().float().clone())

    def forward(
        self, pixels: Float[Tensor, "n ..."], generated: Bool[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n dim"]]:
        """Logits and the raw image embeddings f: regularisers take f from here, never from an attribute.

        Args:
            generated: which pictures are generated ones, where `vision` is a `TwoBranches` and wants to know.
        """
        features = self.vision(pixels) if generated is None else self.vision(pixels, generated)
        return self.classify_features(features), features

    def classify_features(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        """Logits of raw embeddings [N D]. The feature is normalised in float32; a zero vector stays zero."""
        direction = functional.normalize(features.float() - self.feature_mean, dim=-1)
        return self.head(direction).float()
