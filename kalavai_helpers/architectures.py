"""Architectures: where a decoder keeps its parts, and how its blocks are run one by one.

Fusion needs to run some blocks once and others once a specialist, with or without a cache. What
differs between families of models is in one :class:`Architecture` each; the rest is common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.cache_utils import Cache

_MASKS = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
}


@dataclass(frozen=True)
class Architecture:
    """Names that a family of decoders gives to its parts.

    Parameters
    ----------
    body, embed, norm
        The decoder inside the language model; in it, the input embedding and the final norm.
    attention, past
        The attention of a block, and the argument by which a block takes its cache.
    """

    body: str
    embed: str
    norm: str
    attention: str
    past: str

    def split(
        self, model: PreTrainedModel, frozen_layers: int, *, shared_embedding: bool = True
    ) -> tuple[torch.nn.ModuleDict, torch.nn.ModuleDict]:
        """Trunk (what all specialists share) and branch (what one of them owns) of a model.

        A head that is tied to the input embedding is no part of its own: see :func:`tied`.
        """
        body = getattr(model, self.body)
        trunk = {"layers": body.layers[:frozen_layers]}
        branch = {"layers": body.layers[frozen_layers:], "norm": getattr(body, self.norm)}
        if not tied(model.config):
            branch["head"] = model.get_output_embeddings()
        (trunk if shared_embedding else branch)["embed"] = getattr(body, self.embed)
        return torch.nn.ModuleDict(trunk), torch.nn.ModuleDict(branch)

    def rotary(self, model: PreTrainedModel) -> torch.nn.Module:
        """The module that turns positions into rotary embeddings."""
        return getattr(model, self.body).rotary_emb

    def renumber(self, layers: Sequence[torch.nn.Module]) -> None:
        """Number blocks from 0, as the cache of their part does."""
        for index, layer in enumerate(layers):
            getattr(layer, self.attention).layer_idx = index

    def run(
        self,
        layers: Sequence[torch.nn.Module],
        hidden: torch.Tensor,
        types: Sequence[str],
        masks: dict[str, torch.Tensor | None],
        positions: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Apply blocks to hidden states (B, T, d), without the final norm.

        The decoder's own ``forward`` always ends with the final norm, so that a trunk run through
        it would be wrong for the blocks above; the published sparse inference has that fault.
        """
        past = {} if cache is None else {self.past: cache, "use_cache": True}
        for layer, kind in zip(layers, types, strict=True):
            hidden = layer(
                hidden,
                attention_mask=masks[kind],
                position_ids=positions,
                position_embeddings=rotary,
                **past,
            )
        return hidden


_LLAMA = Architecture("model", "embed_tokens", "norm", "self_attn", "past_key_values")
ARCHITECTURES = {
    "gpt_neox": Architecture("gpt_neox", "embed_in", "final_layer_norm", "attention", "layer_past"),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


def of(config: PretrainedConfig) -> Architecture:
    """Architecture of a model, by its configuration.

    Raises
    ------
    ValueError
        For a family that fusion does not know; those it knows are listed.
    """
    if config.model_type not in ARCHITECTURES:
        raise ValueError(
            f"Models of type {config.model_type!r} cannot be fused: "
            f"choose one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[config.model_type]


def tied(config: PretrainedConfig) -> bool:
    """Whether the output head is the transposed input embedding."""
    return bool(getattr(config, "tie_word_embeddings", False))


def layer_types(config: PretrainedConfig) -> list[str]:
    """Kind of attention of every block: full, or sliding window.

    Raises
    ------
    ValueError
        For a kind that fusion does not know.
    """
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    unknown = sorted(set(types) - set(_MASKS))
    if unknown:
        raise ValueError(
            f"Attention of type {unknown[0]!r} cannot be fused: use {', '.join(_MASKS)}"
        )
    return list(types)


def masks(
    config: PretrainedConfig,
    types: Sequence[str],
    states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    positions: torch.Tensor | None,
    cache: Cache | None,
) -> dict[str, torch.Tensor | None]:
    """Attention mask for each kind of attention among ``types``.

    ``states`` (B, T, d) give shape and dtype of the queries; the cache says how many keys there
    are before them; ``attention_mask`` (B, keys) is false on padding.
    """
    return {
        kind: _MASKS[kind](
            config=config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=positions,
        )
        for kind in set(types)
    }
