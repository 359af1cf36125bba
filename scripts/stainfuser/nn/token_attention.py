"""Cross-attention to a weighted set of tokens.

n equal tokens in a softmax count as one of them whose logit is raised by log n. A context that was
summarised by cluster centroids is therefore exact in the limit of tight clusters when the log of
the cluster sizes is added to the attention's logits.
"""

from __future__ import annotations

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor


class WeightedTokenProcessor(AttnProcessor2_0):
    """Stock scaled dot-product attention that adds `token_bias` (N, 1, K) to cross logits.

    Pass the bias with ``cross_attention_kwargs={"token_bias": bias}``; without it, and in
    self-attention, the arithmetic is that of `AttnProcessor2_0`.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        token_bias: Tensor | None = None,
    ) -> Tensor:
        """(N, L, C) queries, (N, K, C) tokens → (N, L, C)."""
        if encoder_hidden_states is not None and token_bias is not None:
            attention_mask = token_bias.to(hidden_states.dtype)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
