"""What can be fused: specialists of one base, whole, with a trunk that is bit-equal to the base's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import architectures
from .specialists import BASE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .routing import Router


_DECISIVE = (
    *("hidden_act", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("layer_norm_eps", "rms_norm_eps", "rope_parameters", "use_parallel_residual"),
    *("tie_word_embeddings", "layer_types", "sliding_window"),
)
"""What changes predictions and leaves the shapes of the weights as they are."""


class FusionError(ValueError):
    """Models, router or arguments that cannot be fused: says which, and what to do."""


class IncompleteModelError(OSError):
    """A saved fused model some of whose weights are missing or unreadable."""


def check(base: PreTrainedModel, specialists: dict[str, PreTrainedModel]) -> None:
    """Check that the specialists are sound copies of one base.

    Raises
    ------
    FusionError
        Naming specialist and tensor: for none at all, a name that cannot be used, another
        architecture, vocabulary, shape, dtype, device or setting, or a weight that is not finite.
    """
    architectures.of(base.config)
    if not specialists:
        raise FusionError("There is nothing to fuse: give at least one specialist, by name")
    for name in specialists:
        _check_name(name)
    _check_model("the base", base, base)
    for name, specialist in specialists.items():
        _check_model(f"specialist {name!r}", specialist, base)


def _check_name(name: str) -> None:
    if not name or "." in name:
        raise FusionError(f"{name!r} cannot name a specialist: use a name without dots")
    if name == BASE or hasattr(torch.nn.ModuleDict(), name):
        raise FusionError(f"{name!r} cannot name a specialist, it is taken: use another name")


def _check_model(who: str, model: PreTrainedModel, base: PreTrainedModel) -> None:
    if model.config.model_type != base.config.model_type:
        raise FusionError(
            f"{who} is of architecture {model.config.model_type!r} and the base of "
            f"{base.config.model_type!r}: fuse specialists of one base"
        )
    found, expected = model.state_dict(), base.state_dict()
    odd = sorted(set(found) ^ set(expected))
    if odd:
        where = who if odd[0] in found else "the base"
        raise FusionError(f"{who} has other parts than the base: only {where} has {odd[0]}")
    for key, tensor in found.items():
        _check_tensor(who, key, tensor, expected[key])
    for key in _DECISIVE:
        own, wanted = getattr(model.config, key, None), getattr(base.config, key, None)
        if own != wanted:
            raise FusionError(
                f"{who} has {key} = {own}, the base has {wanted}: its weights would be read "
                "wrongly. Fuse specialists of one base"
            )


def _check_tensor(who: str, key: str, tensor: torch.Tensor, expected: torch.Tensor) -> None:
    if tensor.shape != expected.shape:
        raise FusionError(
            f"{key} of {who} has shape {tuple(tensor.shape)}, in the base it has "
            f"{tuple(expected.shape)}: vocabulary and sizes must be those of the base"
        )
    if tensor.dtype != expected.dtype:
        raise FusionError(
            f"{key} of {who} is {tensor.dtype}, in the base it is {expected.dtype}: "
            "convert with .to() first"
        )
    if tensor.device != expected.device:
        raise FusionError(
            f"{key} of {who} is on {tensor.device}, in the base it is on {expected.device}: "
            "move them together with .to() first"
        )
    if not torch.isfinite(tensor).all():
        raise FusionError(f"{key} of {who} holds NaN or infinity: train it again, or leave it out")


def shared_layers(base: PreTrainedModel, specialists: dict[str, PreTrainedModel]) -> int | None:
    """Leading blocks that are bit-equal in all; ``None`` if not even the embedding is shared."""
    if _first_difference(base, specialists, 0):
        return None
    shared = 0
    while shared < base.config.num_hidden_layers and not _first_difference(
        base, specialists, shared + 1, shared
    ):
        shared += 1
    return shared


def check_shared(
    base: PreTrainedModel, specialists: dict[str, PreTrainedModel], frozen_layers: int
) -> None:
    """Check that embedding and first blocks of all specialists are the base's.

    Raises
    ------
    FusionError
        Naming the specialist and the first tensor that differs.
    """
    if not 0 <= frozen_layers <= base.config.num_hidden_layers:
        raise FusionError(
            f"frozen_layers is {frozen_layers}, and the base has {base.config.num_hidden_layers} "
            "blocks: give a number between, or None to find it"
        )
    difference = _first_difference(base, specialists, frozen_layers)
    if difference:
        name, key = difference
        raise FusionError(
            f"Specialist {name!r} does not share the trunk of {frozen_layers} frozen layers: "
            f"{key} differs from the base. Fuse with frozen_layers=None to find what is shared"
        )


def _first_difference(
    base: PreTrainedModel,
    specialists: dict[str, PreTrainedModel],
    frozen_layers: int,
    start: int = 0,
) -> tuple[str, str] | None:
    family = architectures.of(base.config)

    def trunk(model: PreTrainedModel) -> dict[str, torch.Tensor]:
        parts = family.split(model, frozen_layers)[0]
        tensors = {f"layers.{k}": v for k, v in parts["layers"][start:].state_dict().items()}
        return tensors if start else {"embed.weight": parts["embed"].weight, **tensors}

    expected = trunk(base)
    for name, specialist in specialists.items():
        for key, tensor in trunk(specialist).items():
            if not torch.equal(tensor, expected[key]):
                return name, key
    return None


def check_router(router: Router, n_experts: int) -> None:
    """Check that a router was made for this number of experts.

    Raises
    ------
    FusionError
        If it was made for another one, or keeps more gates than there are experts.
    """
    made_for = router.arguments().get("n_experts", n_experts)
    if made_for != n_experts:
        raise FusionError(
            f"The {router.name} router chooses between {made_for} experts, and there are "
            f"{n_experts}: fit it again on their ledger"
        )
    top_k = router.arguments().get("top_k") or 1
    if top_k > n_experts:
        raise FusionError(f"top_k is {top_k}, and there are {n_experts} experts: keep at most all")


def check_epsilon(epsilon: float, router: Router, mixing: str) -> None:
    """Check that experts may be skipped under a bound of ``epsilon``.

    Raises
    ------
    FusionError
        If it is not in [0, 1), or not 0 where the bound does not hold.
    """
    if not 0 <= epsilon < 1:
        raise FusionError(f"epsilon bounds a total variation, in [0, 1), not {epsilon}")
    if epsilon and mixing != "probability":
        raise FusionError(
            "epsilon bounds a mixture of probabilities: fuse with mixing='probability'"
        )
    if epsilon and (router.listens or router.reads == "experts"):
        raise FusionError(
            f"The gates of the {router.name} router need every expert at every token, so none can "
            "be skipped under a guarantee: fuse with a router that reads the trunk ('trunk'), or "
            "use epsilon=0"
        )
