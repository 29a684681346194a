"""The size of a fused model: parameters, multiplications and memory, counted from its shape.

Nothing is timed and no weights are needed: the model is built without memory. What it takes in
seconds is measured by :mod:`kalavai_helpers.bench`, on the models of this book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch

from . import architectures

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from .tiers import Tier

SMOLLM2_135M = {"model_type": "llama", "intermediate_size": 1536, "num_key_value_heads": 3}
"""What a tier does not say of the shape of HuggingFaceTB/SmolLM2-135M (its config.json): its base
has a head that is tied to the embedding."""


@dataclass(frozen=True)
class Size:
    """Parts of a fused model.

    Attributes
    ----------
    trunk, branch, head
        Parameters: of what is held once, of what each specialist adds, and of the matrix that turns
        states into logits; where it is tied to the embedding, it is a part of the trunk.
    shared, own
        Parameters of the blocks of trunk and branch, each of which multiplies once a token.
    cached_trunk, cached_branch
        Numbers that a token leaves in the cache of trunk and branch.
    """

    trunk: int
    branch: int
    head: int
    shared: int
    own: int
    cached_trunk: int
    cached_branch: int

    @property
    def model(self) -> int:
        """Parameters of one model."""
        return self.trunk + self.branch

    def parameters(self, n_experts: int) -> int:
        """Parameters of a fused model with so many specialists."""
        return self.trunk + n_experts * self.branch

    def multiplications(self, n_experts: float, *, base: bool = False) -> float:
        """Multiply-adds of the weights a token; those of attention grow with the text, not here.

        Parameters
        ----------
        n_experts
            That the token is read by.
        base
            Whether the base's blocks run too, for a router that reads its states.
        """
        blocks = self.shared + (n_experts + base) * self.own
        return blocks + n_experts * self.head


def config(tier: Tier) -> PretrainedConfig:
    """Shape of the base of tier ``smollm2-135m``."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        **SMOLLM2_135M,
        vocab_size=tier.vocab_size,
        hidden_size=tier.hidden_size,
        num_hidden_layers=tier.n_layers,
        num_attention_heads=tier.n_heads,
        tie_word_embeddings=True,
    )


def of(shape: PretrainedConfig, frozen_layers: int) -> Size:
    """Count the parts of a model whose first blocks are shared."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    trunk, branch = architectures.of(shape).split(model, frozen_layers)
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    a_block = 2 * heads * head_size
    return Size(
        trunk=_count(trunk),
        branch=_count(branch),
        head=_count(model.get_output_embeddings()),
        shared=_count(trunk["layers"]),
        own=_count(branch["layers"]),
        cached_trunk=frozen_layers * a_block,
        cached_branch=(shape.num_hidden_layers - frozen_layers) * a_block,
    )


def table(size: Size, counts: Sequence[int]) -> pd.DataFrame:
    """What so many specialists take.

    Returns
    -------
    One row a number of specialists: ``parameters`` (millions), ``models`` (times one model, where
    separate models would be that many), ``work`` (multiplications, times one model, nobody
    dropped), ``bf16_gb`` and ``float32_gb`` (weights), ``cache_kb`` (a token, bf16).
    """
    one = size.multiplications(1)
    rows = {
        n: {
            "parameters": size.parameters(n) / 1e6,
            "models": size.parameters(n) / size.model,
            "work": size.multiplications(n) / one,
            "bf16_gb": 2 * size.parameters(n) / 1e9,
            "float32_gb": 4 * size.parameters(n) / 1e9,
            "cache_kb": 2 * (size.cached_trunk + n * size.cached_branch) / 1e3,
        }
        for n in counts
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("specialists")


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
