"""Expected records: what the chapters find, and how far a run may be from it.

`data/expected/TIER.json` keeps every number and every word of repeated runs with different seeds;
verdicts are no records, they follow from the numbers. The tolerance of a number is measured: it is
the half-width of Student's 99 % prediction interval for one more run, and at least a hundredth of
the number: the descriptions of installed packages are part of the builtin text, so that a new
version of one moves every loss a little, the same for all seeds. CI compares its own run, so that a
change of the code that moves a result by more than another seed would is seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import artifacts

MIN_RUNS = 3
"""Fewer runs make a wider interval, not a smaller one: with three it reaches 11.5 deviations."""
SEEDS = (137, 2026, 42)
LEVEL = 0.99
FLOOR = 0.01
"""Relative room where repeated runs hardly differ, e.g. in the base's perplexity."""
ROUNDING = 1e-6
"""Room for another processor's rounding of what is zero."""
_TIMES = ("core-minutes", "s", "tokens/s", "x")


def path(tier: str) -> Path:
    """Where the expected records of a tier are kept."""
    return artifacts.data() / "expected" / f"{tier}.json"


def load(tier: str) -> dict[str, Any]:
    """Expected records of a tier: ``chapters`` maps chapter → record name → what is expected.

    Raises
    ------
    FileNotFoundError
        If none were written for this tier.
    """
    if not path(tier).is_file():
        raise FileNotFoundError(
            f"{path(tier)} is not there: write it with make expected TIER={tier}"
        )
    return json.loads(path(tier).read_text("utf-8"))


def summarise(runs: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is expected of one chapter, from the records of repeated runs.

    Parameters
    ----------
    runs
        Saved records (see `records.load`) of one chapter with different seeds.

    Returns
    -------
    dict
        By record name: ``value`` (mean), ``tolerance``, ``unit`` and ``runs`` of a number, or
        ``words``, all that were seen, of a record that is no number. Times and their ratios, and
        records that not every run has, are left out.

    Raises
    ------
    ValueError
        If there are fewer than three runs, or two of the same seed.
    """
    from scipy import stats

    seeds = sorted(run["seed"] for run in runs)
    if len(set(seeds)) < MIN_RUNS or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"A spread needs {MIN_RUNS} runs with different seeds, not those with {seeds}"
        )
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(runs) - 1)) * math.sqrt(1 + 1 / len(runs))
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set.intersection(*(set(run["records"]) for run in runs))):
        entries = [run["records"][name] for run in runs]
        if entries[0]["unit"] in _TIMES:
            continue
        values = [entry["value"] for entry in entries]
        if any(isinstance(value, str) for value in values):
            found[name] = {"words": sorted(set(values))}
            continue
        mean = float(np.mean(values))
        spread = reach * float(np.std(values, ddof=1))
        tolerance = max(spread, FLOOR * abs(mean)) + ROUNDING
        found[name] = {
            "value": float(f"{mean:.8g}"),
            "tolerance": float(f"{tolerance:.3g}"),
            "unit": entries[0]["unit"],
            "runs": [float(f"{value:.8g}") for value in values],
        }
    return found


def measure(tier: str, names: Iterable[str] | None = None, seeds: tuple[int, ...] = SEEDS) -> Path:
    """Run chapters once a seed and write what is to be expected; the last seed stays built.

    All chapters when ``names`` is empty; what is expected of others stays. What was trained is in
    the store, so that an interrupted call goes on where it was.

    Raises
    ------
    RuntimeError
        If a chapter fails.
    """
    from . import execute, records

    runs: dict[str, list[Mapping[str, Any]]] = {}
    for seed in seeds:
        for result in execute.execute(names, tier=tier, seed=seed):
            if result.error:
                raise RuntimeError(f"{result.chapter} with seed {seed}: {result.error}")
            runs.setdefault(result.chapter, []).append(records.load(result.chapter, tier))
    return write(tier, list(runs.values()))


def write(tier: str, runs: list[list[Mapping[str, Any]]]) -> Path:
    """Write the expected records of a tier atomically.

    Parameters
    ----------
    runs
        One list a chapter, of the records of its repeated runs.
    """
    first = runs[0][0]
    kept = load(tier)["chapters"] if path(tier).is_file() else {}
    new = {chapter[0]["chapter"]: summarise(chapter) for chapter in runs}
    return artifacts.write_json(
        path(tier),
        {
            "tier": tier,
            "corpora": first["corpora"],
            "seeds": sorted(run["seed"] for run in runs[0]),
            "date": max(run["date"] for chapter in runs for run in chapter),
            "environment": first["environment"],
            "chapters": dict(sorted((kept | new).items())),
        },
    )


def differences(run: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for every record of a run that is missing or not as expected."""
    problems = []
    for name, entry in wanted.items():
        found = run["records"].get(name)
        where = f"{run['chapter']}/{name}"
        if found is None:
            problems.append(f"{where} was not recorded")
        elif "words" in entry:
            if found["value"] not in entry["words"]:
                problems.append(f"{where} is {found['value']!r}, not {' or '.join(entry['words'])}")
        elif not abs(found["value"] - entry["value"]) <= entry["tolerance"]:
            problems.append(
                f"{where} is {found['value']:.6g}, expected {entry['value']:.6g} "
                f"± {entry['tolerance']:.3g} {entry['unit']}".rstrip()
            )
    return problems
