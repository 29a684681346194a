"""Prompts: the short texts on which heatmaps show a router, the published ones and the book's own."""

from __future__ import annotations

from . import languages, published

OWN = (
    "def mean_energy(masses, speeds):\n    return sum(m * v**2 / 2 for m, v in zip(masses, speeds))",
    "The force on the block equals its mass times its acceleration, so the net force must be zero.",
    "She closed the door softly, and for a long while neither of them said a word about the letter.",
)
"""One text each of code, science and fiction, written for this book."""

_NAMES = ("code", "science", "fiction")


def released() -> tuple[str, ...]:
    """The five prompts of the published heatmaps."""
    found = published.select(experiment="hybrid-token-routing", metric="switches").condition
    return tuple(name.split(": ", 1)[1] for name in found if name.startswith("prompt"))


def texts() -> dict[str, str]:
    """All texts by title: published, the book's own, two of those in a row, mixed languages."""
    found = {text: text for text in (*released(), *OWN)}
    for first, second in ((2, 0), (0, 1), (1, 2)):
        title = f"switches: {_NAMES[first]}, then {_NAMES[second]}"
        found[title] = f"{OWN[first]}\n{OWN[second]}"
    return found | languages.SENTENCES
