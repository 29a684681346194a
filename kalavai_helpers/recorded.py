"""Recorded runs: what a heavier tier measured once, kept in ``data/recorded/``.

A run is the records of its chapters with recipe, environment and duration; one small fused model
goes with it, so that a page can show routing by a model that has read real text.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import artifacts, records, tiers
from .tiers import Tier

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from .fusion import FusedForCausalLM
    from .routing import Router


def folder(tier: str) -> Path:
    """Where the recorded runs of a tier are kept."""
    return artifacts.data() / "recorded" / tier


def load(chapter: str, tier: str = "laptop") -> dict[str, Any]:
    """Records, tables, recipe, environment and duration of a recorded chapter.

    Raises
    ------
    FileNotFoundError
        If the chapter was not recorded at this tier.
    """
    path = folder(tier) / f"{chapter}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: no run of {chapter} at tier {tier} has been recorded"
        )
    return json.loads(path.read_text("utf-8"))


OUTCOMES = ("kept", "replaced", "failed", "skipped", "abandoned")


@dataclass(frozen=True)
class Entry:
    """One line of the history of recorded runs.

    Attributes
    ----------
    date, tier, chapter, seeds
        Day (empty if it never ran), tier, chapter or ``bench``, seeds and text as words.
    outcome
        One of ``OUTCOMES``.
    reason
        Why, and what was known when it was decided.
    """

    date: str
    tier: str
    chapter: str
    seeds: str
    outcome: str
    reason: str


def history() -> list[Entry]:
    """Every run of a recorded experiment, with those that failed, were replaced or never ran.

    Raises
    ------
    ValueError
        If a line has an unknown outcome or no reason; names the line.
    """
    path = artifacts.data() / "recorded" / "runs.csv"
    with path.open(encoding="utf-8", newline="") as file:
        found = [Entry(**line) for line in csv.DictReader(file)]
    for number, entry in enumerate(found, 2):
        if entry.outcome not in OUTCOMES or not entry.reason:
            raise ValueError(f"{path}, line {number}: give one of {OUTCOMES} and a reason")
    return found


def keep(chapter: str, tier: Tier, duration_s: float) -> Path:
    """Keep the records that a chapter has just saved, with its recipe and duration."""
    run = records.load(chapter, tier.name)
    # What it computed from another recording is not of this run.
    run.pop("sides", None)
    # The place of a corpus on the machine that ran is nobody's business.
    run["corpora"] = run["corpora"].partition(":")[0]
    run |= {"recipe": {"name": tier.name, **tier.recipe()}, "duration_s": round(duration_s)}
    return artifacts.write_json(folder(tier.name) / f"{chapter}.json", run)


def keep_side(chapter: str, tier: str = tiers.PRETRAINED, built: str = "ci") -> Path:
    """Keep what a chapter has just computed from a recorded ledger, for readers to be held to.

    Raises
    ------
    KeyError
        If the built chapter has no side run at this tier.
    """
    sides = records.load(chapter, built).get("sides", {})
    if tier not in sides:
        raise KeyError(f"chapter {chapter}, built at tier {built}, computed nothing of tier {tier}")
    return artifacts.write_json(folder(tier) / f"{chapter}.json", sides[tier])


def differences(run: Mapping[str, Any], past: Mapping[str, Any]) -> list[str]:
    """One sentence for every record of two runs that is not printed alike, to its last digit."""
    found, wanted = run["records"], past["records"]
    problems = [
        f"{run['chapter']}/{name} was recorded only {'before' if name in wanted else 'now'}"
        for name in sorted(found.keys() ^ wanted.keys())
    ]
    for name in sorted(found.keys() & wanted.keys()):
        for what in ("value", "low", "high"):
            now, then = found[name][what], wanted[name][what]
            if not _printed_alike(now, then):
                problems.append(f"{run['chapter']}/{name}: {what} is {now!r}, it was {then!r}")
    return problems


def _printed_alike(one: float | str | None, other: float | str | None) -> bool:
    if one is None or other is None or isinstance(one, str) or isinstance(other, str):
        return one == other
    # Tables and verdicts print four digits; a rounding error must not tip the last of them.
    return f"{one:.4g}" == f"{other:.4g}" or math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)


def keep_fused(tier: Tier, seed: int, source: str) -> Path:
    """Keep the fused model of chapter 1 in float16, with its routers and tokenizer.

    Weights that are shipped must come from text whose licence allows it: ``folder-open:PATH``
    or ``builtin``.

    Raises
    ------
    ValueError
        For any other source.
    """
    from . import corpora, experiment, hf_tokenizer
    from .specialists import Cooperative

    if not source.startswith(("folder-open:", "builtin")):
        raise ValueError(f"Weights trained on {source} may not be shipped: use folder-open:PATH")
    domains = corpora.choose(source, corpora.MAIN_DOMAINS)
    run = experiment.run(Cooperative(tier, source, domains, seed, base_seed=seed))
    target = folder(tier.name) / "fused"
    run.model("evidence").half().save_pretrained(target)
    hf_tokenizer.save(run.cooperative.tokenizer, target)
    states, arguments = {}, {}
    for name, router in run.routers.items():
        arguments[name] = {"name": router.name, **router.arguments()}
        states |= {f"{name}.{key}": value for key, value in router.state_dict().items()}
    artifacts.save_tensors(target / "routers.safetensors", states, arguments)
    return target


def fused(tier: str = "laptop") -> tuple[FusedForCausalLM, dict[str, Router], Tokenizer]:
    """Load the recorded fused model with its routers and tokenizer.

    Raises
    ------
    FileNotFoundError
        If no fused model was recorded at this tier, or one of its files is missing.
    """
    import torch
    from tokenizers import Tokenizer

    from . import fusion, routing

    source = folder(tier) / "fused"
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not there: no fused model was recorded at {tier}")
    for name in ("config.json", "routers.safetensors", "tokenizer.json"):
        if not (source / name).is_file():
            raise FileNotFoundError(
                f"{source / name} is missing: copy or check out the folder again"
            )
    model = fusion.FusedForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    states, arguments = artifacts.load_tensors(source / "routers.safetensors")
    routers = {}
    for name, options in arguments.items():
        routers[name] = routing.make(**{"name": name, **options})
        prefix = f"{name}."
        routers[name].load_state_dict(
            {k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)}
        )
    return model, routers, Tokenizer.from_file(str(source / "tokenizer.json"))
