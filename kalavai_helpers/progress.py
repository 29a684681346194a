"""Progress of long tasks, readable from outside the process that does the work.

Training runs in worker processes inside a notebook kernel, where a progress bar would be lost or
would bloat the stored output. A task therefore writes its state to a small file, and whoever
started the run (the executor) reads the folder. Progress is advisory: failing to report it never
stops a run.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

FOLDER_VARIABLE = "KALAVAI_PROGRESS"
PRINT_EVERY_S = 5.0

_last_printed: dict[str, float] = {}
_deadline_s: float | None = None


class Paused(Exception):
    """The time that a run was given is over; all its work so far is in the store."""


def stop_after(seconds: float | None) -> None:
    """Let `pause_point` stop the work of this process after so many seconds; `None`: never."""
    global _deadline_s
    _deadline_s = None if seconds is None else time.monotonic() + seconds


def time_is_up() -> bool:
    """Whether the time given to `stop_after` is over."""
    return _deadline_s is not None and time.monotonic() >= _deadline_s


def pause_point() -> None:
    """Say that everything so far is in the store, so that here is a place to stop.

    Raises
    ------
    Paused
        If the time given to `stop_after` is over.
    """
    if time_is_up():
        raise Paused


def report(
    task: str,
    step: int,
    total: int,
    rate: float | None = None,
    unit: str = "tok/s",
    eta_s: float | None = None,
) -> None:
    """Publish how far a task has come.

    With the environment variable `KALAVAI_PROGRESS` set to a folder, the file
    `<folder>/<task-slug>.json` is rewritten atomically; otherwise a plain line goes to standard
    error, at most one every five seconds per task plus the last one. Safe to call from several
    processes as long as each uses its own task name.

    Parameters
    ----------
    task
        What is being done, e.g. `"specialist code"`.
    step, total
        Steps done and steps in all.
    rate
        Speed in `unit`, if known.
    unit
        Unit of `rate`.
    eta_s
        Seconds until the task ends, if known.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    state = {
        "task": task,
        "step": int(step),
        "total": int(total),
        "rate": None if rate is None else float(rate),
        "unit": unit,
        "eta_s": None if eta_s is None else float(eta_s),
        "time": time.time(),
    }
    if folder:
        # A full disk must surface where an artifact is lost, not where a status line is.
        with contextlib.suppress(OSError):
            _write(Path(folder), state)
    else:
        _print(state)


def read(folder: Path) -> list[dict]:
    """Return the states reported to `folder`, most recent first; unreadable files are left out."""
    states = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            states.append(json.loads(path.read_text(encoding="utf-8")))
    return sorted(states, key=lambda state: state["time"], reverse=True)


def line(state: dict) -> str:
    """Format a state as one line, e.g. `specialist code 150/200 · 14.2k tok/s · ETA 12 s`."""
    parts = [f"{state['task']} {state['step']}/{state['total']}"]
    if state["rate"] is not None:
        parts.append(f"{_compact(state['rate'])} {state['unit']}")
    if state["eta_s"] is not None:
        parts.append(f"ETA {duration(state['eta_s'])}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Format seconds for people: `12 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _compact(rate: float) -> str:
    for limit, divisor, suffix in ((1e6, 1e6, "M"), (1e3, 1e3, "k")):
        if rate >= limit:
            return f"{rate / divisor:.1f}{suffix}"
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _slug(task: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")
    # Two tasks may differ only in characters that a file name cannot hold.
    return f"{words[:60]}-{hashlib.sha256(task.encode()).hexdigest()[:6]}"


def _write(folder: Path, state: dict) -> None:
    # No fsync: the file is worthless after a crash, and it is rewritten many times a second.
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{_slug(state['task'])}.json"
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(state), encoding="utf-8")
    os.replace(temporary, target)


def _print(state: dict) -> None:
    now = time.monotonic()
    last = _last_printed.get(state["task"])
    finished = state["step"] >= state["total"]
    if last is None or finished or now - last >= PRINT_EVERY_S:
        _last_printed[state["task"]] = now
        print(line(state), file=sys.stderr, flush=True)
