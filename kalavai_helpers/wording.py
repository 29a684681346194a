"""Wording of numbers and statements, the same on every page."""

from __future__ import annotations

import math
import re

from .claims import Claim

SILENT = {
    "", "accuracy", "count", "fraction", "Pearson r", "perplexity", "ppl", "ppl (1 decimal)",
    "probability", "Q²", "R²", "ratio",
}  # fmt: skip
"""Units that a number is not read with: they name the quantity, which the sentence has named."""
PRINTED = {"% accuracy": "%", "chunks(512 tok)": "chunks", "x": "×", "x base": "× base"}
"""How units of the records and of the public record are printed, where not as they are."""
_ONE = {"1", "+1", "\u22121"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_DECIMALS = 6  # beyond, a power of ten is easier to read


def number(value: float, places: int | None = None, digits: int = 5) -> str:
    """A number as print shows it, with a true minus sign; very small and large as powers of ten.

    ``places`` are decimals; without them, ``digits`` significant digits.
    """
    if value == 0 or (places is None and 1e-3 <= abs(value) < 1e6):
        text = (
            f"{value:.{places}f}" if places is not None else f"{float(f'{value:.{digits}g}'):.10g}"
        )
    elif places is not None and places <= _MOST_DECIMALS:
        text = f"{value:.{places}f}"
    else:
        text = f"{value:.1e}"
    return printed(text)


def printed(text: str) -> str:
    """A number that Python has formatted, with a true minus sign and powers of ten as such."""
    mantissa, _, exponent = text.partition("e")
    if exponent:
        mantissa += f"\u202f·\u202f10{str(int(exponent)).translate(_RAISED)}"
    return mantissa.replace("-", "\u2212")


def decimals(low: float, high: float) -> int:
    """Decimals that show two digits of an interval's half-width."""
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    # An end beside zero decides: 0.25 must not read 0.
    while places < _MOST_DECIMALS and any(x and not round(x, places) for x in (low, high)):
        places += 1
    return places


def with_unit(text: str, unit: str) -> str:
    """Set a unit behind a printed number, unless it is read without one; one step, two steps."""
    if unit in SILENT:
        return text
    unit = PRINTED.get(unit, unit)
    if text.rpartition(" ")[2] in _ONE:  # also of a bound, as in "< 1"
        unit = re.sub(r"^[A-Za-z-]+", lambda noun: singular(noun[0]), unit)
    return f"{text}{unit}" if unit.startswith("×") else f"{text}\u202f{unit}"


def singular(noun: str) -> str:
    """One of what a plural noun names."""
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "sses", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def stated(claim: Claim) -> str:
    """What the statement says: a number with its unit, or that a condition holds."""
    if claim.kind == "condition":
        return "holds"
    return with_unit(claim.value.replace("-", "\u2212"), claim.unit)
