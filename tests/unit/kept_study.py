"""A made-up kept ledger, to try chapters on before one is recorded.

``python tests/unit/kept_study.py FOLDER`` writes one with all domains; with ``KALAVAI_KEPT=FOLDER``
in the environment chapters speak from it. It names its text ``builtin``, so that no page takes it
for evidence of a pretrained model.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kalavai_helpers import kept_ledger, kept_runs, switching, tiers
from kalavai_helpers.ledger import WEIGHT_AVERAGE, Ledger
from kalavai_helpers.teams import SEED, TEAMS, Team

DOMAINS = ("code", "science", "fiction", "tamil")
# fmt: off
ALL = (
    "code", "science", "fiction", "tamil", "yoruba", "welsh", "spanish", "hindi", "swahili",
    "vietnamese", "arabic", "indonesian", "thai", "medical", "legal", "patent", "math", "finance",
    "chemistry", "dialogue", "instructions",
)
# fmt: on
SEEDED = DOMAINS[:3]
PROMPTS = (
    "The force on the block equals its mass times its acceleration.",
    "def half(x): return x / 2",
)


def kept_study(
    domains: tuple[str, ...] = DOMAINS,
    windows: int = 2,
    *,
    router_windows: int = 3,
    seq_len: int = 64,
    width: int = 48,
    n_columns: int = 8,
    pairs: int = 2,
    corpora: str = "builtin",
    seed: int = 0,
) -> dict[str, Any]:
    """What `kept_ledger.write` takes: a specialist is better at home and a little worse abroad.

    Parameters
    ----------
    windows, router_windows
        Documents a domain, each of one window of ``seq_len`` tokens.
    width
        Of the states: a domain has its own mean, in noise that some directions have more of.
    n_columns
        Made-up columns of held-out tokens, beside ``evidence, logits``.
    pairs
        Pairs of documents that switch, each of two windows' length, at every rate.
    """
    random = np.random.default_rng(seed)
    n = len(domains)
    models = ("base", *domains, WEIGHT_AVERAGE)
    models += tuple(kept_ledger.of_seed(d, s) for s in (137, 2026) for d in SEEDED if d in domains)
    own, read = models[: n + 1], tuple(m for m in models if m != WEIGHT_AVERAGE)
    seeded = [index for index, domain in enumerate(domains) if domain in SEEDED]
    hard = random.uniform(1.4, 4.6, n)
    home, abroad = random.uniform(0.1, 1.2, n), random.uniform(0.0, 0.3, (n, n))
    means = random.standard_normal((n, width))
    spread = np.geomspace(4, 0.25, width)

    def part(groups, pieces, role, names=models):
        """Ledger of documents, each a group and the domains of its tokens."""
        owner = np.concatenate([tokens for _, tokens in pieces])
        base = random.exponential(hard[owner])
        better = np.where(np.eye(n, dtype=bool), home[:, None], -abroad)[:, owner]
        columns = {"base": base, WEIGHT_AVERAGE: np.maximum(base - better.mean(0), 1e-4)}
        for index, domain in enumerate(domains):
            for name in (m for m in names if m.partition(",")[0] == domain):
                own = base - better[index] + 0.2 * random.standard_normal(len(owner))
                foreign = "," in name and ~np.isin(owner, seeded)
                columns[name] = np.where(foreign, np.nan, np.maximum(own, 1e-4))
        lengths = torch.tensor([len(tokens) for _, tokens in pieces])
        document = torch.arange(len(pieces)).repeat_interleave(lengths)
        noise = random.standard_normal((len(owner), width))
        return Ledger(
            models=names,
            experts=domains,
            groups=groups,
            log_probs=-torch.tensor(np.stack([columns[m] for m in names], 1)).float(),
            features=torch.tensor((means[owner] + noise) * spread).float(),
            document=document,
            window=document.clone(),
            group=torch.tensor([groups.index(group) for group, _ in pieces]),
            n_bytes=lengths * 4,
            role=role,
            source=np.array([f"{group}/{k // 2}" for k, (group, _) in enumerate(pieces)]),
        )

    def whole(count):
        return [(d, np.full(seq_len, i)) for i, d in enumerate(domains) for _ in range(count)]

    teams_in = [team for team in TEAMS if set(team.domains) <= set(domains)]
    mixed = [
        (pair, np.repeat([domains.index(d) for d in pair.split(" → ")], seq_len // 2))
        for team in teams_in
        if team.switches
        for pair in team.pairs
        for _ in range(pairs)
    ]
    for kind in (*switching.PIECES, switching.WHOLE):
        piece = seq_len if kind == switching.WHOLE else min(kind, seq_len)
        for i in range(min(n, pairs)):
            turn = np.arange(2 * seq_len) // piece % 2
            mixed.append((str(kind), np.where(turn, (i + 1) % n, i)))
    tokens = [[f" {word}" for word in prompt.split()] for prompt in PROMPTS]
    said = [
        (p, np.full(len(t), i % n)) for i, (p, t) in enumerate(zip(PROMPTS, tokens, strict=True))
    ]
    parts = {
        "heldout": part(domains, whole(windows), "heldout"),
        "router": part(domains, whole(router_windows), "router", read),
        "switching": part(tuple(dict.fromkeys(kind for kind, _ in mixed)), mixed, "heldout", own),
        "prompts": part(PROMPTS, said, "heldout", own),
    }
    held = parts["heldout"]
    names = ["evidence, logits", *(f"made up {k}" for k in range(n_columns))]
    columns = {
        name: held.log_probs[:, 1 : n + 1].mean(1) - 0.01 * k for k, name in enumerate(names)
    }
    own = (held.token_group == 0) | (held.token_group == 2)
    columns["pair: uniform, logits"] = torch.where(own, columns["evidence, logits"], torch.nan)
    gates = torch.tensor(random.dirichlet(np.ones(n), held.n_documents)).float()
    by_part = {part: {} for part in parts}
    by_part["heldout"] = columns | {"pooled/gates": gates}
    for team in teams_in:
        for name in ("heldout", "switching" if team.switches else "", "prompts"):
            if name and (name == "heldout" or team.seed == SEED):
                by_part[name] |= _columns(parts[name], name, team, random)
    return {
        "parts": parts,
        "columns": by_part,
        "about": {
            "tier": tiers.PRETRAINED,
            "corpora": corpora,
            "seed": 42,
            "date": "2026-12-01",
            "environment": {"python": "3.11", "torch": "2.13", "cores": "2"},
            "recipe": {"name": tiers.PRETRAINED, "specialist_steps": 200},
            "checkpoint": "made up: no model was run",
            "durations_s": {"train": 0, "score": 0},
            "notice": "Made-up numbers, for tests.",
            "teams": json.loads(json.dumps([asdict(team) for team in teams_in])),
        },
        "digests": {
            name: [kept_ledger.digest(f"{name} {k}") for k in range(ledger.n_documents)]
            for name, ledger in parts.items()
        },
        "tokens": [token for prompt in tokens for token in prompt],
    }


def _columns(found: Ledger, part: str, team: Team, random: np.random.Generator) -> dict:
    """Made-up columns of a team on a part, with the names that a recording gives them."""
    own, tokens = kept_runs.view(found, part, team)
    windows = found.window[tokens].unique()
    pooled = [f"pooled {s}" for s in team.router_seeds]
    pooled = pooled if len(pooled) > 1 else ["pooled"]

    def everywhere(values: torch.Tensor, rows: torch.Tensor, size: int) -> torch.Tensor:
        whole = torch.full((size, *values.shape[1:]), torch.nan)
        return whole.index_copy(0, rows, values.float())

    mean = own.expert_log_probs.exp().mean(1).log()
    made = {}
    for router in ("uniform", "linear", "prefix-mean", "evidence", "log-linear", *pooled):
        noise = torch.tensor(random.uniform(0, 0.3, len(mean)))
        made[f"{router}, logits"] = everywhere((mean - noise).clamp_max(0), tokens, len(found))
    if part == "heldout":
        made["kl"] = everywhere(torch.tensor(random.exponential(0.3, len(own))), tokens, len(found))
        if team.name != TEAMS[0].name:
            made["weight_average"] = everywhere(mean, tokens, len(found))
    n_windows = int(found.window.max()) + 1
    for name in pooled:
        weights = torch.tensor(random.dirichlet(np.ones(len(team.domains)), len(windows)))
        made[f"{name}, gates"] = everywhere(weights, windows, n_windows)
    return {f"{team.name}: {name}": values for name, values in made.items()}


def main() -> None:
    """Write a study of all domains to a folder, in the size of a recording."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--windows", type=int, default=8, help="a domain (default: 8)")
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--corpora", default="builtin", help="what the ledger says of its text")
    given = parser.parse_args()
    study = kept_study(
        ALL,
        given.windows,
        router_windows=max(2, given.windows // 2),
        seq_len=given.seq_len,
        corpora=given.corpora,
    )
    print(kept_ledger.write(given.folder / tiers.PRETRAINED, **study))


if __name__ == "__main__":
    main()
