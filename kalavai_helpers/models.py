"""Models: making or loading a base, freezing, and the split into trunk and branch.

Architecture: GPT-NeoX (the Pythia family). The trunk is the embedding and the first k blocks,
shared by every specialist; the branch is what is left and belongs to one specialist.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .tiers import Tier

if TYPE_CHECKING:
    from tokenizers import Tokenizer
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


def load_base(tier: Tier) -> PreTrainedModel:
    """The tier's published checkpoint, pinned to its revision, in float32 master weights.

    Raises
    ------
    ConnectionError
        If it is neither in the local cache nor to be had from the Hub.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            tier.hub_id, revision=tier.revision, dtype=torch.float32
        )
    except OSError as error:
        raise ConnectionError(_unreachable(tier)) from error
    model.config.use_cache = False
    return model.eval()


def load_tokenizer(tier: Tier) -> Tokenizer:
    """The tokenizer of the tier's published checkpoint.

    Raises
    ------
    ConnectionError
        If it is neither in the local cache nor to be had from the Hub.
    """
    from huggingface_hub import hf_hub_download
    from tokenizers import Tokenizer

    try:
        path = hf_hub_download(tier.hub_id, "tokenizer.json", revision=tier.revision)
    except OSError as error:
        raise ConnectionError(_unreachable(tier)) from error
    return Tokenizer.from_file(path)


def _unreachable(tier: Tier) -> str:
    return (
        f"Cannot load {tier.hub_id} at {tier.revision} from the Hugging Face Hub or the local "
        "cache: connect once, or use --tier ci"
    )


def freeze(model: PreTrainedModel, frozen_layers: int | None) -> None:
    """Freeze the input embedding and the first k blocks; ``None`` leaves everything trainable.

    The published trainers freeze the embedding even at k = 0.
    """
    if frozen_layers is None:
        return
    for module in (model.gpt_neox.embed_in, *model.gpt_neox.layers[:frozen_layers]):
        module.requires_grad_(False)


def branch(model: PreTrainedModel, frozen_layers: int) -> torch.nn.ModuleDict:
    """The parts that one specialist owns: blocks from k on, final norm, output head."""
    return torch.nn.ModuleDict(
        {
            "layers": model.gpt_neox.layers[frozen_layers:],
            "norm": model.gpt_neox.final_layer_norm,
            "head": model.get_output_embeddings(),
        }
    )


def trunk(model: PreTrainedModel, frozen_layers: int) -> torch.nn.ModuleDict:
    """The parts that all specialists share: embedding and the first k blocks."""
    return torch.nn.ModuleDict(
        {"embed": model.gpt_neox.embed_in, "layers": model.gpt_neox.layers[:frozen_layers]}
    )


def run_layers(
    layers: Sequence[torch.nn.Module],
    hidden: torch.Tensor,
    rotary: torch.nn.Module,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Apply blocks to hidden states (B, T, d), without the final norm.

    ``GPTNeoXModel.forward`` always ends with the final norm, so that a trunk run through it would
    be wrong for the blocks above; the published sparse inference has that fault.
    """
    positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    embeddings = rotary(hidden, position_ids=positions)
    for layer in layers:
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=embeddings,
        )
    return hidden


def average(models: Sequence[PreTrainedModel]) -> PreTrainedModel:
    """Arithmetic mean of all parameters in float32 (the published weight averaging)."""
    merged = copy.deepcopy(models[0])
    states = [model.state_dict() for model in models]
    merged.load_state_dict(
        {name: torch.stack([s[name].float() for s in states]).mean(0) for name in states[0]}
    )
    return merged.eval()


def n_parameters(model: torch.nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters, or of those that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)
