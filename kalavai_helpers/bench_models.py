"""What is timed: models of several sizes with any number of experts, and documents to read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from . import corpora, fusion, ledger, models, packing, recorded, tiers, trunk_router
from .ledger import Ledger
from .specialists import BASE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from .trunk_router import TrunkRouter

DOMAINS = corpora.MAIN_DOMAINS
LENGTH = 512
NOTE = (
    "Three experts, their trunk and tokenizer are the recorded laptop model's, in float32, in the "
    "size it has; weights of larger sizes are random. Further experts are placeholders: copies "
    "whose evidence falls behind the original's, a token, by what separates the best of the three "
    "from the second best. No expert was trained on the text that is read: documents of the "
    "builtin corpora, unlike all that they know, or held-out documents of the source named. A "
    "document is cut from documents of one domain, or switches domain half-way."
)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Text:
    """Documents of a text source, as tokens; each starts with the end-of-text token."""

    tokenizer: Tokenizer
    source: str = "builtin"

    def windows(self, domain: str, n_bytes: int) -> packing.Windows:
        """Windows of documents that routers are fitted on."""
        documents = corpora.capped(corpora.split(self.source, domain)["router"], n_bytes)
        return packing.windows(documents, self.tokenizer, LENGTH)

    def one_domain(self, domains: tuple[str, ...], rows: int, length: int) -> torch.Tensor:
        """Documents (rows, length) of one domain each, the domains in turn."""
        pieces = [
            self._pieces(domains[row % len(domains)], length - 1, row // len(domains))
            for row in range(rows)
        ]
        return self._started(pieces)

    def switching(self, domains: tuple[str, ...], rows: int, length: int) -> torch.Tensor:
        """Documents (rows, length) that switch domain half-way, the pairs of domains in turn."""
        pairs = list(permutations(domains, 2))
        half = length // 2
        pieces = []
        for row in range(rows):
            first, second = pairs[row % len(pairs)]
            start = self._pieces(first, half - 1, row)
            pieces.append(start + self._pieces(second, length - half, rows + row))
        return self._started(pieces)

    def _started(self, pieces: list[list[int]]) -> torch.Tensor:
        end = self.tokenizer.token_to_id(packing.END)
        return torch.tensor([[end, *piece] for piece in pieces], device=device())

    def _pieces(self, domain: str, length: int, index: int) -> list[int]:
        stream = self._streams[domain]
        start = index * length % (len(stream) - length)
        return stream[start : start + length]

    @cached_property
    def _streams(self) -> dict[str, list[int]]:
        found = {}
        for domain in DOMAINS:
            texts = [document.text for document in corpora.split(self.source, domain)["heldout"]]
            encoded = self.tokenizer.encode("\n\n".join(texts), add_special_tokens=False)
            found[domain] = encoded.ids
        return found


@dataclass(frozen=True)
class Subject:
    """Base and specialists of one size, to be fused with as many experts as wanted.

    Attributes
    ----------
    trained
        Whether losses mean something.
    fitting, states, tokens
        The ledger that its router is fitted on, and what the trunk router reads of it.
    """

    base: PreTrainedModel
    specialists: dict[str, PreTrainedModel]
    frozen_layers: int
    trained: bool
    fitting: Ledger
    states: torch.Tensor
    tokens: torch.Tensor

    @property
    def size(self) -> dict[str, int]:
        """Width, layers and how many of them are frozen."""
        config = self.base.config
        return {
            "width": config.hidden_size,
            "layers": config.num_hidden_layers,
            "frozen": self.frozen_layers,
        }

    @property
    def label(self) -> str:
        """The size in words."""
        return "{width} × {layers}, {frozen} frozen".format(**self.size)

    @property
    def single(self) -> PreTrainedModel:
        """One specialist, what all is compared with."""
        return self.specialists[DOMAINS[0]]

    def domains(self, n_experts: int) -> tuple[str, ...]:
        """Domains of the first experts that are no placeholders."""
        return DOMAINS[:n_experts]

    def fused(self, n_experts: int) -> fusion.FusedForCausalLM:
        """Fused model of the first specialists and, beyond them, placeholders."""
        names = [*DOMAINS[:n_experts], *(f"expert {i + 1}" for i in range(3, n_experts))]
        experts = {n: self.specialists[DOMAINS[i % 3]] for i, n in enumerate(names)}
        return fusion.fuse(self.base, experts, self.router(n_experts), self.frozen_layers)

    def router(self, n_experts: int) -> TrunkRouter:
        """Trunk router, fitted on the experts that are no placeholders."""
        found = self.fitting.restrict(self.domains(n_experts))
        groups = torch.tensor([self.fitting.groups.index(name) for name in found.groups])
        rows = torch.isin(self.fitting.token_group, groups)
        states, tokens = self.states[rows], self.tokens[rows]
        router = trunk_router.fit(found, states, tokens, self.base.config.vocab_size)
        if n_experts <= len(DOMAINS):
            return router
        return _widened(router, n_experts, _separation(router, found, states, tokens))


def _separation(
    router: TrunkRouter, found: Ledger, states: torch.Tensor, tokens: torch.Tensor
) -> float:
    """Evidence a token, nats, between the best and the second best expert of a document."""
    evidence = functional.linear(states, router.weight, router.bias) + router.table[tokens]
    totals = evidence.new_zeros(found.n_documents, evidence.shape[1])
    totals.index_add_(0, found.document, evidence)
    first, second = totals.topk(2).values.T
    return float((first - second).sum() / len(found))


def _widened(router: TrunkRouter, n_experts: int, separation: float) -> TrunkRouter:
    """A router for more experts: copies whose evidence falls behind by ``separation`` a token."""
    n_tokens, known = router.table.shape
    wide = trunk_router.TrunkRouter(router.weight.shape[1], n_tokens, n_experts, router.alpha)
    like = [i % known for i in range(n_experts)]
    behind = separation * (torch.arange(n_experts) >= known)
    with torch.no_grad():
        wide.table.copy_(router.table[:, like])
        wide.weight.copy_(router.weight[like])
        wide.bias.copy_(router.bias[like] - behind)
    return wide.requires_grad_(False)


def recorded_subject(router_bytes: int, source: str = "builtin") -> tuple[Subject, Text]:
    """The recorded laptop model: its trunk router is fitted here, on text of the source.

    Parameters
    ----------
    router_bytes
        UTF-8 bytes a domain that the router is fitted on.
    source
        Where documents come from (see :mod:`kalavai_helpers.corpora`).
    """
    fused, _, tokenizer = recorded.fused("laptop")
    text = Text(tokenizer, source)
    whole = {name: _whole(fused, name).to(device()) for name in (BASE, *DOMAINS)}
    parts = {domain: text.windows(domain, router_bytes) for domain in DOMAINS}
    joined = packing.concatenate(list(parts.values()))
    real = torch.from_numpy((joined.targets != packing.IGNORE).sum(1))
    counts = torch.tensor([len(part.documents) for part in parts.values()])
    scores = [ledger.score(whole[name], joined, f"bench {name}")[0] for name in DOMAINS]
    fitting = Ledger(
        models=DOMAINS,
        experts=DOMAINS,
        groups=DOMAINS,
        log_probs=torch.stack(scores, 1),
        features=torch.zeros(int(real.sum()), 0),
        document=torch.from_numpy(joined.document).repeat_interleave(real),
        window=torch.arange(len(real)).repeat_interleave(real),
        group=torch.arange(len(DOMAINS)).repeat_interleave(counts),
        n_bytes=torch.tensor([len(document.text.encode()) for document in joined.documents]),
        role=joined.role,
        source=np.array([document.unit for document in joined.documents]),
    )
    base = whole.pop(BASE)
    frozen = fused.config.frozen_layers
    states, tokens = trunk_router.read(base, frozen, joined)
    return Subject(base, whole, frozen, True, fitting, states, tokens), text


def larger(subject: Subject, width: int, n_layers: int) -> Subject:
    """A model of another size, half of it frozen; random weights, heads of 32.

    Its router goes by the tokens alone, as the recorded model's ledger has it: states of a random
    trunk say nothing.
    """
    tier = tiers.get("laptop")
    tier = replace(tier, hidden_size=width, n_layers=n_layers, n_heads=width // 32)
    base = models.new_base(tier, subject.base.config.vocab_size, seed=0).to(device())
    states = torch.zeros(len(subject.tokens), width)
    specialists = dict.fromkeys(DOMAINS, base)
    return Subject(base, specialists, n_layers // 2, False, subject.fitting, states, subject.tokens)


def _whole(fused: fusion.FusedForCausalLM, name: str) -> PreTrainedModel:
    """Base or a specialist as the model it was before it was fused."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(fused.config.expert_config())
    trunk, branch = fused.family.split(model, fused.config.frozen_layers)
    trunk.load_state_dict(fused.trunk.state_dict())
    branch.load_state_dict(fused.branches[name].state_dict())
    return model.eval()
