"""One call of a fused model: the trunk's states, and branches that read as far as they must."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import torch

from . import architectures, mixing, sparse, stacking
from .fused_cache import TRUNK, FusedCache
from .fusion_checks import FusionError
from .mixing import Head, Part

if TYPE_CHECKING:
    from .fusion import FusedForCausalLM


class Reading:
    """New tokens of a batch, read by the trunk, with what branches have yet to read before them.

    Attributes
    ----------
    ids, real
        (B, T) new tokens, and which of them are text (``None``: all).
    new, seen
        How many tokens are new, and how many are in the cache.
    work
        Tokens that each branch has read in this call, over all rows.
    """

    def __init__(
        self,
        model: FusedForCausalLM,
        ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        positions: torch.Tensor | None,
        cache: FusedCache | None,
    ):
        self.model, self.ids, self.cache = model, ids, cache
        self.new = ids.shape[1]
        self.seen = 0 if cache is None else cache.seen
        self.total = self.seen + self.new
        self.work: Counter[str] = Counter()
        self.mask = attention_mask
        self.real = None
        if attention_mask is not None:
            if attention_mask.shape != (len(ids), self.total):
                raise FusionError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}, and there are "
                    f"{len(ids)} texts of {self.total} tokens, those in the cache among them"
                )
            self.real = attention_mask[:, self.seen :].bool()
        self.given_positions = positions
        if positions is None:
            positions = torch.arange(self.seen, self.total, device=ids.device)[None]
            if attention_mask is not None:
                counted = attention_mask.long().cumsum(1)[:, self.seen :] - 1
                positions = counted.clamp_min(0)
        self._spans: dict[tuple[int, int], tuple] = {}
        model.base_config._attn_implementation = model.config._attn_implementation
        hidden = model.trunk["embed"](ids) if model.config.shared_embedding else ids
        self.start, self.states, self.positions = self.seen, hidden, positions
        if len(model.trunk["layers"]):
            self.states = self._blocks(TRUNK, hidden, self.seen, self.total, None)
        self.trunk_states = self.states
        if cache is not None:
            # Everything a branch has not read: what waited in the cache, and the new tokens.
            self.states = cache.remember("trunk", self.states)
            rows = positions.expand(len(ids), -1)
            self.positions = cache.remember("positions", rows)
            self.start = self.total - self.states.shape[1]

    def branch(
        self, name: str, end: int | None = None, rows: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, int]:
        """Let a branch read up to ``end``: states (B, n, d) after its final norm, and their start.

        Without a cache it reads from the first token; with one, from where it stopped, so that a
        branch that was skipped catches up in one pass.
        """
        end = self.total if end is None else end
        begin = 0 if self.cache is None else self.cache.length(name)
        hidden = self.states[:, begin - self.start : end - self.start]
        hidden = hidden if rows is None else hidden[rows]
        part = self.model.branches[name]
        if "embed" in part:
            hidden = part["embed"](hidden)
        self.work[name] += hidden.shape[0] * hidden.shape[1]
        return part["norm"](self._blocks(name, hidden, begin, end, rows)), begin

    def branches(self) -> list[tuple[torch.Tensor, int]]:
        """All experts at all tokens that they have not read, as :meth:`branch` does.

        Few tokens are read by all of them at once (:mod:`kalavai_helpers.stacking`).
        """
        names = self.model.config.experts
        begins = {0 if self.cache is None else self.cache.length(name) for name in names}
        if len(begins) == 1 and not torch.is_grad_enabled():
            begin = begins.pop()
            n_tokens = len(self.ids) * (self.total - begin)
            stack = self.model.stacked() if n_tokens <= stacking.MOST_TOKENS else None
            if stack is not None:
                return self._together(stack, begin)
        return [self.branch(name) for name in names]

    def _together(self, stack: stacking.Stack, begin: int) -> list[tuple[torch.Tensor, int]]:
        names = self.model.config.experts
        hidden = self.states[:, begin - self.start :]
        parts = [self.model.branches[name] for name in names]
        every = [part["embed"](hidden) if "embed" in part else hidden for part in parts]
        masks, positions, angles = self._span(names[0], every[0], begin, self.total, None)

        def repeat(tensor: torch.Tensor | None) -> torch.Tensor | None:
            alike = tensor is None or len(tensor) == 1
            return tensor if alike else tensor.repeat(len(names), *[1] * (tensor.dim() - 1))

        cache = None
        if self.cache is not None:
            cache = stacking.Joined([self.cache.parts[name] for name in names])
        states = self.model.family.run(
            stack.layers,
            torch.cat(every),
            self.model.layer_types[self.model.config.frozen_layers :],
            {kind: repeat(mask) for kind, mask in masks.items()},
            repeat(positions),
            tuple(map(repeat, angles)),
            cache,
        )
        for name in names:
            self.work[name] += hidden.shape[0] * hidden.shape[1]
        return [(part, begin) for part in stack.norm(states).chunk(len(names))]

    def head(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) in float32 at least."""
        part = self.model.branches[name]
        if "head" in part:
            logits = part["head"](states)
        else:
            embed = (part if "embed" in part else self.model.trunk)["embed"]
            logits = torch.nn.functional.linear(states, embed.weight)
        return logits if logits.dtype == torch.float64 else logits.float()

    def predict(self, keep: torch.Tensor, kept_at: torch.Tensor, *, everywhere: bool) -> list[Part]:
        """Logits of each expert where it is kept.

        Parameters
        ----------
        keep
            (B, K, N) bool at the positions ``kept_at`` (K,) of the new tokens.
        everywhere
            All are kept at all of them.
        """
        parts: list[Part] = []
        kept_at = kept_at + self.seen
        if everywhere:
            for i, (states, begin) in enumerate(self.branches()):
                found = states[:, kept_at - begin].flatten(0, 1)
                parts.append((i, None, self._later(self.model.config.experts[i], found)))
            return parts
        last = (keep * (kept_at + 1)[:, None]).amax(1)
        for i, (name, reach) in enumerate(
            zip(self.model.config.experts, last.amax(0).tolist(), strict=True)
        ):
            if reach:
                parts.append((i, *self._ask(name, keep[:, :, i], kept_at, last[:, i], reach)))
        return parts

    def _ask(
        self,
        name: str,
        mine: torch.Tensor,
        kept_at: torch.Tensor,
        last: torch.Tensor,
        reach: int,
    ) -> tuple[torch.Tensor, Head]:
        """Rows among (B · K) where an expert is kept, and its logits there."""
        # The rows of a cache go together.
        groups = sparse.runs(last) if self.cache is None else [(None, reach)]
        asked, found = [], []
        for rows, end in groups:
            # All rows are no choice, and then mask and angles can serve other experts too.
            rows = None if rows is not None and len(rows) == len(mine) else rows
            states, begin = self.branch(name, end, rows)
            row, at = (mine if rows is None else mine[rows]).nonzero(as_tuple=True)
            found.append(states[row, kept_at[at] - begin])
            asked.append((row if rows is None else rows[row]) * len(kept_at) + at)
        if len(groups) > 1:
            ascending, order = torch.cat(asked).sort()
            return ascending, self._later(name, torch.cat(found)[order])
        return asked[0], self._later(name, found[0])

    def _later(self, name: str, states: torch.Tensor) -> Head:
        return Head(partial(self.head, name), states)

    def arrived(self, logits: list[torch.Tensor], states: torch.Tensor) -> torch.Tensor:
        """Log p_i of the new tokens themselves (B, T, N); 0 where nobody predicted them.

        ``logits`` (B, T, V) and ``states`` (B, T, N, d) are those of all experts at all of them.
        """
        following = self.ids.roll(-1, 1)  # the first token, behind the last, is dropped again
        found = torch.stack([mixing.seen(z, following) for z in logits], -1)
        arrived = torch.nn.functional.pad(found[:, :-1], (0, 0, 1, 0))
        if self.seen:
            before = self.cache.predicted
            if before is None:  # tokens were taken back
                last = self.cache.kept["states"][:, -1]
                names = enumerate(self.model.config.experts)
                heads = [self.head(name, last[:, i]).log_softmax(-1) for i, name in names]
                before = torch.stack(heads, 1)
            first = self.ids[:, :1, None].expand(-1, before.shape[1], 1)
            arrived[:, 0] = before.gather(-1, first)[..., 0]
        if self.cache is not None:
            self.cache.remember("states", states)
            self.cache.predicted = torch.stack([z[:, -1].log_softmax(-1) for z in logits], 1)
        if self.mask is not None:
            before = torch.nn.functional.pad(self.mask.bool(), (1, 0))[:, self.seen : -1]
            arrived = arrived * (self.real & before)[..., None]
        return arrived

    def close(self) -> None:
        """Keep in the cache what some branch has yet to read, and no more."""
        if self.cache is None:
            return
        self.cache.seen = self.total
        behind = self.total - min(self.cache.length(name) for name in self.model.branches)
        for name in ("trunk", "positions"):
            kept = self.cache.kept.pop(name)
            if behind:
                self.cache.kept[name] = kept[:, -behind:]

    def _blocks(
        self, name: str, hidden: torch.Tensor, begin: int, end: int, rows: torch.Tensor | None
    ) -> torch.Tensor:
        types = self._types(name)
        if not types:
            return hidden
        part = self.model.trunk if name == TRUNK else self.model.branches[name]
        span = self._span(name, hidden, begin, end, rows)
        cache = None if self.cache is None else self.cache.parts[name]
        return self.model.family.run(part["layers"], hidden, types, *span, cache)

    def _types(self, name: str) -> list[str]:
        frozen = self.model.config.frozen_layers
        types = self.model.layer_types
        return types[:frozen] if name == TRUNK else types[frozen:]

    def _span(
        self, name: str, hidden: torch.Tensor, begin: int, end: int, rows: torch.Tensor | None
    ) -> tuple:
        """Masks, positions and angles of the tokens from ``begin`` to ``end``."""
        types = self._types(name)
        span = self._spans.get((begin, end)) or self._cut(begin, end)
        # Trunk and branches may differ in their kinds of attention, and rows in their padding.
        if span is None or set(types) - set(span[0]) or not (rows is None or self._alike(span)):
            positions = self.positions[:, begin - self.start : end - self.start]
            mask = self.mask if self.mask is None else self.mask[:, :end]
            if rows is not None:
                positions = positions if len(positions) == 1 else positions[rows]
                mask = mask if mask is None else mask[rows]
            given = None if self.given_positions is None else positions
            cache = None if self.cache is None else self.cache.parts[name]
            config = self.model.base_config
            made = architectures.masks(config, types, hidden, mask, given, cache)
            span = made, positions, self.model.rotary(hidden, position_ids=positions)
            if rows is None or self._alike(span):
                self._spans[begin, end] = span
        return span

    def _cut(self, begin: int, end: int) -> tuple | None:
        """The beginning of what all texts share, where there is no cache."""
        whole = self._spans.get((begin, self.total))
        if self.cache is not None or whole is None or not self._alike(whole):
            return None
        masks, positions, angles = whole
        length = end - begin
        return masks, positions[:, :length], tuple(angle[:, :length] for angle in angles)

    def _alike(self, span: tuple) -> bool:
        """Whether masks and positions are those of any rows: no text is padded."""
        masks, positions, _ = span
        plain = self.mask is None and all(mask is None for mask in masks.values())
        return plain and len(self.positions) == len(positions) == 1
