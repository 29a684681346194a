"""Runs chapters with papermill: only those whose key changed, each to the end or not at all."""

import datetime
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from kalavai_helpers import artifacts, chapters, kernel, progress, tiers
from kalavai_helpers.monitor import Monitor

CI_CELL_TIMEOUT_S = 600
CELL_TIMEOUT_S = 6 * 3600


class ChapterFailed(RuntimeError):
    """A chapter did not run to its end; the message names chapter, cell and cause."""


@dataclass(frozen=True)
class Result:
    """What became of one chapter.

    Parameters
    ----------
    chapter
        Name of the chapter.
    status
        `executed`, `fresh` (unchanged since an earlier run, whose numbers these are) or `failed`.
    seconds
        Wall-clock time of the execution.
    peak_memory_mb
        Largest resident memory of the kernel and its workers together, 10^6 bytes.
    key_record
        `{name, value, unit, …}` of the first record the chapter made.
    error
        Why it failed.
    """

    chapter: str
    status: str
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    key_record: dict[str, Any] | None = None
    error: str | None = None


def execute(
    names: Iterable[str] | None = None,
    tier: str = "ci",
    seed: int = 42,
    corpora: str | None = None,
    force: bool = False,
    cell_timeout_s: float | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> list[Result]:
    """Bring chapters up to date and print what happens.

    A chapter that fails does not stop the others; look at the results' `status`.

    Parameters
    ----------
    names
        Chapters, e.g. `["01_protocol"]`; all when empty.
    tier, seed, corpora
        Passed to the chapters; `corpora` is the tier's own when not given.
    force
        Execute even when nothing changed.
    cell_timeout_s
        Seconds that one cell may take: ten minutes at tier `ci`, six hours elsewhere.
    parameters
        Further parameters that the chapters declare.
    root
        Project folder.

    Raises
    ------
    ValueError
        For an unknown tier or chapter; the valid ones are listed.
    """
    root = (root or artifacts.project_root()).resolve()
    chosen_tier = tiers.get(tier)
    values = {"tier": tier, "seed": seed, "corpora": corpora or chosen_tier.corpora}
    values |= dict(parameters or {})
    timeout = cell_timeout_s or (CI_CELL_TIMEOUT_S if tier == "ci" else CELL_TIMEOUT_S)
    needs_hub = bool(chosen_tier.hub_id) or values["corpora"] == "hub"
    chosen = chapters.choose(root, names)
    results = []
    for number, chapter in enumerate(chosen, 1):
        label = f"[{number}/{len(chosen)}] {chapter}"
        try:
            results.append(
                _bring_up_to_date(root, chapter, label, values, timeout, force, needs_hub)
            )
        except (ChapterFailed, chapters.ChapterError, OSError) as error:
            print(f"{label} · FAILED · {error}", file=sys.stderr, flush=True)
            results.append(Result(chapter, "failed", error=str(error)))
    return results


def executed_folder(root: Path, tier: str) -> Path:
    """Return where the executed notebooks of a tier and their sidecar files are."""
    return root / "_build" / "executed" / tier


def records_folder(root: Path, tier: str) -> Path:
    """Return where the records of a tier's chapters are."""
    return root / "_build" / "records" / tier


def table(results: Iterable[Result]) -> str:
    """Return results as a text table: chapter, status, seconds, peak memory, key record."""
    rows = [("chapter", "status", "seconds", "peak memory", "key record")]
    for result in results:
        record = result.key_record
        shown = "–"
        if record:
            value = record["value"]
            number = f"{value:.4g}" if isinstance(value, float) else str(value)
            shown = f"{record['name']} = {number} {record.get('unit', '')}".rstrip()
        if result.status == "failed":
            rows.append((result.chapter, "FAILED", "–", "–", "–"))
        else:
            memory = f"{result.peak_memory_mb:.0f} MB"
            rows.append((result.chapter, result.status, f"{result.seconds:.1f}", memory, shown))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _bring_up_to_date(
    root: Path,
    chapter: str,
    label: str,
    values: Mapping[str, Any],
    timeout_s: float,
    force: bool,
    needs_hub: bool,
) -> Result:
    notebook = chapters.read(root, chapter)
    declared = chapters.defaults(notebook, chapter)
    chapters.check_parameters(chapter, declared, values)
    key = chapters.key(root, chapter, notebook, values)
    sidecar = executed_folder(root, values["tier"]) / f"{chapter}.json"
    stored, reason = _stored(root, sidecar, chapter, key, values["tier"])
    if stored and not force:
        print(f"{label} · fresh: unchanged since {stored['date']}", flush=True)
        return Result(
            chapter, "fresh", stored["seconds"], stored["peak_memory_mb"], stored["key_record"]
        )
    print(f"{label} · to run: {reason or 'forced'}", flush=True)
    changed = {name: value for name, value in values.items() if declared[name] != value}
    result = _run(root, chapter, label, notebook, values["tier"], changed, timeout_s, needs_hub)
    summary = {name: value for name, value in asdict(result).items() if name in _SIDECAR_FIELDS}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    digests = _digests(root, chapter, values["tier"])
    artifacts.write_json(
        sidecar, {**values, **summary, "key": key, "date": today, "digests": digests}
    )
    return result


_SIDECAR_FIELDS = ("chapter", "seconds", "peak_memory_mb", "key_record")


def _stored(
    root: Path, sidecar: Path, chapter: str, key: str, tier: str
) -> tuple[dict[str, Any] | None, str]:
    """Return the sidecar of an earlier run that still holds, or none and the reason to run."""
    try:
        stored = json.loads(sidecar.read_text(encoding="utf-8"))
        found = _digests(root, chapter, tier)
        if stored["key"] != key:
            return None, "its source, a helper, data, text, parameter or library changed"
        # The digests catch records overwritten by the same chapter run by hand in JupyterLab.
        differing = [what for what, digest in found.items() if stored["digests"][what] != digest]
        if differing:
            return None, f"its {' and '.join(differing)} changed since the run"
        return stored, ""
    except FileNotFoundError:
        return None, "no earlier run"
    except (OSError, ValueError, KeyError) as error:
        return None, f"the earlier run cannot be read ({error})"


def _digests(root: Path, chapter: str, tier: str) -> dict[str, str]:
    files = {
        "notebook": executed_folder(root, tier) / f"{chapter}.ipynb",
        "records": records_folder(root, tier) / f"{chapter}.json",
    }
    return {what: hashlib.sha256(path.read_bytes()).hexdigest() for what, path in files.items()}


def _run(
    root: Path,
    chapter: str,
    label: str,
    notebook: nbformat.NotebookNode,
    tier: str,
    parameters: Mapping[str, Any],
    timeout_s: float,
    needs_hub: bool,
) -> Result:
    """Execute one chapter into a temporary file and move it into place when all of it ran."""
    folder = executed_folder(root, tier)
    running = root / "_build" / "running" / tier / f"{chapter}.ipynb"
    failed = folder / f"{chapter}.failed.ipynb"
    status = root / "_build" / "progress" / tier / chapter
    shutil.rmtree(status, ignore_errors=True)
    for path in (running.parent, folder, status):
        path.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    running.unlink(missing_ok=True)
    records = records_folder(root, tier) / f"{chapter}.json"
    before = records.stat().st_mtime_ns if records.exists() else None
    began = time.monotonic()
    monitor = Monitor(label, chapters.code_cells(notebook), status)
    try:
        with kernel.environment(root, chapter, records.parent, status, needs_hub), monitor:
            # Only values that differ from the chapter's own are injected, so that a page built
            # with the defaults shows one parameters cell, not two.
            executed = papermill.execute_notebook(
                notebook,
                running,
                parameters=dict(parameters),
                engine_name=kernel.ENGINE,
                kernel_name="python3",
                execution_timeout=timeout_s,
                request_save_on_cell_execute=True,
                progress_bar=False,
                cwd=Path.cwd(),
                monitor=monitor,
            )
        _check_complete(executed, monitor)
        after = records.stat().st_mtime_ns if records.exists() else None
        if after is None or after == before:
            raise ChapterFailed("no records saved: the last cell must call records.save()")
    except (Exception, KeyboardInterrupt) as error:
        if running.exists():
            os.replace(running, failed)
        if isinstance(error, KeyboardInterrupt):
            raise
        shown = failed.relative_to(root) if failed.exists() else "none"
        raise ChapterFailed(
            f"Chapter {chapter} failed in {monitor.where()}: {_cause(error, timeout_s)}. "
            f"Partial notebook: {shown}"
        ) from error
    _tidy(executed)
    artifacts.write_bytes(folder / f"{chapter}.ipynb", nbformat.writes(executed).encode())
    running.unlink(missing_ok=True)
    saved = json.loads(records.read_text(encoding="utf-8"))
    record = {"name": saved["key_record"], **saved["records"][saved["key_record"]]}
    seconds = round(time.monotonic() - began, 1)
    memory = round(monitor.peak_memory_mb, 1)
    print(f"{label} · done in {progress.duration(seconds)} · peak {memory:.0f} MB", flush=True)
    return Result(chapter, "executed", seconds, memory, record)


def _check_complete(executed: nbformat.NotebookNode, monitor: Monitor) -> None:
    """Refuse a notebook that ended early: papermill calls `sys.exit(0)` in a cell a success."""
    cells = chapters.code_cells(executed)
    errors = [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    if errors:
        raise ChapterFailed(f"it ended early with {errors[0].ename}({errors[0].evalue})")
    if not cells or cells[-1].execution_count is None:
        raise ChapterFailed("it ended early: the last cell did not run")


def _cause(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {error.evalue}"
    if isinstance(error, CellTimeoutError):
        return f"no end within {timeout_s:g} s (raise it with --cell-timeout)"
    if isinstance(error, DeadKernelError):
        return "its kernel died (out of memory, or a crash in compiled code)"
    return str(error) if isinstance(error, ChapterFailed) else f"{type(error).__name__}: {error}"


def _tidy(executed: nbformat.NotebookNode) -> None:
    """Drop what papermill and nbclient note about this machine and moment, save durations."""
    executed.metadata.pop("papermill", None)
    for cell in executed.cells:
        cell.metadata.pop("execution", None)
        noted = cell.metadata.pop("papermill", {})
        if cell.cell_type == "code":
            cell.metadata["papermill"] = {"duration": noted.get("duration")}
