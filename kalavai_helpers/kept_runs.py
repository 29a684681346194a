"""Kept runs: teams of a kept ledger, routed and fused as a chapter does with its own cooperative.

Routers are fitted here, on what the ledger keeps of router documents. What needs logits or all
experts' states (logit mixtures, the published pooled router) was computed by the recording and is
read from its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from . import evaluation, kept_ledger, router_fit, routing, switching
from .evaluation import Fused
from .kept_ledger import Kept
from .ledger import WEIGHT_AVERAGE, Ledger
from .routing import Router
from .teams import ENGLISH, SEED, TEAMS, Team

LOGITS = ", logits"


@dataclass(frozen=True)
class KeptRun:
    """A team on a part of a kept ledger, with the names of :class:`experiment.Experiment`.

    Attributes
    ----------
    fitting
        Router documents, which its routers were fitted on.
    ledger
        Base, specialists and, of held-out text, the weight average.
    routers
        The causal ones.
    fused
        Probability mixing under each of ``routers``, logit mixing under ``NAME, logits``, and the
        published router (not causal, logit mixing) as ``pooled``, or as ``pooled SEED`` where it
        was fitted from several seeds.
    """

    team: Team
    fitting: Ledger
    ledger: Ledger
    routers: dict[str, Router]
    fused: dict[str, Fused]

    @property
    def domains(self) -> tuple[str, ...]:
        """Whose specialists take part."""
        return self.team.domains

    def losses(self) -> evaluation.Losses:
        """Losses of all models and fused models."""
        return evaluation.losses(
            self.ledger, {name: fused.log_probs for name, fused in self.fused.items()}
        )


@cache
def ledger() -> Kept | None:
    """The kept ledger, read once in a process; None where nothing was recorded."""
    return kept_ledger.read() if kept_ledger.there() else None


def team(name: str) -> Team:
    """A team by its name."""
    return {team.name: team for team in TEAMS}[name]


def groups(names: Sequence[str], part: str, team: Team) -> tuple[str, ...]:
    """Whose documents of a part are a team's, of all that the part has."""
    if part == "switching":
        mixed = (*map(str, switching.PIECES), switching.WHOLE) if team.interleaves else ()
        return (*team.pairs, *mixed)
    return tuple(names) if part == "prompts" else team.domains


def view(found: Ledger, part: str, team: Team) -> tuple[Ledger, torch.Tensor]:
    """A team's ledger of a part, and which tokens of the part it has."""
    chosen = groups(found.groups, part, team)
    own = (
        found.restrict(team.domains, chosen)
        if team.seed == SEED
        else kept_ledger.at_seed(found, team.domains, team.seed)
    )
    indices = torch.tensor([found.groups.index(group) for group in chosen])
    return own, torch.isin(found.token_group, indices).nonzero()[:, 0]


def routers(fitting: Ledger) -> dict[str, Router]:
    """Causal routers of a cooperative, fitted on its router documents."""
    return {
        "uniform": routing.UniformRouter(),
        "linear": routing.fit_linear(fitting),
        "prefix-mean": router_fit.fit_prefix_mean(fitting),
        "evidence": routing.EvidenceRouter(),
        "log-linear": router_fit.fit_log_linear(fitting),
    }


def of(kept: Kept, team: Team, part: str = "heldout") -> KeptRun:
    """A team on a part of a kept ledger.

    Raises
    ------
    KeyError
        If the team did not read the part.
    """
    prefix, suffix = f"{team.name}: ", ", gates"
    columns = {
        name.removeprefix(prefix): column
        for name, column in kept.columns[part].items()
        if name.startswith(prefix)
    }
    if not columns:
        raise KeyError(f"Team {team.name!r} did not read {part!r}")
    fitting, _ = view(kept.parts["router"], "router", team)
    own, tokens = view(kept.parts[part], part, team)
    fitted = routers(fitting)
    fused = evaluation.route(own, fitted)
    windows = kept.parts[part].window[tokens].unique()
    gates = {
        name.removesuffix(suffix): column[windows][own.window]
        for name, column in columns.items()
        if name.endswith(suffix)
    }
    for name in [name for name in columns if name.endswith(LOGITS)]:
        router, log_probs = name.removesuffix(LOGITS), columns[name][tokens]
        pooled = router in gates
        weights = gates[router] if pooled else fused[router].gates
        fused[router if pooled else name] = Fused(log_probs, weights)
    if "weight_average" in columns:
        own = own.with_column(WEIGHT_AVERAGE, columns["weight_average"][tokens])
    elif part == "heldout":
        own = own.with_column(WEIGHT_AVERAGE, kept.parts[part].column(WEIGHT_AVERAGE)[tokens])
    return KeptRun(team, fitting, own, fitted, fused)


def seeds(kept: Kept, teams: Sequence[Team] = ENGLISH) -> list[KeptRun]:
    """One cooperative by its specialists of the seeds that were recorded, on held-out text."""
    recorded = {team["name"] for team in kept.about["teams"]}
    return [of(kept, team) for team in teams if team.name in recorded]


def kl(kept: Kept, team: Team) -> torch.Tensor:
    """KL (n,) of a token's own specialist from the base, nats, of a team's held-out tokens."""
    _, tokens = view(kept.parts["heldout"], "heldout", team)
    return kept.columns["heldout"][f"{team.name}: kl"][tokens]
