"""Teams: the cooperatives among the twenty specialists whose routers are recorded."""

from __future__ import annotations

from dataclasses import dataclass

from . import corpora
from .tiers import PUBLISHED_SEEDS

SEED = 42
LANGUAGES = ("tamil", "yoruba", "welsh", "code")
# fmt: off
TWENTY = (
    "tamil", "yoruba", "welsh", "spanish", "hindi", "swahili", "vietnamese", "arabic",
    "indonesian", "thai", "code", "medical", "legal", "patent", "math", "finance", "chemistry",
    "fiction", "dialogue", "instructions",
)
# fmt: on
"""Domains of the published cooperative of twenty; the main experiment's science is not one."""


@dataclass(frozen=True)
class Team:
    """A cooperative among the specialists, of which routers and logit mixtures are recorded.

    Attributes
    ----------
    name
        Begins the names of its columns.
    seed
        Of the specialists.
    router_seeds
        Of the published pooled router.
    chunks
        Training chunks a domain that the pooled router is fitted on.
    switches, interleaves
        Whether documents that switch between its domains are read: once, and at every rate.
    """

    name: str
    domains: tuple[str, ...]
    seed: int = SEED
    router_seeds: tuple[int, ...] = (SEED,)
    chunks: int = 32
    switches: bool = False
    interleaves: bool = False

    @property
    def pairs(self) -> tuple[str, ...]:
        """Groups of documents that switch half-way, as ``ledger.switching`` names them."""
        return tuple(f"{a} → {b}" for a in self.domains for b in self.domains if a != b)

    @property
    def slug(self) -> str:
        """The name as part of a file's."""
        return self.name.replace(" ", "-")


ENGLISH = (
    Team("english", corpora.MAIN_DOMAINS, switches=True, interleaves=True),
    *(Team(f"english {s}", corpora.MAIN_DOMAINS, s) for s in PUBLISHED_SEEDS if s != SEED),
)
"""The published main experiment, by specialists of three seeds of one base."""
TEAMS = (
    Team("twenty", TWENTY, chunks=6),
    *ENGLISH,
    Team("languages", LANGUAGES, router_seeds=tuple(range(10)), switches=True),
)
