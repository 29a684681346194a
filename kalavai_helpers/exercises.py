"""Checkers of the exercises: they say whether an answer is right, and never what is."""

from __future__ import annotations

import math


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
