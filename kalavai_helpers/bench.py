"""The bench: one command times all that the book promises, prints a table and keeps it as JSON."""

from __future__ import annotations

import datetime
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import artifacts, progress, records, tiers

if TYPE_CHECKING:
    from .timing import Measurement

SEED = 42
_WIDTH = 78


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Parameters
    ----------
    experts, epsilons, every_epsilon
        Numbers of experts; values of ε, and the numbers of experts that meet all of them (the
        others only 0.01).
    repeats, router_repeats, training_repeats, processes
        Turns behind each median: of forward passes and generation; of router fits; of training
        loops; of fresh processes whose memory is read.
    rows, documents, lengths, new_tokens
        Documents in a batch; documents behind losses and bounds; their lengths; tokens generated.
    resident
        Numbers of experts whose resident memory is read.
    router_bytes, join_bytes
        UTF-8 bytes a domain: for the recorded model's router, and of the ledger that a newcomer
        joins.
    router_steps, training_steps
        Steps of the published router fit, and of a training loop.
    """

    experts: tuple[int, ...] = (2, 3, 5, 10, 20)
    epsilons: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    every_epsilon: tuple[int, ...] = (2, 3, 5, 10, 20)
    repeats: int = 7
    rows: int = 6
    documents: int = 12
    lengths: tuple[int, ...] = (128, 256, 512, 1024)
    new_tokens: int = 64
    resident: tuple[int, ...] = (3, 10)
    processes: int = 2
    router_bytes: int = 60_000
    join_bytes: int = 90_000
    router_steps: int = 500
    router_repeats: int = 3
    training_steps: int = 50
    training_repeats: int = 6


FULL = Plan()
_FEWER = replace(FULL, every_epsilon=(), repeats=4, documents=6, new_tokens=32)
LARGER = {(320, 8): _FEWER, (640, 16): replace(_FEWER, experts=(3,), repeats=5)}
"""Width and blocks of larger models, and what is measured of them in a full run."""
QUICK = Plan(
    experts=(3,),
    epsilons=(0.01,),
    every_epsilon=(),
    repeats=2,
    documents=6,
    lengths=(128,),
    new_tokens=8,
    resident=(3,),
    processes=1,
    router_bytes=5_000,
    join_bytes=8_000,
    router_steps=4,
    router_repeats=1,
    training_steps=3,
    training_repeats=2,
)


def main(tier: str = "ci", quick: bool = False, source: str = "builtin") -> Path:
    """Measure, print one line a measurement, and write all of it as JSON.

    A full run writes ``data/recorded/bench/cpu.json`` (``cuda.json`` on a GPU); a quick one only
    shows that everything works, and writes below ``_build/``.

    Parameters
    ----------
    tier
        Whose cooperative routers are fitted for, and whose training steps are timed.
    source
        Text that the recorded model reads: builtin, or the kind it was trained on.
    """
    from . import bench_models

    plan = QUICK if quick else FULL
    kind = bench_models.device().type
    run: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "tier": tier,
        "corpora": source.partition(":")[0],
        "device": kind,
        "machine": machine(),
        "environment": records.environment(),
        "note": bench_models.NOTE,
    }
    print(f"{run['machine']['processor']}, {run['machine']['threads']} threads, device {kind}")
    print(heading())
    began, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder, _quiet(folder):
        for row in measurements(_tier(tier, quick), plan, source):
            row = replace(row, bar=None) if quick else row  # too little to judge by
            print(line(row), flush=True)
            rows.append(row)
    judged = [row.bar.met(row.spread.value) for row in rows if row.bar]
    print("A quick run judges nothing" if quick else f"{sum(judged)} of {len(judged)} bars met")
    run |= {
        "duration_s": round(time.perf_counter() - began),
        "measurements": [row.as_json() for row in rows],
    }
    place = artifacts.project_root() / "_build" if quick else artifacts.data() / "recorded"
    return artifacts.write_json(place / "bench" / f"{kind}.json", run)


def measurements(tier: tiers.Tier, plan: Plan, source: str) -> Iterator[Measurement]:
    """All parts of the bench, one after another."""
    from . import bench_fused, bench_memory, bench_models, bench_routers, bench_training
    from .specialists import Cooperative

    # First, in a process that holds nothing else, as a run trains.
    yield from bench_training.measure(tier, plan)
    subject, text = bench_models.recorded_subject(plan.router_bytes, source)
    sizes = [(subject, plan)]
    if plan is FULL:
        sizes += [(bench_models.larger(subject, *size), its) for size, its in LARGER.items()]
    for each, its in sizes:
        yield from bench_fused.forward(each, text, its)
        yield from bench_fused.generation(each, text, its)
    yield from bench_fused.lengths(subject, text, plan)
    for each, its in sizes:
        yield from bench_memory.measure(each, its)
    cooperative = Cooperative(tier, "builtin", bench_models.DOMAINS, SEED)
    yield from bench_routers.fits(cooperative, plan)
    yield from bench_routers.joining(cooperative, plan)


def machine() -> dict[str, Any]:
    """What ran: processor, cores, threads, memory, GPU, and how busy it was before."""
    import torch

    found = {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        n_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory_gb"] = round(n_bytes / 1e9, 1)
    if hasattr(os, "getloadavg"):
        found["load_average_before"] = round(os.getloadavg()[0], 2)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def heading() -> str:
    """First lines of the table."""
    titles = f"{'what':<{_WIDTH}} {'median':>9} {'quartiles':>19}  {'unit':<5} bar"
    return f"{titles}\n{'-' * (len(titles) + 8)}"


def line(row: Measurement) -> str:
    """A row of the table."""
    quartiles = f"{_number(row.spread.low)} – {_number(row.spread.high)}"
    bar = ""
    if row.bar:
        reached = "met" if row.bar.met(row.spread.value) else "missed"
        bar = f"{row.bar.sign} {row.bar.value:g} {reached}"
    if "floor" in row.also:
        bar = f"{bar} (operations alone: {_number(row.also['floor'])})".strip()
    what = f"{row.part}: {row.what}"
    start = f"{what:<{_WIDTH}} {_number(row.spread.value):>9} {quartiles:>19}"
    return f"{start}  {row.unit:<5} {bar}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _tier(name: str, quick: bool) -> tiers.Tier:
    tier = tiers.get(name)
    if not quick or tier.hub_id is not None:
        return tier
    short = {"base_steps": 20, "specialist_steps": 10, "heldout_bytes": 8_000}
    texts = {"base_bytes": 150_000, "train_bytes": 60_000}
    return replace(tier.sweep(), name=f"{name}, shortened", **texts, **short)


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text("utf-8").splitlines() if described.exists() else []
    named = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


class _quiet:
    """Progress goes to files in a folder: lines of it would tear the table apart."""

    def __init__(self, folder: str):
        self.folder = folder
        self.before = os.environ.get(progress.FOLDER_VARIABLE)

    def __enter__(self) -> None:
        os.environ[progress.FOLDER_VARIABLE] = self.folder

    def __exit__(self, *_: object) -> None:
        del os.environ[progress.FOLDER_VARIABLE]
        if self.before is not None:
            os.environ[progress.FOLDER_VARIABLE] = self.before
