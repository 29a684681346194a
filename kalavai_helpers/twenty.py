"""The twenty: the protocol on a model that people use, recorded piece by piece.

The published twenty domains have a specialist each, science one more, and code, science and
fiction have them of three seeds. What all of them say of every held-out and router token becomes a
kept ledger (:mod:`kalavai_helpers.kept_ledger`). Every piece stays in the store, so that a
recording that was stopped goes on where it was and ends in the same ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import torch

from . import (
    artifacts,
    checkpoints,
    compact_states,
    corpora,
    kept_checks,
    kept_ledger,
    kept_runs,
    languages,
    last_states,
    ledger,
    packing,
    pooled_fit,
    progress,
    prompts,
    recording,
    records,
    regime,
    routing,
    switching,
)
from .ledger import WEIGHT_AVERAGE, Ledger
from .packing import Windows
from .pooled_fit import Pool
from .recording import Step
from .routing import PooledRouter
from .specialists import BASE, CODE, Cooperative
from .teams import SEED, TEAMS, Team
from .tiers import Tier

EVERY = 16
"""Of the positions of a training chunk, one in so many is where a pooled router's loss is read: a
sixteenth of the memory and time, and its gates are the same at all positions of a chunk."""
PER_PAIR = 6
"""Documents that switch half-way, of every ordered pair of domains."""
INTERLEAVED = 6
"""Documents a domain that are interleaved."""
TOGETHER = 11
"""Models that one step reads a part with: each step has the trunk read it once more."""

STEP_S, READ_S, LOGITS_S, FIT_S = 2.4, 0.55, 0.2, 0.3
"""Seconds, on one quiet core of an AMD EPYC with bf16, of a training step of 512 tokens, a window
under one model, a window under one logit mixture, and a step of a pooled router's fit. They only
say how long a recording takes before there is a measurement of its own."""

NOTICE = (
    f"Log-probabilities, and {compact_states.N_COMPONENTS} directions of hidden states, of texts "
    "that are not here: neither "
    "the texts nor their token ids are part of this file, which may be used as the book itself."
)
_CODE = (
    *("twenty", "teams", "ledger", "shared_trunk", "architectures", "last_states", "pooled_fit"),
    *("routing", "filtering", "learned_routers", "router_fit"),
    *("kept_ledger", "kept_runs", "compact_states"),
)


@dataclass(frozen=True)
class Reading:
    """Models of a cooperative that read a part, or the groups of it that are named."""

    domains: tuple[str, ...]
    seed: int
    models: tuple[str, ...]
    groups: tuple[str, ...] = ()

    def pieces(self) -> Iterator[Reading]:
        """The same in pieces that are read side by side."""
        base, *others = self.models  # whose features every piece asks for
        for start in range(0, len(others), TOGETHER):
            yield replace(self, models=(base, *others[start : start + TOGETHER]))


@dataclass(frozen=True)
class Study:
    """What is recorded: a tier on a text source. The first team's weight average is a column.

    Attributes
    ----------
    recipes
        What is tried on validation text before anything else; none to leave that out.
    texts
        Prompts by title.
    """

    tier: Tier
    corpora: str
    teams: tuple[Team, ...] = TEAMS
    recipes: tuple[Tier, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, tier: Tier, spec: str) -> Study:
        """The recording of a published base.

        Raises
        ------
        CorpusError
            If the text source lacks one of the domains; names them.
        """
        made = cls(
            tier, spec, recipes=tuple(regime.tried(tier)), texts=tuple(prompts.texts().items())
        )
        lacking = sorted(set(made.domains) - set(corpora.domains(spec)))
        if lacking:
            raise corpora.CorpusError(f"{spec} has no text of {', '.join(lacking)}: add it")
        return made

    @property
    def domains(self) -> tuple[str, ...]:
        """All domains, those of the first team first."""
        return tuple(dict.fromkeys(domain for team in self.teams for domain in team.domains))

    def __post_init__(self):
        if self.tier.probe_windows:
            raise ValueError(
                f"At tier {self.tier.name!r} a specialist is one of its cooperative: teams can "
                "share specialists only where probe_windows is 0"
            )

    def cooperative(self, domains: tuple[str, ...], seed: int = SEED) -> Cooperative:
        """Specialists of some domains: a new one each time, since it holds the base it loads."""
        return Cooperative(self.tier, self.corpora, domains, seed)

    def of_team(self, team: Team) -> Cooperative:
        """Specialists of a team."""
        return self.cooperative(team.domains, team.seed)

    @cached_property
    def windows(self) -> dict[str, dict[str, Windows]]:
        """Text by part of the ledger and group."""
        whole, length = self.cooperative(self.domains), self.tier.seq_len
        parts = {
            part: {domain: whole.windows(part, domain) for domain in self.domains}
            for part in ("heldout", "router")
        }
        parts["switching"], end = {}, whole.tokenizer.token_to_id(packing.END)
        for team in (team for team in self.teams if team.switches):
            own = {domain: parts["heldout"][domain] for domain in team.domains}
            parts["switching"] |= ledger.switching(own, length, PER_PAIR, end)
            if team.interleaves:
                parts["switching"] |= switching.interleaved(self.of_team(team), INTERLEAVED, length)
        parts["prompts"] = {}
        for number, (title, text) in enumerate(self.texts):
            made = corpora.Document(f"prompt-{number}", "prompts", text, "book", "heldout", title)
            parts["prompts"][title] = packing.windows([made], whole.tokenizer, length)
        return {part: found for part, found in parts.items() if found}

    @cached_property
    def key(self) -> str:
        """Fingerprint of everything that makes the ledger."""
        text = [
            [document.id for document in one.documents] + [one.targets.tolist()]
            for found in self.windows.values()
            for one in found.values()
        ]
        return artifacts.fingerprint(
            self.tier.recipe(),
            [self.of_team(team).fingerprint() for team in self.teams],
            [asdict(team) for team in self.teams],
            text,
            artifacts.code_digest([*_CODE, *CODE]),
        )

    @property
    def state(self) -> Path:
        """Where it stands what is done and what is left."""
        return artifacts.store() / "recordings" / f"{self.tier.name}-{self.key}.json"

    def readings(self, part: str) -> Iterator[Reading]:
        """Which models read a part."""
        mixed = [domain for team in self.teams if team.switches for domain in team.domains]
        main = tuple(dict.fromkeys(mixed)) if part == "switching" else self.domains
        yield Reading(main, SEED, (BASE, *main))
        if part in ("heldout", "router"):
            for team in (team for team in self.teams if team.seed != SEED):
                yield Reading(team.domains, team.seed, (BASE, *team.domains), team.domains)
        if part == "heldout":
            yield Reading(self.teams[0].domains, SEED, (BASE, WEIGHT_AVERAGE))

    def text(self, part: str, models: Reading) -> dict[str, Windows]:
        """What some models read of a part."""
        return {g: w for g, w in self.windows[part].items() if g in (models.groups or (g,))}

    def read_with(self, part: str, models: Reading) -> Ledger:
        """The ledger of a part of some of its models; their last states are left in the store."""
        return ledger.of_windows(
            self.cooperative(models.domains, models.seed),
            self.text(part, models),
            part,
            models=models.models,
            keep_states=True,
        )

    def read(self, part: str) -> Ledger:
        """The ledger of a part, with whole states of the base; NaN where a model did not read."""
        first, *others = self.readings(part)
        whole = self.read_with(part, first)
        base = last_states.read(self.cooperative(first.domains), self.windows[part], part, (BASE,))
        whole = replace(whole, features=base.columns[0])
        for one in others:
            found = self.read_with(part, one)
            chosen = torch.tensor([whole.groups.index(group) for group in found.groups])
            tokens = torch.isin(whole.token_group, chosen)
            for name in found.models[1:]:
                title = name if one.seed == SEED else kept_ledger.of_seed(name, one.seed)
                column = torch.full((len(whole),), torch.nan)
                column[tokens] = found.column(name)
                whole = whole.with_column(title, column)
        return whole

    def has_read(self, part: str, models: Reading) -> bool:
        """Whether the store has all that :meth:`read_with` would need."""
        coop = self.cooperative(models.domains, models.seed)
        text = self.text(part, models)
        return not ledger.missing(coop, text, part, models.models, keep_states=True)

    @cached_property
    def kept(self) -> dict[str, Ledger]:
        """All parts as a reader will find them, whose routers should be those fitted here."""
        return kept_ledger.rounded({part: self.read(part) for part in self.windows})

    def view(self, part: str, team: Team) -> tuple[Ledger, torch.Tensor]:
        """A team's ledger of a part, and which tokens of the part it has."""
        return kept_runs.view(self.kept[part], part, team)

    def parts_of(self, team: Team) -> list[str]:
        """Parts of which a team's columns are recorded."""
        asked = {"heldout": True, "switching": team.switches, "prompts": team.seed == SEED}
        return [part for part in self.windows if asked.get(part)]

    def pooled(self, team: Team, seed: int, pool: Callable[[], Pool]) -> PooledRouter:
        """The published router of a team from one seed, from the store where it is there."""
        path = self._router_path(team, seed)
        saved = artifacts.load_tensors(path)
        if saved is None:
            router, _ = pooled_fit.fit(pool(), seed, self.tier.router_steps)
            saved = router.state_dict(), router.arguments()
            artifacts.save_tensors(path, *saved)
            progress.pause_point()
        router = PooledRouter(**saved[1]).requires_grad_(False)
        router.load_state_dict(saved[0])
        return router

    def columns(self, team: Team, part: str) -> dict[str, torch.Tensor]:
        """What needs logits, from the store where it is there; NaN where a team has no text.

        Returns
        -------
        By name: of all tokens (n,) ``TEAM: ROUTER, logits`` and, of held-out text, ``TEAM: kl``
        (own specialist from the base) and ``TEAM: weight_average`` (all teams but the first); of
        all windows (n_windows, N) ``TEAM: pooled, gates``. Where there are several seeds of the
        pooled router, it is ``pooled SEED``.
        """
        path = self._columns_path(team, part)
        saved = artifacts.load_tensors(path)
        if saved is None:
            saved = self._columns(team, part), {}
            artifacts.save_tensors(path, *saved)
            progress.pause_point()
        return saved[0]

    @torch.no_grad()
    def _columns(self, team: Team, part: str) -> dict[str, torch.Tensor]:
        found, tokens = self.view(part, team)
        whole, task = self.kept[part], f"logits {part} {team.name}"
        routers = kept_runs.routers(self.view("router", team)[0])
        coop = self.of_team(team)
        # Specialists of another seed read no other text, whose tokens are in the same order.
        alone = team.seed != SEED
        text = self.text(part, Reading((), SEED, (), team.domains if alone else ()))
        rows = torch.arange(len(tokens)) if alone else tokens
        states = last_states.read(coop, text, part, (BASE, *team.domains))
        experts = states.restrict(team.domains, rows)
        gates = {name: routing.ledger_gates(router, found) for name, router in routers.items()}
        means = last_states.window_means(experts, found.window)
        by_window, pool = {}, cache(partial(self.pool, team))
        for seed in team.router_seeds:
            name = "pooled" if len(team.router_seeds) == 1 else f"pooled {seed}"
            by_window[name] = self.pooled(team, seed, pool).weigh(means)
            gates[name] = by_window[name][found.window]

        def everywhere(values: torch.Tensor, rows: torch.Tensor, n: int) -> torch.Tensor:
            return torch.full((n, *values.shape[1:]), torch.nan).index_copy(0, rows, values)

        def of_tokens(values: torch.Tensor) -> torch.Tensor:
            return everywhere(values, tokens, len(whole))

        mixed = last_states.mixtures(experts, gates, task)
        made = {f"{name}, logits": of_tokens(values) for name, values in mixed.items()}
        if part == "heldout":
            kl = torch.zeros(len(found))
            for index, domain in enumerate(found.groups):
                mine = (found.token_group == index).nonzero()[:, 0]
                own = states.restrict((BASE, domain), rows[mine])
                kl[mine] = last_states.divergence(own, domain, BASE)
            made["kl"] = of_tokens(kl)
            if team != self.teams[0]:  # its average is a model of the ledger
                made["weight_average"] = of_tokens(self._average(team))
        windows = whole.window[tokens].unique()
        n_windows = int(whole.window.max()) + 1
        for name, weights in by_window.items():
            made[f"{name}, gates"] = everywhere(weights, windows, n_windows)
        return {f"{team.name}: {name}": values for name, values in made.items()}

    def _average(self, team: Team) -> torch.Tensor:
        """Log-probabilities (n,) of a team's weight average on its own text."""
        own = {d: self.windows["heldout"][d] for d in self.domains if d in team.domains}
        models = (BASE, WEIGHT_AVERAGE)
        read = ledger.of_windows(self.of_team(team), own, f"average {team.name}", models=models)
        return read.column(WEIGHT_AVERAGE)

    def pool(self, team: Team) -> Pool:
        """What the pooled routers of a team are fitted on."""
        return pooled_fit.build(self.of_team(team), most=team.chunks, every=EVERY, keep=True)

    def write(self, durations_s: dict[str, float]) -> Path:
        """Write the kept ledger."""
        parts = {part: self.read(part) for part in self.windows}
        columns: dict[str, dict[str, torch.Tensor]] = {part: {} for part in parts}
        for team in self.teams:
            for part in self.parts_of(team):
                columns[part] |= self.columns(team, part)
        tokenizer = self.cooperative(self.domains).tokenizer
        labels = [label for _, t in self.texts for label in languages.token_labels(tokenizer, t)]
        about = {
            "tier": self.tier.name,
            "corpora": self.corpora,
            "seed": SEED,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "environment": records.environment(),
            "recipe": {"name": self.tier.name, **self.tier.recipe()},
            "checkpoint": checkpoints.described(self.tier),
            "durations_s": {name: round(seconds) for name, seconds in durations_s.items()},
            "notice": NOTICE,
            "teams": [asdict(team) for team in self.teams],
            "rounding": kept_checks.cost(parts),
            "key": self.key,
        }
        return kept_ledger.write(
            kept_ledger.folder(self.tier.name),
            parts,
            columns,
            about,
            digests={part: self._digests(part) for part in parts},
            tokens=labels,
        )

    def _digests(self, part: str) -> list[str]:
        """Digest of the scored text of each document."""
        tokenizer, found = self.cooperative(self.domains).tokenizer, []
        for one in self.windows[part].values():
            for index in range(len(one.documents)):
                ids = one.targets[one.document == index]
                found.append(kept_ledger.digest(tokenizer.decode(ids[ids >= 0].tolist())))
        return found

    def _router_path(self, team: Team, seed: int) -> Path:
        code = artifacts.code_digest(["pooled_fit", "shared_trunk", "architectures", *CODE])
        key = artifacts.fingerprint(
            self.of_team(team).fingerprint(), self.tier.router_steps, team.chunks, EVERY, seed, code
        )
        return artifacts.store() / "routers" / f"{team.slug}-{seed}-{key}.safetensors"

    def _columns_path(self, team: Team, part: str) -> Path:
        return artifacts.store() / "columns" / f"{part}-{team.slug}-{self.key}.safetensors"

    def steps(self, durations_s: dict[str, float]) -> list[Step]:
        """All work in its order: validation, training, reading, routers, logits, the file."""
        training = {step.name: step for step in self._training()}
        return [
            *self._validation(),
            *training.values(),  # teams share specialists
            *self._reading(),
            *(step for team in self.teams for step in self._pooling(team)),
            *(step for team in self.teams for step in self._routing(team)),
            *(
                Step(
                    f"logits of {part}, {team.name}",
                    self._cost_of_logits(part, team),
                    self._columns_path(team, part).exists,
                    partial(self.columns, team, part),
                    "logits",
                )
                for team in self.teams
                for part in self.parts_of(team)
            ),
            Step("ledger", 60, self._is_written, lambda: self.write(durations_s)),
        ]

    def _cost_of_logits(self, part: str, team: Team) -> float:
        text = self.windows[part]
        own = {group: text[group] for group in kept_runs.groups(tuple(text), part, team)}
        return LOGITS_S * _n_windows(own) * (5 + len(team.router_seeds))

    def _is_written(self) -> bool:
        tier = self.tier.name
        return kept_ledger.there(tier) and kept_ledger.about(tier).get("key") == self.key

    def _validation(self) -> Iterator[Step]:
        if not self.recipes:
            return
        domains = regime.domains_of(self.tier, self.corpora)
        arguments = self.recipes, self.corpora, domains, SEED
        paths = list(regime.jobs(*arguments))
        cost = STEP_S * sum(r.specialist_steps * len(domains) for r in self.recipes) / len(paths)
        for number, path in enumerate(paths, 1):
            title = f"validation {number} of {len(paths)}"
            job = partial(_validate, arguments, path)
            yield Step(title, cost, path.exists, job, "validation")

        def is_kept() -> bool:
            measured = all(path.exists() for path in paths)
            return measured and regime.is_kept(self.tier, regime.measure(*arguments))

        def keep() -> None:
            regime.keep(self.tier, regime.measure(*arguments))

        yield Step("validation table", 1, is_kept, keep)

    def _training(self) -> Iterator[Step]:
        cost = STEP_S * self.tier.specialist_steps
        for team in self.teams:
            for name in team.domains:
                one = partial(self.cooperative, (name,), team.seed)
                yield Step(
                    f"specialist {name}, seed {team.seed}",
                    cost,
                    one().path(name).exists,
                    lambda one=one, name=name: one().train(name),
                    "specialist",
                )

    def _reading(self) -> Iterator[Step]:
        for part in self.windows:
            pieces = (one for models in self.readings(part) for one in models.pieces())
            for number, models in enumerate(pieces, 1):
                yield Step(
                    f"reading {part} {number}: {len(models.models)} models",
                    READ_S * _n_windows(self.text(part, models)) * len(models.models),
                    partial(self.has_read, part, models),
                    partial(self.read_with, part, models),
                    "reading",
                )

    def _pooling(self, team: Team) -> Iterator[Step]:
        """What the pooled routers are fitted on; where they are there it is not needed."""

        def done() -> bool:
            routers = all(self._router_path(team, seed).exists() for seed in team.router_seeds)
            return routers or pooled_fit.is_kept(self.of_team(team), most=team.chunks, every=EVERY)

        reading = READ_S * team.chunks * len(team.domains) ** 2
        yield Step(f"pool, {team.name}", reading, done, partial(self.pool, team), "reading")

    def _routing(self, team: Team) -> Iterator[Step]:
        for seed in team.router_seeds:
            yield Step(
                f"pooled router, {team.name}, seed {seed}",
                FIT_S * self.tier.router_steps,
                self._router_path(team, seed).exists,
                partial(self.pooled, team, seed, partial(self.pool, team)),
                "router",
            )


def _n_windows(text: dict[str, Windows]) -> int:
    return sum(len(windows.targets) for windows in text.values())


def _validate(arguments: tuple, path: Path) -> None:
    regime.jobs(*arguments)[path]()


def record(tier: Tier, spec: str, minutes: float | None = None) -> list[Step]:
    """Record the twenty, or as much as fits into so many minutes; the steps that are left."""
    study = Study.of(tier, spec)
    return recording.run(study.steps, study.state, minutes)
