"""What routers and newcomers cost: fits from the ledger against the published loop, and joining."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import evaluation, ledger, membership, packing, router_fit, routing, scoring, trunk_router
from .bench_models import device
from .ledger import WEIGHT_AVERAGE
from .specialists import BASE, Cooperative
from .timing import Bar, Measurement, Spread, Timing, interleaved

if TYPE_CHECKING:
    from .bench import Plan
    from .losses import Losses
    from .routing import Router

PUBLISHED = "published loop"
SCORES = "writing the ledger"
FEW_SCORES = "writing an eighth of the ledger"
STATES = "reading the trunk"
EVIDENCE = "evidence, α fitted on an eighth of the documents"
EIGHTH = 8


def fits(cooperative: Cooperative, plan: Plan) -> Iterator[Measurement]:
    """Time of the published router fit as a multiple of fits from the ledger.

    The published loop runs N whole models forward at each of its steps, on the contributors'
    training text; a ledger is written once, on documents that the specialists did not train on.
    """
    tier, domains = cooperative.tier, cooperative.domains
    parts = {domain: cooperative.windows("router", domain) for domain in domains}
    read = packing.concatenate(list(parts.values()))
    fitting, held_out = (ledger.build(cooperative, role) for role in ("router", "heldout"))
    # One number is fitted: it needs few documents, and no states of the base.
    few_parts = {d: _every(cooperative, d, EIGHTH) for d in domains}
    few, few_read = ledger.of_windows(cooperative, few_parts, "router"), list(few_parts.values())
    whole = {name: cooperative.model(name).to(device()) for name in (BASE, *domains)}
    base, frozen = whole[BASE], tier.frozen_layers
    specialists = {domain: whole[domain] for domain in domains}
    states, tokens = trunk_router.read(base, frozen, read)
    vocab = base.config.vocab_size
    routers: dict[str, Callable[[], Router]] = {
        EVIDENCE: lambda: router_fit.fit_alpha(few),
        "linear, L-BFGS": lambda: routing.fit_linear(fitting),
        "linear, EM": lambda: router_fit.fit_em(fitting).router,
        "trunk": lambda: trunk_router.fit(fitting, states, tokens, vocab),
    }
    steps, chunks = plan.router_steps, _training_text(cooperative)
    published = partial(
        scoring.fit_pooled, base, specialists, 0, chunks, steps, cooperative.seed, device=device()
    )
    calls = {
        PUBLISHED: published,
        SCORES: partial(_score, whole, read),
        FEW_SCORES: partial(_score, specialists, packing.concatenate(few_read)),
        STATES: partial(trunk_router.read, base, frozen, read),
        **routers,
    }
    found = interleaved(calls, plan.router_repeats, warmup=0)
    windows = packing.concatenate([cooperative.windows("heldout", d) for d in domains])
    seen = trunk_router.read(base, frozen, windows)
    fused = {PUBLISHED: scoring.score(published(), windows, PUBLISHED)[0].log_probs}
    for name, fit in routers.items():
        router = fit()
        gates = (
            trunk_router.gates(router, held_out, *seen)
            if router.reads == "trunk"
            else routing.ledger_gates(router, held_out)
        )
        fused[name] = routing.fuse_log_probs(gates, held_out.expert_log_probs)
    table = evaluation.losses(held_out, fused)
    where = {"tier": tier.name, "experts": len(domains)}
    changes = {name: _change(table, name) for name in routers}
    judged = _judged(changes, found)
    for name, fit in routers.items():
        also = {
            "seconds": found[name].spread.value,
            "published_seconds": found[PUBLISHED].spread.value,
            "published_steps": steps,
            "loss": float(table.equal_weight(name)),
            "published_loss": float(table.equal_weight(PUBLISHED)),
            "deterministic": _equal(fit(), fit()),
        }
        n_tokens = len(few if name == EVIDENCE else fitting)
        named = where | {"router": name, "tokens": n_tokens}
        yield Measurement(
            "router",
            f"{name}: held-out loss above the published router's",
            changes[name],
            "nats",
            Bar("≤", 0.0) if name == judged else None,
            named,
            {"interval": "95 % over documents"},
        )
        written = found[FEW_SCORES if name == EVIDENCE else SCORES]
        written = written + found[STATES] if name == "trunk" else written
        for counted, timing, bar in (
            (False, found[name], 100.0),
            (True, found[name] + written, 4.0),
        ):
            yield Measurement(
                "router",
                f"{name}: published / fit" + (" and writing the ledger" if counted else ""),
                found[PUBLISHED].over(timing),
                bar=Bar("≥", bar) if name == judged else None,
                where=named | {"ledger_counted": counted},
                also=also,
            )


def _change(table: Losses, name: str) -> Spread:
    """Equal-weight loss above the published router's, with its interval over documents."""
    found = table.interval(lambda w: table.equal_weight(name, w) - table.equal_weight(PUBLISHED, w))
    return Spread(found.value, found.low, found.high)


def _judged(changes: dict[str, Spread], found: dict[str, Timing]) -> str:
    """The fit that the bars are for: the fastest of those that lose nothing, or the best."""
    enough = [name for name, change in changes.items() if change.value <= 0]
    if enough:
        return min(enough, key=lambda name: found[name].spread.value)
    return min(changes, key=lambda name: changes[name].value)


def joining(cooperative: Cooperative, plan: Plan) -> Iterator[Measurement]:
    """Seconds for a fourth specialist to join three; only the newcomer's model runs."""
    tier = replace(cooperative.tier, heldout_bytes=plan.join_bytes)
    cooperative = replace(cooperative, tier=tier)
    held_out = ledger.build(cooperative, "heldout")
    newcomer = cooperative.model(WEIGHT_AVERAGE).to(device())
    parts = [cooperative.windows("heldout", domain) for domain in cooperative.domains]
    windows = packing.concatenate(parts)
    scores = held_out.column(WEIGHT_AVERAGE)
    found = interleaved(
        {
            "score": lambda: ledger.score(newcomer, windows, "bench newcomer"),
            "join": lambda: membership.join(held_out, "newcomer", scores),
        },
        plan.router_repeats,
    )
    where = {"tier": cooperative.tier.name, "experts": 4, "tokens": len(held_out)}
    label = f"a fourth joins three on {len(held_out):,} tokens, with certificate"
    also = {"score_seconds": found["score"].spread.value, "newcomer": "the weight average"}
    total = (found["join"] + found["score"]).spread
    yield Measurement("join", label, total, "s", Bar("≤", 5.0), where, also)
    yield Measurement(
        "join", f"{label}, its scores at hand", found["join"].spread, "s", None, where
    )


def _score(models: dict[str, torch.nn.Module], windows: packing.Windows) -> None:
    for name, model in models.items():
        ledger.score(model, windows, f"bench {name}", states=name == BASE)


def _every(cooperative: Cooperative, domain: str, nth: int) -> packing.Windows:
    """Windows of every so many router documents of a domain."""
    documents = cooperative.documents(domain, "router")[::nth]
    return packing.windows(documents, cooperative.tokenizer, cooperative.tier.seq_len)


def _training_text(cooperative: Cooperative) -> packing.Chunks:
    seq_len, tokenizer = cooperative.tier.seq_len, cooperative.tokenizer
    parts = [
        packing.pack(cooperative.documents(domain, "train"), tokenizer, seq_len)
        for domain in cooperative.domains
    ]
    ids, owners = zip(*((part.input_ids, part.document) for part in parts), strict=True)
    return packing.Chunks(np.concatenate(ids), np.concatenate(owners), parts[0].role)


def _equal(one: Router, other: Router) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
