"""The rule of verdicts: which word a claim may have, from its kind, the level and the interval.

Two questions are kept apart. The first, whether the released values say it, is arithmetic on the
public record (`kalavai_helpers.claims`). The second, whether it happens when it is run, depends on
what was run: a model of 0.3M parameters cannot contradict a statement about 410M. Every page takes
its words from here; nothing else in the package may write one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, IntEnum

from . import tiers


class Level(IntEnum):
    """Strength of the evidence of a run; a higher level decides over a lower one."""

    TOY = 0
    SMALL = 1
    PRETRAINED = 2
    REPLICATED = 3

    @property
    def title(self) -> str:
        """How pages call it."""
        return _LEVELS[self][0]

    @property
    def meaning(self) -> str:
        """What was run."""
        return _LEVELS[self][1]


_LEVELS = {
    Level.REPLICATED: (
        "replication",
        "the published checkpoint, text and recipe, on a GPU",
    ),
    Level.PRETRAINED: (
        "pretrained model",
        "the protocol on a language model that other people trained and use, real text",
    ),
    Level.SMALL: (
        "small models",
        "a few million parameters at most, trained here on real text",
    ),
    Level.TOY: (
        "toy models",
        "under a million parameters, trained on builtin text",
    ),
}


class Kind(Enum):
    """What decides whether a statement holds when it is run."""

    NUMBER = "number"
    MECHANISM = "mechanism"
    EVERY = "every"
    IDENTITY = "identity"

    @property
    def meaning(self) -> str:
        """What the kind is, and what decides it."""
        return _KINDS[self]


_KINDS = {
    Kind.NUMBER: "a published number: only a replication decides it, other runs show their own "
    "number beside it",
    Kind.MECHANISM: "a sign, an order, an effect: the highest level that ran decides, lower ones "
    "stand beside it",
    Kind.EVERY: "said of every case, or called necessary: one counterexample under the stated "
    "conditions decides, at any level",
    Kind.IDENTITY: "follows from a definition: checked by tests, not a finding",
}


class Relation(Enum):
    """How an interval lies to the region in which a statement is true."""

    INSIDE = "inside"
    ACROSS = "across"
    OUTSIDE = "outside"


class Word(Enum):
    """Answers to both questions."""

    RECOMPUTES = "recomputes"
    CONTRADICTS = "contradicts"
    AMBIGUOUS = "ambiguous"
    UNTESTABLE = "untestable"
    SEEN = "seen"
    NOT_SEEN = "not seen"
    UNCLEAR = "unclear"
    NOT_AT_THIS_SIZE = "not at this size"
    CONTRADICTED = "contradicted"

    @property
    def meaning(self) -> str:
        """What a reader may take from it."""
        return _WORDS[self][1]

    @property
    def tone(self) -> str:
        """How it looks: ``good``, ``bad``, ``open`` or ``none``."""
        return _WORDS[self][0]


_WORDS = {
    Word.RECOMPUTES: ("good", "the released values give what is stated"),
    Word.CONTRADICTS: ("bad", "they give something else"),
    Word.AMBIGUOUS: ("open", "released values disagree about it; each is named"),
    Word.UNTESTABLE: ("none", "nothing that decides it was released"),
    Word.SEEN: ("good", "the whole interval lies where the statement is true"),
    Word.NOT_SEEN: (
        "bad",
        "the whole interval lies elsewhere; said of toy models only where they show a "
        "counterexample",
    ),
    Word.UNCLEAR: ("open", "the interval allows both"),
    Word.NOT_AT_THIS_SIZE: (
        "none",
        "toy models did not show it, which says nothing about larger ones",
    ),
    Word.CONTRADICTED: (
        "bad",
        "a replication found otherwise, or a counterexample to a statement about every case is "
        "shown",
    ),
}

RELEASED = (Word.RECOMPUTES, Word.CONTRADICTS, Word.AMBIGUOUS, Word.UNTESTABLE)
"""Words of the first question: do the released values say it?"""
RUN = (Word.SEEN, Word.NOT_SEEN, Word.UNCLEAR, Word.NOT_AT_THIS_SIZE, Word.CONTRADICTED)
"""Words of the second question: does it happen when it is run?"""


@dataclass(frozen=True)
class Test:
    """The region in which a statement is true: ``> BOUND``, ``< BOUND`` or ``within T of BOUND``.

    Attributes
    ----------
    comparison
        ``>``, ``<`` or ``within``.
    bound
        Its edge, or the middle of a margin, in the unit of the record.
    margin
        Half-width T of ``within``, same unit; 0 otherwise.
    """

    __test__ = False  # not a test of pytest's

    comparison: str
    bound: float
    margin: float = 0.0

    def __str__(self) -> str:
        if self.comparison == "within":
            return f"within {self.margin:g} of {self.bound:g}"
        return f"{self.comparison} {self.bound:g}"

    def holds(self, value: float) -> bool:
        """Whether the statement is true of one value."""
        if self.comparison == "within":
            return abs(value - self.bound) <= self.margin
        return value > self.bound if self.comparison == ">" else value < self.bound

    def relation(self, low: float | None, high: float | None) -> Relation:
        """How an interval lies to the region.

        That an interval contains a value is no evidence for it: ``within`` needs the whole
        interval inside its margin. A value without an interval decides nothing.
        """
        if low is None or high is None:
            return Relation.ACROSS
        if self.holds(low) and self.holds(high):
            return Relation.INSIDE
        if self.comparison == ">":
            apart = high <= self.bound
        elif self.comparison == "<":
            apart = low >= self.bound
        else:
            apart = low > self.bound + self.margin or high < self.bound - self.margin
        return Relation.OUTSIDE if apart else Relation.ACROSS


_NUMBER = r"(-?[0-9.]+(?:e-?[0-9]+)?)"
_TESTED = re.compile(rf"(\w+)/(\w+) (?:([<>]) {_NUMBER}|within {_NUMBER} of {_NUMBER})", re.ASCII)


def parse(tested: str) -> tuple[str, str, Test]:
    """Read ``CHAPTER/RECORD OP BOUND`` of the claims file: chapter, record and test.

    Raises
    ------
    ValueError
        If it is malformed; names the text and the notation.
    """
    match = _TESTED.fullmatch(tested)
    if match is None:
        raise ValueError(
            f"not a test: {tested!r}; write CHAPTER/RECORD > BOUND, … < BOUND or … within T of BOUND"
        )
    chapter, record, comparison, bound, margin, middle = match.groups()
    if comparison:
        return chapter, record, Test(comparison, float(bound))
    return chapter, record, Test("within", float(middle), float(margin))


def word(kind: Kind, level: Level, relation: Relation) -> Word | None:
    """The word of the second question, or None where this evidence has none to say.

    ====================  ==========  ===========  ================  ================
    kind, relation        replicated  pretrained   small             toy
    ====================  ==========  ===========  ================  ================
    number                as below    none         none              none
    mechanism, inside     seen        seen         seen              seen
    mechanism, across     unclear     unclear      unclear           unclear
    mechanism, outside    contradicted not seen    not seen          not at this size
    every, outside        contradicted contradicted contradicted    not seen
    identity              none        none         none              none
    ====================  ==========  ===========  ================  ================

    What lies outside of a statement about every case is a counterexample, whatever the level. A
    toy model shows one too, but no page says *contradicted* on the word of a toy.
    """
    if kind is Kind.IDENTITY or (kind is Kind.NUMBER and level < Level.REPLICATED):
        return None
    if relation is Relation.INSIDE:
        return Word.SEEN
    if relation is Relation.ACROSS:
        return Word.UNCLEAR
    if kind is Kind.EVERY:
        return Word.NOT_SEEN if level is Level.TOY else Word.CONTRADICTED
    if level is Level.REPLICATED:
        return Word.CONTRADICTED
    return Word.NOT_AT_THIS_SIZE if level is Level.TOY else Word.NOT_SEEN


def released(relation: Relation) -> Word:
    """The word of the first question where released values give an interval."""
    return {
        Relation.INSIDE: Word.RECOMPUTES,
        Relation.ACROSS: Word.AMBIGUOUS,
        Relation.OUTSIDE: Word.CONTRADICTS,
    }[relation]


def level_of(tier: str, corpora: str) -> Level:
    """The level of a run, from its tier and the source of its text.

    Raises
    ------
    ValueError
        If there is no such tier.
    """
    hub_id, source = tiers.get(tier).hub_id, corpora.partition(":")[0]
    if source == "builtin" or tier == "ci":
        return Level.TOY
    if hub_id is None:
        return Level.SMALL
    published = hub_id.startswith("EleutherAI/pythia") and source == "hub"
    return Level.REPLICATED if published else Level.PRETRAINED
