"""One cooperative, asked everything: ledger, fitted routers and fused scores.

Each part is read from the store where it is there, so that chapters can share a cooperative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from . import (
    artifacts,
    builtin_text,
    convergence,
    evaluation,
    fusion,
    ledger,
    packing,
    parallel,
    pooled_fit,
    router_fit,
    routing,
    scoring,
)
from .evaluation import Fused
from .ledger import Ledger
from .packing import Windows
from .specialists import BASE, CODE, Cooperative

POOLED = "pooled"
CONVERGED = "pooled, converged"
LINEAR = "pooled, linear"
_CODE = (
    *("experiment", "ledger", "routing", "filtering", "scoring", "pooled_fit", "convergence"),
    *("learned_routers", "router_fit"),
    *("architectures", "shared_trunk", "fused_model", "fusion", "mixing", "reading", "stacking"),
)


@dataclass(frozen=True)
class Experiment:
    """A trained cooperative with its ledger, routers and fused log-probabilities.

    ``fused`` has an entry a router: probability mixing for the causal ones, and the pooled ones as
    published (not causal, logit mixing); then the causal ones again under ``NAME, logits``.
    All on the ledger's tokens.

    ``pooled`` is the router published for the base (two layers, or linear for 1B and 6.9B) after
    the published number of steps, ``pooled, converged`` the same trained on (``pooled_steps`` steps
    in all, cut short if ``capped``), and ``pooled, linear`` the linear one where it is another.
    """

    cooperative: Cooperative
    ledger: Ledger
    routers: dict[str, routing.Router]
    fused: dict[str, Fused]
    pooled_steps: int
    capped: bool

    def model(self, router: str) -> fusion.FusedForCausalLM:
        """The fused model with one of the routers."""
        return _fuse(self.cooperative, self.routers[router])

    def switching(self) -> Experiment:
        """The same cooperative and routers on documents that switch domain half-way."""
        coop = self.cooperative
        held_out = {domain: coop.windows("heldout", domain) for domain in coop.domains}
        end = coop.tokenizer.token_to_id(packing.END)
        parts = ledger.switching(held_out, coop.tier.seq_len, end=end)
        found, fused = _evaluate(coop, parts, "switching", self.routers)
        return replace(self, ledger=found, fused=fused)


def describe(cooperative: Cooperative) -> pd.DataFrame:
    """What each domain gives: documents and UTF-8 bytes by role, one row a domain."""
    rows = {}
    for domain in cooperative.domains:
        row = {}
        for role in ("train", "router", "heldout"):
            documents = cooperative.documents(domain, role)
            row[f"{role} documents"] = len(documents)
            row[f"{role} kB"] = round(sum(len(d.text.encode()) for d in documents) / 1000)
        rows[domain] = row
    return pd.DataFrame(rows).T


def origins(cooperative: Cooperative) -> dict[str, str]:
    """One honest sentence a domain on where its text comes from."""
    if cooperative.corpora == "builtin":
        return {domain: builtin_text.describe(domain) for domain in cooperative.domains}
    where = "the published data set" if cooperative.corpora == "hub" else "the folder you named"
    return {domain: f"Documents of {where}." for domain in cooperative.domains}


def curves(cooperative: Cooperative) -> pd.DataFrame:
    """Held-out loss while training: columns specialist, step, domain, loss (nats/token)."""
    rows = []
    for specialist in cooperative.domains:
        history = cooperative.history(specialist)
        for step, probe in zip(history.steps, history.probes, strict=True):
            rows += [
                {"specialist": specialist, "step": step, "domain": domain, "loss": loss}
                for domain, loss in probe.items()
            ]
    return pd.DataFrame(rows)


def run(cooperative: Cooperative) -> Experiment:
    """Evaluate a cooperative on its held-out documents, training what is missing."""
    parts = {domain: cooperative.windows("heldout", domain) for domain in cooperative.domains}
    fitting = ledger.build(cooperative, "router")
    pooled, steps, capped = _pooled(cooperative)
    routers = {
        "uniform": routing.UniformRouter(),
        **pooled,
        "linear": routing.fit_linear(fitting),
        "prefix-mean": router_fit.fit_prefix_mean(fitting),
        "evidence": routing.EvidenceRouter(),
    }
    found, fused = _evaluate(cooperative, parts, "heldout", routers)
    return Experiment(cooperative, found, routers, fused, steps, capped)


def run_all(cooperatives: Sequence[Cooperative]) -> list[Experiment]:
    """Evaluate several cooperatives; what is new to the store side by side."""
    fresh = [cooperative for cooperative in cooperatives if not _pooled_path(cooperative).exists()]
    # The longest first, and the mixtures at last: they need the pooled routers and all gates.
    parts = [partial(_pooled, cooperative) for cooperative in fresh]
    parts += [partial(ledger.build, c, role) for role in ("heldout", "router") for c in fresh]
    for tasks in parts, [partial(run, cooperative) for cooperative in fresh]:
        parallel.leave_in_store(tasks)
    return [run(cooperative) for cooperative in cooperatives]


def _evaluate(
    cooperative: Cooperative,
    parts: dict[str, Windows],
    role: str,
    routers: dict[str, routing.Router],
) -> tuple[Ledger, dict[str, Fused]]:
    found = ledger.of_windows(cooperative, parts, role)
    fused = evaluation.route(found, {n: r for n, r in routers.items() if r.causal})
    windows = packing.concatenate(list(parts.values()))
    given = {name: entry.gates for name, entry in fused.items()}
    pooled = {name: router for name, router in routers.items() if not router.causal}
    fused |= _logit_mixtures(cooperative, pooled, windows, role, given)
    return found, fused


def _fuse(cooperative: Cooperative, router: routing.Router) -> fusion.FusedForCausalLM:
    specialists = {domain: cooperative.model(domain) for domain in cooperative.domains}
    # With the base, so that any of the routers can be tried on the same model.
    return fusion.fuse(
        cooperative.model(BASE),
        specialists,
        router,
        cooperative.tier.frozen_layers,
        keep_base=True,
    )


def _key(cooperative: Cooperative, *parts: object) -> str:
    code = artifacts.code_digest([*_CODE, *CODE])
    return artifacts.fingerprint(cooperative.fingerprint(), cooperative.tier.recipe(), code, *parts)


def _pooled_path(cooperative: Cooperative) -> Path:
    return artifacts.store() / "routers" / f"pooled-{_key(cooperative)}.safetensors"


def _pooled(cooperative: Cooperative) -> tuple[dict[str, routing.PooledRouter], int, bool]:
    """Pooled routers by name, the steps of the converged one, and whether it was cut short."""
    path = _pooled_path(cooperative)
    saved = artifacts.load_tensors(path)
    if saved is None:
        tier, seed = cooperative.tier, cooperative.seed
        # All fits draw from one pool of states, which the experts read once.
        pool = pooled_fit.build(cooperative)
        checks = pooled_fit.build(cooperative, role="router", most=convergence.CHECKS)
        width = pooled_fit.published_width(tier)
        whole = convergence.converge(pool, checks, seed, width)
        routers = {POOLED: pooled_fit.fit(pool, seed, tier.router_steps, width=width)[0]}
        if width is not None:
            routers[LINEAR] = pooled_fit.fit(pool, seed, tier.router_steps, width=None)[0]
        routers[CONVERGED] = whole.router
        tensors = {f"{n}/{k}": v for n, r in routers.items() for k, v in r.state_dict().items()}
        made = {name: router.arguments() for name, router in routers.items()}
        saved = tensors, {"made": made, "steps": whole.steps, "capped": whole.capped}
        artifacts.save_tensors(path, *saved)
    tensors, known = saved
    routers = {}
    for name, arguments in known["made"].items():
        routers[name] = routing.PooledRouter(**arguments).requires_grad_(False)
        own = {k: v for k, v in tensors.items() if k.startswith(f"{name}/")}
        routers[name].load_state_dict({k.removeprefix(f"{name}/"): v for k, v in own.items()})
    return routers, known["steps"], known["capped"]


def _logit_mixtures(
    cooperative: Cooperative,
    pooled: dict[str, routing.PooledRouter],
    windows: Windows,
    role: str,
    gates: dict[str, torch.Tensor],
) -> dict[str, Fused]:
    """The pooled routers as published, and the logit mixture under each of the given gates."""
    key = _key(cooperative, [document.id for document in windows.documents])
    path = artifacts.store() / "ledgers" / f"logits-{role}-{key}.safetensors"
    saved = artifacts.load_tensors(path)
    if saved is None:
        task = f"logit mixing {role} (seed {cooperative.seed})"
        model = _fuse(cooperative, pooled[POOLED]).to(cooperative.tier.device()[0])
        others = {name: router.to(model.device) for name, router in pooled.items()}
        scored = scoring.score(model, windows, task, {**others, **gates})[1]
        tensors = {name: fused.log_probs for name, fused in scored.items()}
        tensors |= {f"{name}/gates": scored[name].gates for name in pooled}
        saved = tensors, {}
        artifacts.save_tensors(path, *saved)
    tensors = saved[0]
    mixtures = {name: Fused(tensors[name], tensors[f"{name}/gates"]) for name in pooled}
    return mixtures | {f"{name}, logits": Fused(tensors[name], gates[name]) for name in gates}
