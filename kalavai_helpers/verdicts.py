"""Verdicts on published claims, computed from intervals, and checkers for exercises."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evaluation import Estimate


class Verdict(Enum):
    """What a run says of a claim; the value is the CSS class of its box."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    AMBIGUOUS = "ambiguous"
    NOT_TESTABLE = "not-testable"


def exceeds(estimate: Estimate, bound: float) -> Verdict:
    """Judge the claim that a quantity is above ``bound`` by its interval."""
    if estimate.low > bound:
        return Verdict.REPRODUCED
    return Verdict.CONTRADICTED if estimate.high < bound else Verdict.AMBIGUOUS


def within(estimate: Estimate, target: float, tolerance: float) -> Verdict:
    """Judge the claim that a quantity equals ``target`` up to ``tolerance`` by its interval."""
    if abs(estimate.low - target) <= tolerance and abs(estimate.high - target) <= tolerance:
        return Verdict.REPRODUCED
    apart = estimate.low > target + tolerance or estimate.high < target - tolerance
    return Verdict.CONTRADICTED if apart else Verdict.AMBIGUOUS


def show(verdict: Verdict, claim: str, finding: str) -> None:
    """Display a verdict box: the claim, what was found, and the computed word."""
    from IPython.display import HTML, display

    word = verdict.value.replace("-", " ")
    display(
        HTML(
            f'<div class="kv-verdict {verdict.value}"><p><strong>Verdict: {word}.</strong> '
            f"<em>Claim:</em> {claim}</p><p><em>Found:</em> {finding}</p></div>"
        )
    )


def text(estimate: Estimate, unit: str = "", digits: int = 2) -> str:
    """An estimate with its interval, e.g. ``+7.70 % [7.1, 8.2]``."""
    value, low, high = (f"{x:+.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}{' ' if unit else ''}{unit} [{low}, {high}]"


def check(answer: float, expected: float, tolerance: float = 1e-6) -> None:
    """Check an exercise's answer.

    Raises
    ------
    AssertionError
        If the answer is off; the expected value is not given away.
    """
    if not math.isclose(answer, expected, rel_tol=tolerance, abs_tol=tolerance):
        raise AssertionError(f"Not yet: {answer!r} is not what the ledger gives. Look again.")
    print(f"[OK] {answer:.6g}")
