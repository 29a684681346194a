"""The cache of a fused model: one DynamicCache for trunk and branches, and what the router knows.

Trunk block i is layer i; block i of branch e is layer k + e (L − k) + (i − k). A branch may lag
behind: the states it has not read yet are kept once, for all branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from .fusion_checks import FusionError

TRUNK = ""


class FusedCache(DynamicCache):
    """Keys and values of all parts, trunk states that some branch has yet to read, router memory.

    Attributes
    ----------
    seen
        Tokens read by the trunk.
    parts
        A cache for the trunk (named ``""``) and each branch, over the same layers.
    kept
        Tensors (B, n, ...) that end with the last token read: ``trunk`` states and ``positions``
        not read by every branch, ``states`` of the experts, and the router's memory.
    predicted
        (B, N, V) log-probabilities of the next token, for routers that will learn from it.
    """

    def __init__(self, config: PretrainedConfig, frozen_layers: int, branches: Sequence[str]):
        super().__init__()
        self.layer_class_to_replicate = None
        self.seen = 0
        self.kept: dict[str, torch.Tensor] = {}
        self.predicted: torch.Tensor | None = None
        self.parts = {TRUNK: Cache(layers=DynamicCache(config=config).layers[:frozen_layers])}
        for name in branches:
            self.parts[name] = Cache(layers=DynamicCache(config=config).layers[frozen_layers:])
        self.layers = [layer for part in self.parts.values() for layer in part.layers]

    def length(self, name: str) -> int:
        """Tokens that a part has read."""
        layers = self.parts[name].layers
        # A part without blocks of its own has nothing to catch up with.
        return layers[0].get_seq_length() if layers else self.seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens read by the trunk: a branch may lag behind."""
        return self.seen if layer_idx == 0 else super().get_seq_length(layer_idx)

    def remember(self, name: str, new: torch.Tensor) -> torch.Tensor:
        """Append (B, T, ...) to a kept tensor; returns all of it."""
        old = self.kept.get(name)
        self.kept[name] = new if old is None else torch.cat([old, new], 1)
        return self.kept[name]

    def memory(self, prefix: str) -> dict[str, torch.Tensor]:
        """Kept tensors whose name starts so, without the prefix."""
        return {k.removeprefix(prefix): v for k, v in self.kept.items() if k.startswith(prefix)}

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Follow the beams."""
        super().reorder_cache(beam_idx)
        self._each(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        super().batch_select_indices(indices)
        self._each(lambda tensor: tensor[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch."""
        super().batch_repeat_interleave(repeats)
        self._each(lambda tensor: tensor.repeat_interleave(repeats, 0))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; their number is given as a negative integer.

        Raises
        ------
        FusionError
            If a sliding window has already dropped what came before them; nothing is forgotten.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"Give the tokens to forget as a negative number: {-tokens_to_remove}")
        left = max(0, self.seen + tokens_to_remove)
        if not left:
            self.reset()
            return
        gone = self.seen - left
        excess = {name: max(0, self.length(name) - left) for name in self.parts}
        for name, part in self.parts.items():
            if any(_has_dropped(layer, excess[name]) for layer in part.layers):
                raise FusionError(
                    "A sliding window keeps no more than it needs, and tokens cannot be taken "
                    "back: call activate_past_recording() on the cache before it is filled"
                )
        for name, part in self.parts.items():
            if excess[name]:
                part.crop(-excess[name])
        self.kept = {
            name: tensor[:, : tensor.shape[1] - gone]
            for name, tensor in self.kept.items()
            if tensor.shape[1] > gone
        }
        self.predicted = None if gone else self.predicted
        self.seen = left

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.seen, self.kept, self.predicted = 0, {}, None

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.kept = {name: change(tensor) for name, tensor in self.kept.items()}
        if self.predicted is not None:
            self.predicted = change(self.predicted)


def _has_dropped(layer: CacheLayerMixin, excess: int) -> bool:
    """Whether a sliding window lacks keys that it needs once the last ``excess`` are taken back."""
    if not excess or not layer.is_sliding:
        return False
    return layer.keys.shape[-2] < min(layer.get_seq_length(), layer.sliding_window - 1 + excess)
