"""The fused model: trunk, branches and router as one Hugging Face causal language model."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.generation import GenerationMixin
from transformers.modeling_utils import PreTrainedModel

from . import (
    architectures,
    artifacts,
    fusion_checks,
    learned_routers,
    mixing,
    routing,
    sparse,
    stacking,
    trunk_router,
)
from .fused_cache import FusedCache
from .fused_config import FusedConfig, FusedOutput
from .fusion_checks import FusionError
from .ledger import compact
from .reading import Reading
from .specialists import BASE

if TYPE_CHECKING:
    from transformers.cache_utils import Cache

# What was saved with any of them can be loaded.
for router in (trunk_router.TrunkRouter, *learned_routers.ROUTERS):
    routing.ROUTERS[router.name] = router


class FusedForCausalLM(PreTrainedModel, GenerationMixin):
    """Specialists behind a router, as one Hugging Face causal language model.

    Where the base is carried as one more branch, for routers that read its states, it is still
    no expert.
    """

    config_class = FusedConfig
    base_model_prefix = "fused"
    _supports_sdpa = True
    # A gate in float16 would break sums that the guarantees rest on.
    _keep_in_fp32_modules_strict = ("router",)
    _skip_keys_device_placement = ("past_key_values",)

    def __init__(self, config: FusedConfig):
        super().__init__(config)
        self.base_config = config.expert_config()
        self.family = architectures.of(self.base_config)
        self.layer_types = architectures.layer_types(self.base_config)
        whole = AutoModelForCausalLM.from_config(self.base_config)
        self.trunk, branch = self.family.split(
            whole, config.frozen_layers, shared_embedding=config.shared_embedding
        )
        self.family.renumber(branch["layers"])
        names = ([BASE] if config.keep_base else []) + list(config.experts)
        self.branches = torch.nn.ModuleDict({name: copy.deepcopy(branch) for name in names})
        self.rotary = self.family.rotary(whole)
        self.router = routing.make(config.router, **config.router_arguments)
        self._stack: stacking.Stack | bool | None = None
        self.post_init()

    def stacked(self) -> stacking.Stack | None:
        """Blocks of all experts as one; ``None`` where there is nothing to gain, or no way."""
        if self._stack is None or (self._stack and not self._stack.fresh()):
            self._stack = stacking.of([self.branches[name] for name in self.config.experts])
        return self._stack or None

    def get_input_embeddings(self) -> torch.nn.Module:
        """The trunk's embedding, or the first branch's where none is shared."""
        shared = self.config.shared_embedding
        return (self.trunk if shared else next(iter(self.branches.values())))["embed"]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        epsilon: float | None = None,
        **kwargs: Any,
    ) -> FusedOutput:
        """Run trunk, router and as many branches as are needed.

        Parameters
        ----------
        input_ids, labels
            (B, T) as for any causal language model; labels are shifted inside, −100 is ignored.
        attention_mask
            (B, tokens in the cache + T), 0 on padding, left or right.
        past_key_values, use_cache
            A cache that an earlier call returned, and whether to return one.
        logits_to_keep
            The last so many positions, or the indices of those, to predict at; 0 for all.
        epsilon
            Instead of the configuration's (see :mod:`kalavai_helpers.sparse`).

        Raises
        ------
        FusionError
            For an epsilon outside [0, 1), or one that router or mixing cannot guarantee.
        """
        epsilon = self.config.epsilon if epsilon is None else epsilon
        fusion_checks.check_epsilon(epsilon, self.router, self.config.mixing)
        cache = self._cache(past_key_values, use_cache)
        text = Reading(self, input_ids, attention_mask, position_ids, cache)
        positions = torch.arange(text.new, device=input_ids.device)
        kept_at = (
            positions[-logits_to_keep:]
            if isinstance(logits_to_keep, int)
            else positions[logits_to_keep]
        )
        if labels is not None and len(kept_at) != text.new:
            raise FusionError("labels need the predictions at all positions: logits_to_keep=0")
        seen = None
        parts: list[mixing.Part] = []
        if self.router.listens or self.router.reads == "experts":
            states = torch.stack([found for found, _ in text.branches()], 2)
            logits = [text.head(n, states[:, :, i]) for i, n in enumerate(self.config.experts)]
            arrived = text.arrived(logits, states) if self.router.listens else None
            seen = None if arrived is None else arrived[:, 1:]
            gates = self._gates(text, arrived, states)
            keep = sparse.kept(gates[:, kept_at], 0.0)
            if len(kept_at) < text.new:  # a copy of all logits would cost as much as the heads
                logits = [z[:, kept_at] for z in logits]
            parts = [(i, None, z.flatten(0, 1)) for i, z in enumerate(logits)]
        else:
            gates = self._gates(text, None, None)
            keep = sparse.kept(gates[:, kept_at], epsilon)
            parts = text.predict(keep, kept_at, everywhere=not epsilon)
        bound = sparse.bound(gates[:, kept_at], keep)
        weights = gates[:, kept_at].masked_fill(~keep, 0)
        weights = weights / weights.sum(-1, keepdim=True) if epsilon else weights
        fused = mixing.combine(parts, weights.flatten(0, 1), self.config.mixing)
        fused = fused.view(*keep.shape[:2], -1)
        loss = None
        if labels is not None:
            loss = mixing.loss(fused, labels, kwargs.get("num_items_in_batch"))
        text.close()
        return FusedOutput(
            loss=loss,
            logits=fused,
            past_key_values=cache,
            gates=gates,
            ran=keep,
            bound=bound,
            branch_tokens=torch.tensor([text.work[name] for name in self.config.experts]),
            expert_log_probs=seen,
        )

    def _gates(
        self, text: Reading, arrived: torch.Tensor | None, states: torch.Tensor | None
    ) -> torch.Tensor:
        features = self.router_features(text, states)
        if arrived is None:
            shape = (*text.ids.shape, len(self.config.experts))
            arrived = torch.zeros(shape, device=text.ids.device)
        memory = {} if text.cache is None else text.cache.memory("router.")
        gates, new = self.router.resume(features, arrived, memory, text.real, text.ids)
        if text.cache is not None:
            for name, tensor in new.items():
                text.cache.remember(f"router.{name}", tensor)
        return gates.to(torch.promote_types(self.dtype, torch.float32))

    def router_features(self, text: Reading, states: torch.Tensor | None) -> torch.Tensor | None:
        """What the router reads (B, T, F); ``states`` (B, T, N, d) are those of all experts."""
        reads = self.router.reads
        if reads == "base":
            if BASE not in self.branches:
                raise FusionError(
                    f"The {self.router.name} router reads the base's states, and the base's "
                    "branch is not carried: fuse with keep_base=True"
                )
            found = compact(text.branch(BASE)[0].float())
        elif reads == "trunk":
            if not self.config.shared_embedding:
                raise FusionError("There is no trunk to read: the specialists share no embedding")
            found = text.trunk_states
        elif reads == "experts":
            found = states.float().mean(2)
        else:
            return None
        parameter = next(self.router.parameters(), found)
        return found.to(parameter.dtype)

    def _cache(self, given: Cache | None, use_cache: bool | None) -> FusedCache | None:
        if isinstance(given, FusedCache):
            return given
        if given is not None and given.get_seq_length():
            raise FusionError(
                f"A fused model cannot go on from a {type(given).__name__}: pass the "
                "past_key_values that an earlier call returned"
            )
        if given is None and not use_cache:
            return None
        if not self.router.causal:
            raise FusionError(f"The {self.router.name} router is not causal: no cache can serve it")
        # Experts first, so that layer indices do not depend on whether the base is carried.
        names = [*self.config.experts, *([BASE] if BASE in self.branches else [])]
        return FusedCache(self.base_config, self.config.frozen_layers, names)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate text, as any Hugging Face model does; ``epsilon`` may be given too.

        Raises
        ------
        FusionError
            If the router is not causal, or a prompt is padded on the right.
        """
        if not self.router.causal:
            raise FusionError(
                f"The {self.router.name} router reads the whole sequence, future included, and "
                "cannot generate: fuse with 'evidence', 'linear' or 'uniform'"
            )
        mask = kwargs.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            raise FusionError(
                "A prompt ends in padding, and would be continued behind it: pad on the left "
                "(tokenizer.padding_side = 'left')"
            )
        return super().generate(*args, **kwargs)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        # The library would make a cache that knows neither branches nor router.
        wanted = generation_config.use_cache is not False
        if wanted and generation_config.cache_implementation is not None:
            raise FusionError("A fused model has its own cache: leave cache_implementation out")
        if wanted:
            model_kwargs["past_key_values"] = self._cache(
                model_kwargs.get("past_key_values"), use_cache=True
            )
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save as safetensors; a folder is complete or, where saving fails, as it was."""
        target = Path(save_directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", target.name)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as made:
            super().save_pretrained(made, **kwargs)
            # Without its configuration nothing loads, and weights of an earlier save in one file
            # would be loaded instead of new shards.
            artifacts.replace_files(Path(made), target, "config.json", "model*.safetensors*")

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved fused model.

        Raises
        ------
        IncompleteModelError
            If weights are missing, or a file of them cannot be read.
        """
        from safetensors import SafetensorError

        wants_info = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise fusion_checks.IncompleteModelError(
                f"The weights in {args[0]} cannot be read ({error}): save or download them again"
            ) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise fusion_checks.IncompleteModelError(
                f"{len(missing)} tensors are missing in {args[0]}, {missing[0]} first: "
                "save or download it again"
            )
        return (model, info) if wants_info else model


AutoConfig.register(FusedConfig.model_type, FusedConfig)
AutoModelForCausalLM.register(FusedConfig, FusedForCausalLM)
