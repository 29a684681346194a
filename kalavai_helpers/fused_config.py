"""Configuration and output of a fused model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import ModelOutput

if TYPE_CHECKING:
    from .fused_cache import FusedCache


class FusedConfig(PretrainedConfig):
    """Configuration of a fused model.

    Parameters
    ----------
    base_config
        Configuration of the base, as a dictionary.
    experts
        Names of the specialists, in the order of the gates.
    frozen_layers, shared_embedding
        What the trunk holds: the first k blocks, and the embedding unless each branch has its own.
    router, router_arguments, mixing
        Name of the router, what it is made with, and what it mixes.
    keep_base
        Whether the base's own branch is carried, for routers that read its states.
    epsilon
        Total variation by which a prediction may change so that experts can be skipped.
    """

    model_type = "kalavai-fused"

    def __init__(
        self,
        base_config: dict[str, Any] | None = None,
        experts: list[str] | None = None,
        frozen_layers: int = 0,
        router: str = "evidence",
        router_arguments: dict[str, Any] | None = None,
        mixing: str = "probability",
        shared_embedding: bool = True,
        keep_base: bool = True,
        epsilon: float = 0.0,
        **kwargs: Any,
    ):
        self.base_config = base_config or {}
        self.experts = experts or []
        self.frozen_layers = frozen_layers
        self.router = router
        self.router_arguments = router_arguments or {}
        self.mixing = mixing
        self.shared_embedding = shared_embedding
        self.keep_base = keep_base
        self.epsilon = epsilon
        super().__init__(**kwargs)

    def expert_config(self) -> PretrainedConfig:
        """Configuration of the base and of every specialist."""
        return AutoConfig.for_model(**{"model_type": "gpt_neox", **self.base_config})

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of trunk and branches together."""
        own = self.base_config.get("num_hidden_layers", 0) - self.frozen_layers
        return self.frozen_layers + own * (len(self.experts) + self.keep_base)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.base_config.get("hidden_size", 0)

    @property
    def max_position_embeddings(self) -> int:
        """Longest text that the base was made for."""
        return self.base_config.get("max_position_embeddings", 0)


@dataclass
class FusedOutput(ModelOutput):
    """Output of a fused model.

    Attributes
    ----------
    loss
        nats/token, when labels were given.
    logits
        (B, K, V) log-probabilities at the K kept positions (all T by default).
    gates
        (B, T, N) of the router, before any expert is skipped.
    ran
        (B, K, N) bool: the experts whose predictions were mixed.
    bound
        (B, K) float64: how far, in total variation, skipping can have changed the prediction.
    branch_tokens
        (N,) tokens that each expert's blocks read in this call, over all rows.
    expert_log_probs
        (B, T - 1, N) of the tokens that followed, where the router learns from them.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: FusedCache | None = None
    gates: torch.Tensor | None = None
    ran: torch.Tensor | None = None
    bound: torch.Tensor | None = None
    branch_tokens: torch.Tensor | None = None
    expert_log_probs: torch.Tensor | None = None
