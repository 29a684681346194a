"""A recording: work of many hours as steps that leave what they make in the store.

A step that was stopped goes on from what it has left there; what is done is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import artifacts, progress


@dataclass(frozen=True)
class Step:
    """One piece of work: its name, seconds that it should take, whether it is done, and doing it."""

    name: str
    cost_s: float
    done: Callable[[], bool]
    run: Callable[[], object]


def run(
    make: Callable[[dict[str, float]], Sequence[Step]],
    state: Path,
    minutes: float | None = None,
    say: Callable[[str], None] = print,
) -> list[Step]:
    """Do the steps that are left, or as many as fit into so many minutes.

    Parameters
    ----------
    make
        Steps in their order, from the seconds that each has taken so far: the last may tell them.
    state
        JSON file of durations, and of what is done and left.
    minutes
        After them the work stops at the next ``progress.pause_point``.
    say
        Tells a person.

    Returns
    -------
    Steps that are left; none where all is done.
    """
    durations = (artifacts.read_json(state) or {}).get("durations_s", {})
    progress.stop_after(None if minutes is None else 60 * minutes)
    steps = make(durations)
    left = [step for step in steps if not step.done()]
    try:
        while left:
            step = left[0]
            say(f"{step.name} ({_progress(steps, left, durations)})")
            started = time.monotonic()
            try:
                step.run()
            finally:
                spent = time.monotonic() - started
                durations[step.name] = durations.get(step.name, 0.0) + spent
                left = left[1:] if step.done() else left
                told = {
                    "done": len(steps) - len(left),
                    "steps": len(steps),
                    "left": [step.name for step in left],
                    "left_s": round(_left_s(steps, left, durations)),
                    "durations_s": durations,
                }
                artifacts.write_json(state, told)
            if left and left[0] is step:
                raise RuntimeError(f"Step {step.name!r} has run and is not done: a fault in it")
            progress.pause_point()
    except progress.Paused:
        say(f"time is up: {_progress(steps, left, durations)}")
    finally:
        progress.stop_after(None)
    return left


def _left_s(steps: Sequence[Step], left: Sequence[Step], durations_s: dict[str, float]) -> float:
    """Seconds that are left, at the speed of this machine so far."""
    names = {step.name for step in left}
    done = [s for s in steps if s.name not in names and s.name in durations_s]
    expected = sum(step.cost_s for step in done)
    speed = sum(durations_s[step.name] for step in done) / expected if expected else 1.0
    return speed * sum(step.cost_s for step in left)


def _progress(steps: Sequence[Step], left: Sequence[Step], durations_s: dict[str, float]) -> str:
    ahead = progress.duration(_left_s(steps, left, durations_s))
    return f"{len(steps) - len(left)} of {len(steps)} steps done, about {ahead} left"
