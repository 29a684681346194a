"""Provenance: what a recorded ledger is of, in words for a page.

Everything is read from the ledger itself, so that a page cannot say more than was recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from . import checkpoints, kept_ledger, progress, prose, tiers, wording
from .kept_ledger import Kept
from .ledger import Ledger

PART_NAMES = {
    "heldout": "to compare models",
    "router": "to fit routers",
    "switching": "that change their domain midway",
    "prompts": "of the book's own prompts",
}
"""What the documents of a part are for."""


def lines(kept: Kept | None) -> list[tuple[str, str]]:
    """Headings and sentences on a recorded ledger; one that says so where there is none."""
    if kept is None:
        text = f"nothing was recorded at tier {tiers.PRETRAINED}, so no statement has this level."
        return [("Recorded ledger", text)]
    about = kept.about
    told = [
        ("Base", _base(about)),
        ("Specialists", _specialists(kept.parts["heldout"], about["recipe"])),
        ("Text", _text(kept)),
        ("Recording", _recording(about)),
        ("What is kept", _size(about)),
    ]
    return [(title, text[0].upper() + text[1:]) for title, text in told]


def _base(about: Mapping[str, Any]) -> str:
    found = about["checkpoint"]
    what = "commit" if found["where"] == checkpoints.HUB else "SHA-256"
    text = f"{found['name']}, from {found['where']} ({what} {found['revision']})."
    hub_id = tiers.get(about["tier"]).hub_id
    if found["where"] != checkpoints.HUB:
        text += (
            f" The {checkpoints.HUB} has other weights as {hub_id}, and they give other numbers."
        )
    return text


def _specialists(held: Ledger, recipe: Mapping[str, Any]) -> str:
    names = [name.partition(", seed ")[0] for name in held.models]
    n_seeds = Counter(name for name in names if name in held.experts)
    several = [domain for domain, n in n_seeds.items() if n > 1]
    text = f"one for each of {prose.count(len(held.experts), 'domains')}"
    if several:
        more = prose.count(max(n_seeds.values()), "seeds")
        text += f", for {prose.listing(several)} by {more}"
    return (
        f"{text}. Each was trained for {prose.count(recipe['specialist_steps'], 'steps')} of "
        f"{recipe['batch_size']} × {recipe['seq_len']} tokens with a peak rate of "
        f"{wording.number(recipe['specialist_lr'])}; the embedding and "
        f"{recipe['frozen_layers']} of {recipe['n_layers']} blocks stay as in the base. All of them "
        "start from this one base: an interval over seeds does not say what another base would do."
    )


def _text(kept: Kept) -> str:
    parts = [_documents(name, ledger) for name, ledger in kept.parts.items()]
    kind = kept.about["corpora"]
    source = {"builtin": "builtin text", "hub": "the published data sets"}.get(kind, "real text")
    return f"{source}: {prose.listing(parts)}. Intervals resample sources, not documents."


def _documents(name: str, ledger: Ledger) -> str:
    n_sources = len(set(ledger.source.tolist()))
    return (
        f"{prose.count(ledger.n_documents, 'documents')} {PART_NAMES[name]} "
        f"({prose.count(n_sources, 'sources')}, {prose.count(len(ledger), 'tokens')})"
    )


def _recording(about: Mapping[str, Any]) -> str:
    environment = about["environment"]
    spent = progress.duration(sum(about["durations_s"].values()))
    versions = ", ".join(
        f"{name} {environment[name]}"
        for name in ("python", "torch", "transformers")
        if name in environment
    )
    cores = prose.count(int(environment["cores"]), "cores")
    return (
        f"{about['date']}, seed {about['seed']}. Its steps took {spent} in all, as many of them side "
        f"by side as there are cores ({cores}); {versions}."
    )


def _size(about: Mapping[str, Any]) -> str:
    path = kept_ledger.folder(about["tier"]) / "ledger.safetensors"
    text = f"{path.stat().st_size / 1e6:.1f} MB. {about['notice']}"
    if "rounding" in about:
        moved = wording.number(about["rounding"]["loss_nats"], digits=2)
        text += f" Keeping it small moves no model's mean loss on a domain by more than {moved} nats/token."
    return text
