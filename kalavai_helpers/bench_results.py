"""Recorded measurements of the bench, as tables for a page."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from . import artifacts


def load(kind: str = "cpu") -> dict[str, Any]:
    """What ``make bench`` recorded on a kind of device, ``cpu`` or ``cuda``.

    Raises
    ------
    FileNotFoundError
        If nothing was recorded.
    """
    path = artifacts.data() / "recorded" / "bench" / f"{kind}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: make bench writes it")
    return json.loads(path.read_text("utf-8"))


def frame(run: dict[str, Any], part: str) -> pd.DataFrame:
    """One row a measurement of a part: ``what``, ``unit``, ``median``, ``low``, ``high``, places.

    What was varied and what else was found are columns too.
    """
    rows = [row for row in run["measurements"] if row["part"] == part]
    numbers = ("what", "unit", "median", "low", "high")
    return pd.DataFrame(
        [{**{n: row[n] for n in numbers}, **row["where"], **row["also"]} for row in rows]
    )


def forward(run: dict[str, Any]) -> pd.DataFrame:
    """Time of fused forward passes over that of one specialist, for the smaller model.

    Columns experts, epsilon (0 is dense), documents, ratio with low and high (quartiles),
    share_read, bound_max, loss_change_pct.
    """
    table = frame(run, "forward")
    table = table[(table.unit == "×") & (table.width == table.width.min())]
    table = table.rename(columns={"median": "ratio"})
    columns = ["experts", "epsilon", "documents", "ratio", "low", "high"]
    return table[[*columns, "share_read", "bound_max", "loss_change_pct"]].reset_index(drop=True)


def lines(run: dict[str, Any], part: str, along: str) -> list[dict[str, Any]]:
    """Ratios of a part for the smaller model, one line a condition, with their quartiles.

    ``along`` is what was varied, ``experts`` or ``tokens``; of several batches the largest is
    taken, and what is dense comes last. For :func:`kalavai_helpers.figure_curves.curves`.
    """
    table = frame(run, part)
    table = table[(table.unit == "×") & (table.width == table.width.min())].sort_values(along)
    if "batch" in table:
        table = table[table.batch == table.batch.max()]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        epsilon = row.get("epsilon")
        name = part if epsilon is None else f"ε = {epsilon:g}" if epsilon else "dense"
        if epsilon and "documents" in row:
            name += f", {row['documents']}"
        found.setdefault(name, []).append(row)
    sides = {"x": along, "y": "median", "low": "low", "high": "high"}
    return [
        {"name": name, **{side: [row[of] for row in rows] for side, of in sides.items()}}
        for name, rows in sorted(found.items(), key=lambda line: line[0] == "dense")
    ]


def bars(run: dict[str, Any]) -> pd.DataFrame:
    """What was to be reached, what was reached, and whether that is enough."""
    rows = [
        {
            "what": f"{row['part']}: {row['what']}",
            "median": row["median"],
            "low": row["low"],
            "high": row["high"],
            "unit": row["unit"],
            "to reach": f"{row['bar']['sign']} {row['bar']['value']:g}",
            "operations alone": f"{row['also']['floor']:.2f}" if "floor" in row["also"] else "",
            "reached": "yes" if row["bar"]["met"] else "no",
        }
        for row in run["measurements"]
        if row["bar"]
    ]
    columns = ["what", "median", "low", "high", "unit", "to reach", "operations alone", "reached"]
    return pd.DataFrame(rows, columns=columns).set_index("what")


def caption(run: dict[str, Any]) -> str:
    """Where and when it was measured, and on what."""
    machine = run["machine"]
    batch = next(row["where"]["batch"] for row in run["measurements"] if row["part"] == "forward")
    text = "builtin text" if run["corpora"] == "builtin" else "held-out real text"
    return (
        f"Recorded {run['date']}: {machine['processor']}, {machine['threads']} threads, device "
        f"{run['device']}, torch {run['environment']['torch']}; {batch} documents a batch, {text}. "
        f"{run['note']}"
    )
