"""Prose: sentences that say the numbers of a run, readable wherever a notebook is opened.

A chapter calls `say` in a code cell; its output is Markdown with the numbers filled in, which
JupyterLab, VS Code, Colab, GitHub, nbconvert and the site all show. The site's roles print their
numbers through `Quantity` too, so that a number looks alike on every page.
"""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import published, recorded, records, tiers, wording

OPTIONS = ("ci", "bare")
# Mathematics and code have braces of their own.
_PLACE = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]*`|\{([^{}]*)\}", re.DOTALL)


@dataclass(frozen=True)
class Quantity:
    """A value with what a sentence says of it.

    Attributes
    ----------
    value
        A number, or a word.
    unit
        Its unit; a count has a plural noun, e.g. ``"steps"``.
    low, high
        Bounds of its interval, or None.
    kind
        ``"rec"`` for numbers of our runs, ``"pub"`` for published ones.
    origin
        Where it comes from, for the reader who asks.
    """

    value: float | str
    unit: str
    low: float | None
    high: float | None
    kind: str
    origin: str

    def text(self, *parts: str) -> str:
        """Return the value with unit and, on request, interval.

        Parameters
        ----------
        parts
            In any order a format such as ``"+.2f"``, ``"ci"`` (the interval) and ``"bare"`` (no
            unit, e.g. where a noun follows).

        Raises
        ------
        ValueError
            For two formats, a format that Python does not know, or an interval that is not there.
        """
        shapes = [part for part in parts if part not in OPTIONS]
        if len(shapes) > 1:
            raise ValueError(f"one format, ci and bare are understood, not {list(parts)}")
        if isinstance(self.value, str):
            return self.value
        shape = shapes[0] if shapes else (".4g" if isinstance(self.value, float) else ",")
        said = number(self.value, shape)
        if "bare" not in parts:
            said = wording.with_unit(said, self.unit)
        if "ci" in parts:
            if self.low is None or self.high is None:
                raise ValueError("it was recorded without an interval")
            said += f" ({number(self.low, shape)} to {number(self.high, shape)})"
        return said

    def markup(self, *parts: str) -> str:
        """Return `text` in a span with its origin, which the site shows on hover, key and touch.

        The span is legal inside Markdown; a front end that strips it keeps the text.
        """
        return (
            f'<span class="kv-{self.kind}" tabindex="0" title="{_escaped(self.origin)}">'
            f"{_escaped(self.text(*parts))}</span>"
        )


def number(value: float, shape: str) -> str:
    """Format a number as print does; a condition is ``yes`` or ``no``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return wording.printed(format(value, shape))


def count(n: int, noun: str) -> str:
    """Return a number with its plural noun, which becomes one in number: ``count(1, "seeds")``."""
    said = f"{n:,}"
    return f"{said} {wording.singular(noun) if n == 1 else noun}"


def listing(items: Iterable[Any]) -> str:
    """Return items as a sentence lists them: ``"42"``, ``"42 and 137"``, ``"a, b and c"``."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def seeds(values: Iterable[int]) -> str:
    """Return seeds by name: ``"seed 42"``, ``"seeds 42 and 137"``."""
    values = list(values)
    return f"{'seed' if len(values) == 1 else 'seeds'} {listing(values)}"


def _escaped(text: str) -> str:
    """Return text for HTML inside Markdown: signs that mean something there become entities."""
    return re.sub(r"[&<>\"\\*_\[\]|~$`]", lambda sign: f"&#{ord(sign[0])};", text)


def say(markdown: str) -> None:
    """Show Markdown in which numbers in braces are filled in.

    Parameters
    ----------
    markdown
        In braces stand ``{NAME}``, a record of this chapter in this run, ``{recorded:NAME}``, one of
        its recorded run, ``{pretrained:NAME}``, one that this run computed from the recorded ledger
        of a pretrained model, or ``{pub:ID}``, a value of the public record. Behind the name, each after
        a ``|``, may stand a format, ``ci`` and ``bare``, as in ``{gain|+.2f|ci}``. Braces in
        mathematics and in code are left alone.

    Raises
    ------
    ValueError
        When a name is unknown (the closest ones are listed) or cannot be printed as asked.
    """
    from IPython.display import display

    filled = fill(markdown).strip()
    plain = re.sub(r"</?span[^>]*>", "", filled)
    display({"text/markdown": filled, "text/plain": html.unescape(plain)}, raw=True)


def fill(markdown: str) -> str:
    """Return Markdown with the numbers filled in; see `say`."""

    def place(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name, *parts = match[1].split("|")
        try:
            return find(name.strip()).markup(*(part.strip() for part in parts))
        except (LookupError, ValueError, OSError, RuntimeError) as error:
            reason = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise ValueError(f"{match[0]} in the text: {reason}") from None

    return _PLACE.sub(place, markdown)


def find(name: str) -> Quantity:
    """Return what a name in braces stands for.

    Raises
    ------
    KeyError
        When there is no such number; the message names the closest ones. When this run computed
        nothing from a recorded ledger.
    RuntimeError
        When the chapter has not called `records.start`.
    FileNotFoundError
        When the chapter has no recorded run.
    """
    origin, colon, rest = name.partition(":")
    if colon and origin == "pub":
        return of_record(rest)
    run = records.current()
    if run is None:
        raise RuntimeError("records.start(chapter, tier=…, seed=…, corpora=…) was not called")
    if colon and origin == "recorded":
        past = recorded.load(run["chapter"])
        return of_run(past, rest, f"Recorded {past['date']}")
    if colon and origin == "pretrained":
        past = records.side(tiers.PRETRAINED)
        return of_run(past, rest, f"Computed from the ledger recorded {past['date']}")
    return of_run(run, name)


def of_run(run: Mapping[str, Any], name: str, which: str = "This run") -> Quantity:
    """Return a record of a run (from `records.load`, `records.current` or `recorded.load`).

    Raises
    ------
    KeyError
        When the run has no such record; the message names the closest ones.
    """
    entry = run["records"].get(name)
    if entry is None:
        closest = difflib.get_close_matches(name, run["records"], n=3, cutoff=0.3)
        near = ", ".join(closest) or ", ".join(run["records"]) or "none recorded so far"
        raise KeyError(f"chapter {run['chapter']} has no record {name!r}; closest: {near}")
    origin = f"{which}: tier {run['tier']}, seed {run['seed']}, text {run['corpora']}"
    if entry.get("protocol"):
        origin += f", protocol {entry['protocol']}"
    unit, low, high = (entry.get(key) for key in ("unit", "low", "high"))
    return Quantity(entry["value"], unit or "", low, high, "rec", origin)


def of_record(id: str) -> Quantity:
    """Return a value of the public record.

    Raises
    ------
    KeyError
        When there is no such id; the message names the closest ones.
    """
    row = published.row(id)
    origin = f"Published: {row['model']}, {row['eval_protocol']}, {row['source']}"
    return Quantity(row["value"], row["unit"] or "", None, None, "pub", origin)
