"""Fusion: base, specialists and router as one causal language model.

The trunk (embedding and first k blocks) runs once, then one branch a specialist. Probability
mixing p = Σ g_i p_i is the default; logit mixing z = Σ g_i z_i is what was published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.configuration_utils import PretrainedConfig
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel

from . import models, routing
from .ledger import compact
from .specialists import BASE

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM as NeoX

MIXING = ("probability", "logit")


class FusedConfig(PretrainedConfig):
    """Configuration of a fused model: the base's, the experts' names, the router, the mixing."""

    model_type = "kalavai-fused"

    def __init__(
        self,
        base_config: dict[str, Any] | None = None,
        experts: list[str] | None = None,
        frozen_layers: int = 0,
        router: str = "evidence",
        router_arguments: dict[str, Any] | None = None,
        mixing: str = "probability",
        **kwargs: Any,
    ):
        self.base_config = base_config or {}
        self.experts = experts or []
        self.frozen_layers = frozen_layers
        self.router = router
        self.router_arguments = router_arguments or {}
        self.mixing = mixing
        super().__init__(**kwargs)


@dataclass
class FusedOutput(ModelOutput):
    """Output of a fused model.

    ``logits`` (B, T, V) are log-probabilities; ``gates`` (B, T, N); ``expert_log_probs``
    (B, T - 1, N) of the tokens that followed; ``loss`` in nats/token when labels were given.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    gates: torch.Tensor | None = None
    expert_log_probs: torch.Tensor | None = None


@dataclass
class ExpertOutput:
    """What the experts say of a batch, before any router.

    ``logits`` and ``log_probs`` (B, T, N, V); ``seen`` (B, T - 1, N): log-probability of the
    token that followed; ``features`` (B, T, F): what the router reads.
    """

    logits: torch.Tensor
    log_probs: torch.Tensor
    seen: torch.Tensor
    features: torch.Tensor | None


def mix(gates: torch.Tensor, experts: ExpertOutput, mixing: str) -> torch.Tensor:
    """Fused log-probabilities (..., V) from gates (..., N) and the experts' predictions."""
    if mixing == "probability":
        return routing.fuse_log_probs(gates[..., None, :], experts.log_probs.transpose(-1, -2))
    return (gates[..., None] * experts.logits).sum(-2).log_softmax(-1)


class FusedForCausalLM(PreTrainedModel, GenerationMixin):
    """Specialists behind a router, as one Hugging Face causal language model.

    The base is carried as one more branch, for routers that read its states; it is no expert.
    """

    config_class = FusedConfig
    base_model_prefix = "fused"

    def __init__(self, config: FusedConfig):
        super().__init__(config)
        neox = GPTNeoXConfig(**config.base_config)
        neox._attn_implementation = "sdpa"
        self.base_config = neox
        parts = {name: GPTNeoXForCausalLM(neox) for name in (BASE, *config.experts)}
        self.trunk = models.trunk(parts[BASE], config.frozen_layers)
        self.branches = torch.nn.ModuleDict(
            {name: models.branch(part, config.frozen_layers) for name, part in parts.items()}
        )
        self.rotary = parts[BASE].gpt_neox.rotary_emb
        self.router = routing.make(config.router, **config.router_arguments)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> FusedOutput:
        """Run trunk, branches and router.

        Parameters
        ----------
        input_ids, attention_mask, labels
            (B, T) as for any causal language model; labels are shifted inside.
        """
        experts = self.run_experts(input_ids, attention_mask)
        gates = self.route(experts, attention_mask)
        fused = mix(gates, experts, self.config.mixing)
        loss = None
        if labels is not None:
            loss = functional.nll_loss(fused[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return FusedOutput(loss=loss, logits=fused, gates=gates, expert_log_probs=experts.seen)

    def run_experts(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> ExpertOutput:
        """Run the trunk once, then every branch that experts and router need."""
        hidden = self.trunk["embed"](input_ids)
        mask = create_causal_mask(
            config=self.base_config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=None,
        )
        hidden = models.run_layers(self.trunk["layers"], hidden, self.rotary, mask)
        names = list(self.config.experts)
        states = {name: self._branch(name, hidden, mask) for name in names}
        logits = torch.stack([self.branches[n]["head"](states[n]).float() for n in names], 2)
        log_probs = logits.log_softmax(-1)
        following = input_ids[:, 1:, None, None].expand(-1, -1, len(names), 1)
        seen = log_probs[:, :-1].gather(-1, following)[..., 0]
        features = None
        if self.router.reads == "base":
            features = compact(self._branch(BASE, hidden, mask).float())
        elif self.router.reads == "experts":
            features = torch.stack([states[n] for n in names]).float().mean(0)
        return ExpertOutput(logits, log_probs, seen, features)

    def route(
        self, experts: ExpertOutput, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gates (B, T, N) of the router."""
        real = None if attention_mask is None else attention_mask.bool()
        return self.router(experts.features, functional.pad(experts.seen, (0, 0, 0, 1)), real)

    def _branch(self, name: str, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        part = self.branches[name]
        return part["norm"](models.run_layers(part["layers"], hidden, self.rotary, mask))

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate text; a router that reads the future cannot.

        Raises
        ------
        ValueError
            If the router is not causal.
        """
        if not self.router.causal:
            raise ValueError(
                f"The {self.config.router} router reads the whole sequence, future included, and "
                "cannot generate: fuse with 'evidence', 'linear' or 'uniform'"
            )
        return super().generate(*args, use_cache=False, **kwargs)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict:
        """Whole prefix at each step: there is no cache yet."""
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}


AutoConfig.register(FusedConfig.model_type, FusedConfig)
AutoModelForCausalLM.register(FusedConfig, FusedForCausalLM)


def fuse(
    base: NeoX,
    specialists: dict[str, NeoX],
    router: routing.Router | str,
    frozen_layers: int,
    mixing: str | None = None,
) -> FusedForCausalLM:
    """Fuse specialists that share the base's embedding and first ``frozen_layers`` blocks.

    Parameters
    ----------
    router
        A router, or the name of one that needs no fitting.
    mixing
        ``"probability"`` or ``"logit"``; by default what the router was made for.

    Raises
    ------
    ValueError
        For an unknown mixing, or a specialist whose trunk differs from the base's.
    """
    router = routing.make(router) if isinstance(router, str) else router
    mixing = mixing or router.mixing
    if mixing not in MIXING:
        raise ValueError(f"Unknown mixing {mixing!r}: choose one of {', '.join(MIXING)}")
    expected = models.trunk(base, frozen_layers).state_dict()
    for name, specialist in specialists.items():
        found = models.trunk(specialist, frozen_layers).state_dict()
        wrong = [key for key in expected if not torch.equal(expected[key], found[key])]
        if wrong:
            raise ValueError(
                f"Specialist {name!r} does not share the trunk of {frozen_layers} frozen layers: "
                f"{wrong[0]} differs from the base. Fuse with a smaller frozen_layers"
            )
    config = FusedConfig(
        base_config=base.config.to_dict(),
        experts=list(specialists),
        frozen_layers=frozen_layers,
        router=router.name,
        router_arguments=router.arguments(),
        mixing=mixing,
        bos_token_id=base.config.bos_token_id,
        eos_token_id=base.config.eos_token_id,
        pad_token_id=base.config.eos_token_id,
        vocab_size=base.config.vocab_size,
    )
    fused = FusedForCausalLM(config)
    fused.trunk.load_state_dict(expected)
    for name, model in {BASE: base, **specialists}.items():
        fused.branches[name].load_state_dict(models.branch(model, frozen_layers).state_dict())
    fused.router.load_state_dict(router.state_dict())
    return fused.eval()
