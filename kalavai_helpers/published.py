"""The public record of KALAVAI: every published number the book quotes, by id.

The values live in `data/published/values.csv`, which the README beside it explains. They are read
only if the file has the checksum in `SHA256SUMS` beside it.
"""

import csv
import difflib
import hashlib
import io
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kalavai_helpers import artifacts

if TYPE_CHECKING:
    import pandas as pd

DOMAINS = ("code", "science", "fiction")

# How the ids of the released cross-domain losses are made, and which released gain belongs to
# them: (model and run, protocol, gain). The 6.9B losses were never released under the protocol
# of the smaller models.
_MATRICES: dict[str, tuple[str, str, str]] = {
    "main-410M": ("pythia-410m_step10000/", "corr", "corrected_metrics/improvement_vs_spec"),
    "main-1B": ("pythia-1b_step10000/", "corr", "corrected_metrics/improvement_vs_spec"),
    "main-6.9B": (
        "pythia-6.9b_step10000/1000_steps_K_6_step6_",
        "6.9B_per-domain_bs_1_50_seed",
        "MoE_vs_best_specialist/gain_vs_spec",
    ),
}
_ROWS = {
    "base": "model_base",
    "code": "model_code_spec",
    "science": "model_science_spec",
    "fiction": "model_fiction_spec",
    "weight average": "model_weight_avg",
    "moe": "model_moe",
}
_BASE_SEED = 42  # the base does not depend on the training seed: its losses are released once


def _path() -> Path:
    path = artifacts.data() / "published" / "values.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"The public record is not at {path}: run from a checkout of the book's repository."
        )
    return path


def _text(path: Path) -> str:
    """Text of the record, if its checksum is that of the ``SHA256SUMS`` beside it."""
    text = path.read_text(encoding="utf-8")  # any line ends: a checkout may have changed them
    expected = (path.parent / "SHA256SUMS").read_text(encoding="utf-8").split()[0]
    if hashlib.sha256(text.encode()).hexdigest() != expected:
        raise ValueError(
            f"{path} is not the record whose checksum stands in SHA256SUMS beside it: a value was"
            " changed. Restore the file; after a change that is meant, run"
            " `sha256sum values.csv > SHA256SUMS` in its folder."
        )
    return text


@cache
def _records() -> dict[str, Mapping[str, Any]]:
    records: dict[str, Mapping[str, Any]] = {}
    for line in csv.DictReader(io.StringIO(_text(_path()))):
        seeds = tuple(int(seed) for seed in line["seeds"].split())
        record = {**line, "value": float(line["value"]), "seeds": seeds}
        records[line["id"]] = MappingProxyType(record)
    return records


def _closest(word: str, valid: Iterable[str]) -> str:
    """Return the valid words most like `word`, as text for a message."""
    found = difflib.get_close_matches(word, list(dict.fromkeys(valid)), n=3, cutoff=0.3)
    return "; ".join(found) or "nothing similar"


def load() -> "pd.DataFrame":
    """Return the whole public record, one value a row.

    Returns
    -------
    pandas.DataFrame
        3,066 rows; columns id, experiment, model, condition, metric, value (float), unit, seeds
        (tuple of int), eval_protocol, source, note, commit (of the public repository; empty for
        web page and abstract), date (released on, or before). The frame is yours to change.

    Raises
    ------
    ValueError
        If the file is not the one whose checksum is kept beside it.
    """
    import pandas as pd

    return pd.DataFrame.from_records([dict(record) for record in _records().values()])


def row(id: str) -> Mapping[str, Any]:
    """Return one published value with all its columns.

    Raises
    ------
    KeyError
        If there is no such id; the message names the closest ones.
    """
    try:
        return _records()[id]
    except KeyError:
        closest = _closest(id, _records())
        raise KeyError(f"No published value has the id {id!r}; closest: {closest}") from None


def value(id: str) -> float:
    """Return one published value, in the unit of its row.

    Raises
    ------
    KeyError
        If there is no such id; the message names the closest ones.
    """
    return row(id)["value"]


def select(**columns: Any) -> "pd.DataFrame":
    """Return the rows whose columns equal the given values, in the order of the record.

    Parameters
    ----------
    columns
        Column name and value. A list matches any of its values. `seeds` is an int (measured with
        exactly this seed) or a tuple of ints (exactly these).

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a value occurs nowhere in its column, which is most often a slip of the pen.
    """
    frame = load()
    keep = frame["id"].notna()
    for name, wanted in columns.items():
        if name not in frame:
            raise KeyError(f"No column {name!r}: the columns are {', '.join(frame.columns)}")
        options = wanted if isinstance(wanted, list) else [wanted]
        if name == "seeds":
            options = [(seed,) if isinstance(seed, int) else tuple(seed) for seed in options]
        present = set(frame[name])
        for option in options:
            if option not in present:
                closest = _closest(str(option), map(str, present))
                raise ValueError(f"No published row has {name}={option!r}; closest: {closest}")
        keep &= frame[name].isin(options)
    return frame[keep].reset_index(drop=True)


def loss_matrix(experiment: str, seed: int = 42) -> "pd.DataFrame":
    """Return the released losses of base, specialists and fused model on every domain.

    Parameters
    ----------
    experiment
        ``"main-410M"``, ``"main-1B"`` or ``"main-6.9B"``.
    seed
        Training seed: 42, 137 or 2026.

    Returns
    -------
    pandas.DataFrame
        Shape (6, 3), nats/token; rows base, the three specialists by domain, weight average, moe
        (the fused model); columns are the domains. Its ``attrs`` say under which protocol it was
        measured (``"protocol"``), what else to know (``"note"``), which ids it is made of
        (``"ids"``, a matching tuple of tuples) and which released gain belongs to it
        (``"gain_id"``).

    Raises
    ------
    ValueError
        If no full cross-domain matrix was released for this experiment and seed.
    """
    import pandas as pd

    if experiment not in _MATRICES or seed not in (42, 137, 2026):
        raise ValueError(
            f"No released loss matrix for {experiment!r}, seed {seed!r}: choose one of"
            f" {', '.join(_MATRICES)} with seed 42, 137 or 2026."
        )
    run, protocol, gain = _MATRICES[experiment]
    ids = tuple(
        tuple(
            f"{experiment}/{run}{part}/loss_{domain}/s{_BASE_SEED if name == 'base' else seed}/{protocol}"
            for domain in DOMAINS
        )
        for name, part in _ROWS.items()
    )
    losses = [[value(id) for id in line] for line in ids]
    matrix = pd.DataFrame(losses, index=list(_ROWS), columns=list(DOMAINS))
    model = run.partition("/")[0]
    matrix.attrs = {
        "protocol": row(ids[0][0])["eval_protocol"],
        "note": "" if seed == _BASE_SEED else f"base losses were released with seed {_BASE_SEED}",
        "unit": row(ids[0][0])["unit"],
        "ids": ids,
        "gain_id": f"{experiment}/{model}/{gain}/s{seed}/{protocol}",
    }
    return matrix
