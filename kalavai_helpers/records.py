"""Records: the one way a chapter says a number.

A chapter calls `start` once, `record` for every number that prose, tests or other chapters use,
and `save` in its last cell. Text and figures read the saved JSON, so they cannot disagree.

What a chapter recomputes from a recorded ledger was run by somebody else: inside `run_of`, records
go to a *side run*, with the tier, text, seed, date and environment of that recording. It is saved
in the file of the chapter's own run, and may use the same names.
"""

import json
import math
import numbers
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalavai_helpers import artifacts

if TYPE_CHECKING:
    import pandas as pd

FOLDER_VARIABLE = "KALAVAI_RECORDS"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "plotly")

_run: dict[str, Any] | None = None
_side: str | None = None
"""Tier of the side run that records go to just now."""


def start(chapter: str, tier: str, seed: int, corpora: str, key: str | None = None) -> None:
    """Begin the records of one chapter; records of an earlier `start` that were not saved are lost.

    Parameters
    ----------
    chapter
        Name of the chapter, e.g. `"01_protocol"`.
    tier, seed, corpora
        The parameters of this run; they are stored beside every number.
    key
        Name of the key record, the one shown in the table after a run; by default the first.
    """
    global _run, _side
    _side = None
    _run = {
        "chapter": chapter,
        "tier": str(tier),
        "seed": int(seed),
        "corpora": str(corpora),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "environment": environment() | _checkpoint(str(tier)),
        "key_record": key,
        "records": {},
        "tables": {},
        "sides": {},
    }


@contextmanager
def run_of(tier: str) -> Iterator[None]:
    """Let records and tables of the block go to the side run of a recorded ledger.

    Several blocks fill one side run. `current`, and what text and verdicts say in the block, are
    still of the chapter's own run.

    Parameters
    ----------
    tier
        Tier of the recording (see `kept_ledger`).

    Raises
    ------
    RuntimeError
        When `start` has not been called, or inside another such block.
    FileNotFoundError
        When no ledger was recorded at this tier.
    """
    from kalavai_helpers import kept_ledger

    global _side
    run = _started()
    if _side is not None:
        raise RuntimeError(f"run_of({tier!r}) inside run_of({_side!r}): end that block first")
    about = kept_ledger.about(tier)
    run["sides"].setdefault(
        tier,
        {
            "chapter": run["chapter"],
            **{name: about[name] for name in kept_ledger.RUN},
            "recomputed_from": "the recorded ledger",
            "records": {},
            "tables": {},
        },
    )
    _side = tier
    try:
        yield
    finally:
        _side = None


def side(tier: str) -> dict[str, Any]:
    """Return the side run of the current chapter at a tier.

    Raises
    ------
    KeyError
        When the chapter recorded nothing inside `run_of`.
    """
    run = _started()
    if tier not in run["sides"]:
        raise KeyError(
            f"chapter {run['chapter']} recorded nothing inside records.run_of({tier!r}) so far"
        )
    return run["sides"][tier]


def record(
    name: str,
    value: float | str,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    protocol: str | None = None,
    seeds: int | Sequence[int] | None = None,
) -> None:
    """Store one result under `name`, as a plain Python value.

    Recording a name again replaces its value, so that a cell can be run twice.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores.
    value
        A finite number (Python, NumPy or a one-element tensor), or a word.
    unit
        Unit of `value`, e.g. `"nats/token"` or `"%"`.
    low, high
        Bounds of the interval around `value`, in the same unit.
    protocol
        Evaluation protocol behind the number.
    seeds
        Number of seeds behind the number, or the seeds themselves, of which the number is kept.

    Raises
    ------
    RuntimeError
        When `start` has not been called.
    ValueError
        When the name is malformed, a number is not finite, or `low` exceeds `high`.
    TypeError
        When the value is neither a number nor a word.
    """
    run = _target()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"Record name {name!r}: use lower-case letters, digits and underscores only"
        )
    where = f"Record {name!r} of chapter {run['chapter']}"
    entry = {
        "value": value if isinstance(value, str) else _finite(value, where, "value"),
        "unit": unit,
        "low": None if low is None else _finite(low, where, "low"),
        "high": None if high is None else _finite(high, where, "high"),
        "protocol": protocol,
        "seeds": len(seeds) if isinstance(seeds, Sequence) else seeds,
    }
    if entry["low"] is not None and entry["high"] is not None and entry["low"] > entry["high"]:
        raise ValueError(f"{where}: low {entry['low']} exceeds high {entry['high']}")
    run["records"][name] = entry


def table(name: str, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Store a table beside the records and return it; `frame_of` turns it back into a frame.

    Parameters
    ----------
    name
        Lower-case letters, digits and underscores.
    frame
        The index is stored as a column; every number must be finite.
    """
    plain = frame.reset_index()
    # Columns by position: JSON files are written with sorted keys.
    _target()["tables"][name] = {
        "columns": list(plain.columns),
        "rows": plain.astype(object).to_numpy().tolist(),
    }
    return frame


def frame_of(run: dict[str, Any], name: str) -> "pd.DataFrame":
    """Return a stored table of a run (from `load` or `recorded.load`), first column as index."""
    import pandas as pd

    frame = pd.DataFrame(run["tables"][name]["rows"], columns=run["tables"][name]["columns"])
    return frame.set_index(frame.columns[0])


def beside(past: dict[str, Any], names: Mapping[str, str] | None = None) -> "pd.DataFrame":
    """Return this run's numbers beside those of another run, where both recorded them.

    Parameters
    ----------
    past
        Another run of the same chapter, e.g. from `recorded.load`.
    names
        What a row is called → the record it shows, in the order of the table: the few quantities
        that the claims of a chapter rest on. `None` shows all that both recorded.

    Raises
    ------
    KeyError
        When this run did not record one of the names.
    """
    import pandas as pd

    run = _started()
    if names is None:
        names = {name.replace("_", " "): name for name in run["records"]}
    missing = [name for name in names.values() if name not in run["records"]]
    if missing:
        raise KeyError(f"Chapter {run['chapter']} did not record {', '.join(missing)}")
    rows = {}
    for label, name in names.items():
        if name in past["records"]:
            cells = [_cell(found["records"][name]) for found in (run, past)]
            rows[label] = [*cells, run["records"][name]["unit"]]
    titles = [f"this run ({run['tier']})", f"recorded ({past['tier']})", "unit"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def _cell(entry: dict[str, Any]) -> str:
    if isinstance(entry["value"], str):
        return entry["value"]
    text = _short(entry["value"])
    if entry["low"] is None:
        return text
    return f"{text} [{_short(entry['low'])}, {_short(entry['high'])}]"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def current() -> dict[str, Any] | None:
    """Return the run that `start` began in this process, saved or not, or None."""
    return _run


def save() -> Path:
    """Write the records of the current chapter atomically and return the file's path.

    The path is relative to the working folder: a chapter that ends with this call shows it, and
    a published page should not name folders of the machine it was made on.

    Raises
    ------
    RuntimeError
        When `start` has not been called, or when nothing was recorded.
    """
    run = _started()
    if not run["records"]:
        raise RuntimeError(f"Chapter {run['chapter']} recorded nothing: call records.record first")
    run["key_record"] = run["key_record"] or next(iter(run["records"]))
    if run["key_record"] not in run["records"]:
        raise RuntimeError(
            f"Chapter {run['chapter']} never recorded its key record {run['key_record']!r}"
        )
    target = path(run["chapter"], run["tier"])
    artifacts.write_json(target, run)
    return Path(os.path.relpath(target))


def load(chapter: str, tier: str = "ci") -> dict[str, Any]:
    """Return the saved records of a chapter.

    Raises
    ------
    FileNotFoundError
        When the chapter has not been executed at this tier.
    ValueError
        When the file is not valid JSON or belongs to another tier.
    """
    source = path(chapter, tier)
    if not source.is_file():
        raise FileNotFoundError(
            f"No records of chapter {chapter!r} at tier {tier!r} ({source}): run "
            f"python -m kalavai_helpers execute --tier {tier} --chapter {chapter}"
        )
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Records file {source} is damaged ({error}): delete it") from error
    if data.get("tier") != tier:
        raise ValueError(f"Records file {source} holds tier {data.get('tier')!r}, not {tier!r}")
    return data


def path(chapter: str, tier: str) -> Path:
    """Return where the records of a chapter are kept; `KALAVAI_RECORDS` names another folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    base = Path(folder) if folder else artifacts.project_root() / "_build" / "records" / tier
    return base / f"{chapter}.json"


def environment() -> dict[str, str]:
    """Return the versions and the kind of machine behind a run; no name or path of the machine."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions | {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": str(os.cpu_count() or 1),
    }


def _checkpoint(tier: str) -> dict[str, str]:
    """What a tier's base was made from: the same tier may start from one of two checkpoints."""
    from kalavai_helpers import tiers

    known = tiers.TIERS.get(tier)
    if known is None or known.hub_id is None:
        return {}
    from kalavai_helpers import checkpoints

    return {"checkpoint": ", ".join(checkpoints.described(known).values())}


def _started() -> dict[str, Any]:
    if _run is None:
        raise RuntimeError("records.start(chapter, tier=…, seed=…, corpora=…) was not called")
    return _run


def _target() -> dict[str, Any]:
    """Return the run that records go to: the chapter's own, or the side run of a block."""
    run = _started()
    return run if _side is None else run["sides"][_side]


def _finite(value: Any, where: str, field: str) -> float | int | bool:
    """Return `value` as a plain Python number; refuse anything that is not finite."""
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{where}: {field} {value!r} is not a number")
    if not math.isfinite(value):
        raise ValueError(f"{where}: {field} is {value}, not a finite number")
    return value if isinstance(value, bool | int) else float(value)
