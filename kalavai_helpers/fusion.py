"""Fusion: base, specialists and router as one causal language model.

The trunk (embedding and first k blocks) runs once, then one branch a specialist. Probability
mixing p = Σ g_i p_i is the default; logit mixing z = Σ g_i z_i is what was published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import fusion_checks, routing
from .fused_config import FusedConfig, FusedOutput
from .fused_model import FusedForCausalLM
from .fusion_checks import FusionError, IncompleteModelError
from .mixing import MIXING
from .specialists import BASE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "MIXING",
    "FusedConfig",
    "FusedForCausalLM",
    "FusedOutput",
    "FusionError",
    "IncompleteModelError",
    "fuse",
]


def fuse(
    base: PreTrainedModel,
    specialists: dict[str, PreTrainedModel],
    router: routing.Router | str,
    frozen_layers: int | None = None,
    mixing: str | None = None,
    *,
    keep_base: bool | None = None,
    epsilon: float = 0.0,
) -> FusedForCausalLM:
    """Fuse specialists of one base.

    Parameters
    ----------
    router
        A router, or the name of one that needs no fitting.
    frozen_layers
        k: embedding and first k blocks are shared. By default k is found from bit-equal weights;
        specialists that do not even share the embedding then share nothing.
    mixing
        ``"probability"`` or ``"logit"``; by default what the router was made for.
    keep_base
        Whether to carry the base's branch; by default where the router reads its states.
    epsilon
        The ε-contract (see :mod:`kalavai_helpers.sparse`), kept in the configuration.

    Raises
    ------
    FusionError
        For specialists that do not fit base or trunk (naming the tensor), a router for another
        number of experts, an unknown mixing, an epsilon that cannot be kept.
    """
    fusion_checks.check(base, specialists)
    router = routing.make(router) if isinstance(router, str) else router
    mixing = mixing or router.mixing
    if mixing not in MIXING:
        raise FusionError(f"Unknown mixing {mixing!r}: choose one of {', '.join(MIXING)}")
    fusion_checks.check_router(router, len(specialists))
    fusion_checks.check_epsilon(epsilon, router, mixing)
    shared_embedding = True
    if frozen_layers is None:
        found = fusion_checks.shared_layers(base, specialists)
        shared_embedding, frozen_layers = found is not None, found or 0
    else:
        fusion_checks.check_shared(base, specialists, frozen_layers)
    base_config = base.config.to_dict()
    base_config.pop("_name_or_path", None)  # a place on the machine that fused
    config = FusedConfig(
        base_config=base_config,
        experts=list(specialists),
        frozen_layers=frozen_layers,
        router=router.name,
        router_arguments=router.arguments(),
        mixing=mixing,
        shared_embedding=shared_embedding,
        keep_base=router.reads == "base" if keep_base is None else keep_base,
        epsilon=epsilon,
        bos_token_id=base.config.bos_token_id,
        eos_token_id=base.config.eos_token_id,
        pad_token_id=getattr(base.config, "pad_token_id", None) or base.config.eos_token_id,
        vocab_size=base.config.vocab_size,
        dtype=base.dtype,
    )
    fused = FusedForCausalLM(config).to(base.dtype)
    for name, model in {BASE: base, **specialists}.items():
        trunk, branch = fused.family.split(model, frozen_layers, shared_embedding=shared_embedding)
        if name == BASE:
            fused.trunk.load_state_dict(trunk.state_dict())
        if name in fused.branches:
            fused.branches[name].load_state_dict(branch.state_dict())
    fused.router.float().load_state_dict(router.state_dict())
    return fused.to(base.device).eval()
