"""A recording: work of many hours as steps that leave what they make in the store.

A step that was stopped goes on from what it has left there; what is done is not done again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import artifacts, parallel, progress


@dataclass(frozen=True)
class Step:
    """One piece of work.

    Attributes
    ----------
    name
        Tells it from the others.
    cost_s
        Seconds that it should take.
    done, run
        Whether it is done, and doing it.
    kind
        Steps of one kind that follow each other are done side by side, a process and a thread
        each; an empty kind has the machine for itself.
    """

    name: str
    cost_s: float
    done: Callable[[], bool]
    run: Callable[[], object]
    kind: str = ""

    @property
    def wall_s(self) -> float:
        """What it should add to the time of the whole."""
        return self.cost_s / (workers() if self.kind else 1)


def workers() -> int:
    """How many steps of a kind are done side by side."""
    return os.cpu_count() or 1


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
    end = None if minutes is None else time.monotonic() + 60 * minutes
    steps = make(durations)
    left = [step for step in steps if not step.done()]
    while left:
        together = _together(left)
        say(f"{', '.join(s.name for s in together)} ({_progress(steps, left, durations)})")
        jobs = [partial(_do, step.run, step.kind, end) for step in together]
        for number, seconds in parallel.as_done(jobs):
            name = together[number].name
            durations[name] = durations.get(name, 0.0) + seconds
            left = [step for step in left if step.name != name or not step.done()]
            if len(together) > 1:
                say(f"{name}: {progress.duration(seconds)} ({_progress(steps, left, durations)})")
            told = {
                "done": len(steps) - len(left),
                "steps": len(steps),
                "left": [step.name for step in left],
                "left_s": round(_left_s(steps, left, durations)),
                "durations_s": durations,
            }
            artifacts.write_json(state, told)
        with _until(end):
            up = progress.time_is_up()
        if left and up:
            say(f"time is up: {_progress(steps, left, durations)}")
            break
        undone = [step.name for step in together if step in left]
        if undone:
            raise RuntimeError(f"Step {undone[0]!r} has run and is not done: a fault in it")
    return left


def _together(left: Sequence[Step]) -> list[Step]:
    """The first step, and those behind it that may be done beside it, in turn on all cores."""
    kind = left[0].kind
    if not kind:
        return [left[0]]
    return list(itertools.takewhile(lambda step: step.kind == kind, left))


@contextlib.contextmanager
def _until(end: float | None):
    """Work that `progress.pause_point` stops at a time of the monotonic clock."""
    progress.stop_after(None if end is None else end - time.monotonic())
    try:
        yield
    finally:
        progress.stop_after(None)


def _do(run: Callable[[], object], kind: str, end: float | None) -> float:
    """Seconds that some work took until it was done or its time was up.

    Of a kind it has one thread, alone or not: the last bits of a sum depend on their number.
    """
    began = time.monotonic()
    with _until(end), contextlib.suppress(progress.Paused):
        if kind:
            parallel.single_threaded(run)
        else:
            run()
    return time.monotonic() - began


def _left_s(steps: Sequence[Step], left: Sequence[Step], durations_s: dict[str, float]) -> float:
    """Seconds that are left, at the speed of this machine so far."""
    names = {step.name for step in left}
    done = [s for s in steps if s.name not in names and s.name in durations_s]
    expected = sum(step.cost_s for step in done)
    speed = sum(durations_s[step.name] for step in done) / expected if expected else 1.0
    return speed * sum(step.wall_s for step in left)


def _progress(steps: Sequence[Step], left: Sequence[Step], durations_s: dict[str, float]) -> str:
    ahead = progress.duration(_left_s(steps, left, durations_s))
    return f"{len(steps) - len(left)} of {len(steps)} steps done, about {ahead} left"
