"""Watches a running chapter from outside: which cell, which task, how much memory."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Self

import psutil
from nbformat import NotebookNode

from kalavai_helpers import progress

POLL_S = 0.5
PRINT_EVERY_S = 3.0
HEARTBEAT_S = 20.0
STALE_S = 30.0  # a task silent for so long has ended or died
LEFTOVERS_S = 5.0


class Monitor(threading.Thread):
    """Prints progress of one chapter while it runs; a context manager around the run.

    Parameters
    ----------
    label
        Start of every line, e.g. `[1/2] 01_protocol`.
    cells
        The chapter's code cells, in order.
    folder
        Where the chapter's tasks report (`progress.report`).
    """

    def __init__(self, label: str, cells: list[NotebookNode], folder: Path) -> None:
        super().__init__(daemon=True, name="kalavai-monitor")
        self.label, self.folder = label, folder
        self.numbers = {cell["id"]: number for number, cell in enumerate(cells, 1)}
        self.cell: NotebookNode | None = None
        self.cell_began = time.monotonic()
        self.peak_memory_mb = 0.0
        self._seen: set[psutil.Process] = set()
        self._before = set(psutil.Process().children(recursive=True))
        self._stop_event = threading.Event()

    def cell_started(self, cell: NotebookNode) -> None:
        """Note that a cell begins; cells without code are ignored."""
        if cell.cell_type == "code" and cell.source.strip():
            self.cell, self.cell_began = cell, time.monotonic()

    def where(self) -> str:
        """Name the cell that runs or ran last, with its first line of code."""
        if self.cell is None:
            return "start-up, before its first cell"
        lines = [line.strip() for line in self.cell.source.splitlines() if line.strip()]
        first = next((line for line in lines if not line.startswith("#")), lines[0])
        return f"{self._position()} (`{first}`)"

    def run(self) -> None:
        """Poll until the chapter ends."""
        printed_at, printed = 0.0, None
        while not self._stop_event.wait(POLL_S):
            self._measure()
            now = time.monotonic()
            tasks = [
                progress.line(state)
                for state in progress.read(self.folder)
                if state["step"] < state["total"] and time.time() - state["time"] < STALE_S
            ]
            state = (self.cell and self.cell["id"], tuple(tasks))
            silent = now - printed_at
            if (state != printed and silent >= PRINT_EVERY_S) or silent >= HEARTBEAT_S:
                parts = [self.label, self._position() if self.cell else "starting", *tasks[:2]]
                if state == printed:
                    parts.append(f"{progress.duration(now - self.cell_began)} in this cell")
                print(" · ".join(parts), flush=True)
                printed_at, printed = now, state

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_event.set()
        self.join()
        self._measure()
        self._end_leftovers()

    def _position(self) -> str:
        number = self.numbers.get(self.cell["id"]) if self.cell else None
        return f"cell {number}/{len(self.numbers)}" if number else "the injected parameters cell"

    def _end_leftovers(self) -> None:
        """Kill what the chapter left running, and wait until it is dead.

        Workers outlive a kernel that was killed; they would compete with the next chapter.
        """
        for process in self._seen:
            with contextlib.suppress(psutil.Error):
                process.kill()
        deadline = time.monotonic() + LEFTOVERS_S
        while any(map(_runs, self._seen)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _measure(self) -> None:
        resident = 0
        for process in set(psutil.Process().children(recursive=True)) - self._before:
            self._seen.add(process)
            with contextlib.suppress(psutil.Error):
                resident += process.memory_info().rss
        self.peak_memory_mb = max(self.peak_memory_mb, resident / 1e6)


def _runs(process: psutil.Process) -> bool:
    # A killed worker whose parent is gone stays a zombie until init reaps it: that is dead enough.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
