"""Stacked experts: the blocks of several branches run as one, with one batched product a layer.

A block is the architecture's own, with its projections and norms replaced by stacked ones, and the
experts are rows of its batch. So attention, rotary embeddings and cache need no second version.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

MOST_TOKENS = 64
"""Tokens in a call up to which stacking pays: calls are then bound by the number of operations.

Measured on two CPU cores, widths 160 and 320, a stacked block against three in turn: 0.6 to 0.8 of
the time at one token, 0.5 to 0.7 at 16, 0.8 at 128, about the same at 512; against ten, 0.35 at one.
"""

_Sources = list[tuple[torch.nn.Parameter, torch.Tensor]]


class Stack:
    """Blocks and final norms of several branches as one.

    The weights of the branches become views of stacked ones: they are in memory once, and what
    changes them in place changes the stack.

    Raises
    ------
    TypeError
        For a block with parts that cannot be stacked.
    """

    def __init__(self, branches: Sequence[torch.nn.ModuleDict]):
        self._sources: _Sources = []
        self.size = len(branches)
        self.layers = [
            _stacked(layers, self._sources)
            for layers in zip(*(branch["layers"] for branch in branches), strict=True)
        ]
        self.norm = _stacked([branch["norm"] for branch in branches], self._sources)

    def fresh(self) -> bool:
        """Whether the branches still hold the stacked weights: to another device or dtype, no."""
        return all(mine.data_ptr() == whole.data_ptr() for mine, whole in self._sources)


def of(branches: Sequence[torch.nn.ModuleDict]) -> Stack | bool:
    """Branches as one; ``False`` where there is nothing to gain, or a part cannot be stacked."""
    if len(branches) < 2 or not len(branches[0]["layers"]):
        return False
    try:
        return Stack(branches)
    except TypeError:
        return False


class Joined:
    """The caches of several branches as one, to whoever only updates it."""

    def __init__(self, parts: Sequence[Cache]):
        self.parts = parts

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values (N · B, H, T, d); returns all there are."""
        n = len(self.parts)
        found = [
            part.update(key, value, layer_idx, *args, **kwargs)
            for part, key, value in zip(self.parts, keys.chunk(n), values.chunk(n), strict=True)
        ]
        keys, values = zip(*found, strict=True)
        return torch.cat(keys), torch.cat(values)


class _Linear(torch.nn.Module):
    def __init__(self, modules: Sequence[torch.nn.Linear], sources: _Sources):
        super().__init__()
        self.weights = _shared([module.weight for module in modules], sources).transpose(1, 2)
        biased = modules[0].bias is not None
        biases = [module.bias for module in modules]
        self.biases = _shared(biases, sources)[:, None] if biased else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(len(self.weights), -1, inputs.shape[-1])
        if self.biases is None:
            out = torch.bmm(rows, self.weights)
        else:
            out = torch.baddbmm(self.biases, rows, self.weights)
        return out.view(*inputs.shape[:-1], -1)


class _Norm(torch.nn.Module):
    """The architecture's norm without its weights, and then those of each expert."""

    def __init__(self, modules: Sequence[torch.nn.Module], sources: _Sources):
        super().__init__()
        self.plain = copy.deepcopy(modules[0]).requires_grad_(False)
        for name, parameter in self.plain.named_parameters():
            parameter.fill_(float(name == "weight"))
        self.weights = _shared([module.weight for module in modules], sources)[:, None]
        biased = getattr(modules[0], "bias", None) is not None
        biases = [getattr(module, "bias", None) for module in modules]
        self.biases = _shared(biases, sources)[:, None] if biased else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = self.plain(inputs).reshape(len(self.weights), -1, inputs.shape[-1])
        if self.biases is None:
            return (rows * self.weights).view_as(inputs)
        return torch.addcmul(self.biases, rows, self.weights).view_as(inputs)


def _stacked(modules: Sequence[torch.nn.Module], sources: _Sources) -> torch.nn.Module:
    first = modules[0]
    if type(first) is torch.nn.Linear:
        return _Linear(modules, sources)
    own = {name for name, value in first._parameters.items() if value is not None}
    if own and type(first).__name__.endswith("Norm") and own <= {"weight", "bias"}:
        return _Norm(modules, sources)
    if own:
        raise TypeError(f"{type(first).__name__} holds {', '.join(own)}, which cannot be stacked")
    made = copy.copy(first)
    made._modules = {
        name: _stacked([module._modules[name] for module in modules], sources)
        for name in first._modules
    }
    return made


def _shared(parameters: list[torch.nn.Parameter], sources: _Sources) -> torch.Tensor:
    """Parameters as one tensor (N, ...), of which each becomes a view."""
    whole = torch.stack([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, whole, strict=True):
        parameter.data = part
        sources.append((parameter, part))
    return whole
