"""Tiny decoders of every family that can be fused, with random specialists, for tests."""

import copy

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 61
FAMILIES = {
    "gpt_neox": {"model_type": "gpt_neox"},
    "llama, tied": {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
    },
    "qwen2, sliding window": {
        "model_type": "qwen2",
        "num_key_value_heads": 1,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 8},
}


def base(family="gpt_neox", **changes):
    """A decoder of three blocks with random weights."""
    options = {
        "vocab_size": VOCAB,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": None,
        "pad_token_id": None,
        **FAMILIES[family],
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**options)).eval()


def cooperative(family="gpt_neox", n=3, frozen_layers=1, embedding=True, **changes):
    """Base and ``n`` specialists that share ``frozen_layers`` blocks and perhaps the embedding."""
    origin = base(family, **changes)
    return origin, {f"s{i}": specialist(origin, i, frozen_layers, embedding) for i in range(n)}


def specialist(origin, seed, frozen_layers=1, embedding=True):
    """A copy of a base that has been moved far from it, up from a block."""
    model = copy.deepcopy(origin)
    body = getattr(model, model.base_model_prefix)
    parameters = list(body.layers[frozen_layers:].parameters())
    if not embedding:
        parameters.append(body.get_input_embeddings().weight)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def texts(rows=3, length=20, seed=0):
    """Random tokens (rows, length)."""
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))
