"""Wording of numbers and statements, the same on every page."""

from __future__ import annotations

import math

from .claims import Claim

SILENT = ("", "count", "probability", "R²")
"""Units that a number is not read with."""
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
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        text = f"{mantissa}\u202f·\u202f10{str(int(exponent)).translate(_RAISED)}"
    return text.replace("-", "\u2212")


def decimals(low: float, high: float) -> int:
    """Decimals that show two digits of an interval's half-width."""
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    # An end beside zero decides: 0.25 must not read 0.
    while places < _MOST_DECIMALS and any(x and not round(x, places) for x in (low, high)):
        places += 1
    return places


def with_unit(text: str, unit: str) -> str:
    """Set a unit behind a number, unless it is read without one."""
    return text if unit in SILENT else f"{text}\u202f{unit}"


def stated(claim: Claim) -> str:
    """What the statement says: a number with its unit, or that a condition holds."""
    if claim.kind == "condition":
        return "holds"
    return with_unit(claim.value.replace("-", "\u2212"), claim.unit)
