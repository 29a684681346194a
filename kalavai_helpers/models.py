"""Models: making a base, freezing, and the split into trunk and branch.

A base trained here is GPT-NeoX (the Pythia family), a published one any decoder of
:mod:`kalavai_helpers.architectures`. The trunk is the embedding and the first k blocks, shared by
every specialist; the branch is what is left and belongs to one specialist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from .tiers import Tier

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM, PreTrainedModel


def new_base(tier: Tier, vocab_size: int, seed: int) -> GPTNeoXForCausalLM:
    """GPT-NeoX with random weights drawn from ``seed``; the global random state is untouched."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=vocab_size,
        hidden_size=tier.hidden_size,
        num_hidden_layers=tier.n_layers,
        num_attention_heads=tier.n_heads,
        intermediate_size=4 * tier.hidden_size,
        max_position_embeddings=4 * tier.seq_len,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
        },
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(config).eval()


def freeze(model: torch.nn.Module, frozen_layers: int | None) -> None:
    """Freeze the input embedding and the first k blocks; ``None`` leaves everything trainable.

    A head that is tied to the embedding is frozen with it. The published trainers freeze the
    embedding even at k = 0.
    """
    from . import architectures

    if frozen_layers is None:
        return
    family = architectures.of(model.config)
    body = getattr(model, family.body)
    for module in (getattr(body, family.embed), *body.layers[:frozen_layers]):
        module.requires_grad_(False)


def trunk(model: PreTrainedModel, frozen_layers: int) -> torch.nn.ModuleDict:
    """The parts that all specialists share: embedding and the first k blocks."""
    from . import architectures

    return architectures.of(model.config).split(model, frozen_layers)[0]


def branch(model: PreTrainedModel, frozen_layers: int) -> torch.nn.ModuleDict:
    """The parts that one specialist owns: blocks from k on, final norm, a head that is not tied."""
    from . import architectures

    return architectures.of(model.config).split(model, frozen_layers)[1]


def average(parts: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Arithmetic mean of tensors by name, float32 (the published weight averaging).

    One part is held at a time, so that many can come from disk.
    """
    total: dict[str, torch.Tensor] = {}
    for n, part in enumerate(parts, 1):
        for name, tensor in part.items():
            total[name] = total[name] + tensor.float() if n > 1 else tensor.float()
    return {name: tensor / n for name, tensor in total.items()}


def n_parameters(model: torch.nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters, or of those that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
