"""The kept ledger: what a pretrained cooperative said of every token, in a form that ships.

``data/recorded/TIER/ledger.safetensors`` holds log-probabilities, states and columns,
``ledger.json`` beside it how they were made and of which documents. Chapters read it as ordinary
`Ledger` objects and compute everything again, without the weights. Neither text nor token ids are
in it: documents are named by source and digest; of the book's own prompts the tokens are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import artifacts, compact_states, corpora, tiers
from .compact_states import StateCode
from .ledger import Ledger

PARTS = ("heldout", "router", "switching", "prompts")
RUN = ("tier", "corpora", "seed", "date", "environment")
"""What `about` says of the run, as the records of a chapter do."""
ABOUT = (*RUN, "recipe", "checkpoint", "durations_s", "notice", "teams")
MAX_BYTES = 25_000_000

LEVELS = 2**16 - 2
"""Numbers of a column are whole multiples of this part of its range, in two bytes; one is NaN.

Measured on SmolLM2-135M's scores of real text, range 23 nats, 12 windows a domain: a domain's mean
loss moves by at most 1.1e-5 nats/token; float16, of the same size, moves it by 1.0e-4, since it is
coarsest where the loss is.
"""

ROUNDING = 1e-5
"""How far above 0 a log-probability may be computed, in nats."""

_ABSENT = -(2**15)
_CODE = ("mean", "scale", "directions", "step")


@dataclass(frozen=True)
class Kept:
    """A recorded ledger.

    Attributes
    ----------
    parts
        Ledgers by part, of :data:`PARTS`; their features are :mod:`compact_states`.
    columns
        By part and name, what needs logits: of tokens (n,), e.g. log-probabilities of a logit
        mixture, or of windows (n_windows, K), e.g. gates of a router that pools; float32. NaN where
        a column has nothing to say of a group.
    digests
        By part, SHA-256 of the scored text of each document.
    tokens
        The tokens of the part ``prompts`` as text, (n,).
    about
        The run, its recipe, checkpoint, durations, and what may be done with it (:data:`ABOUT`).
    code
        Turns states of the base into the features of the parts.
    """

    parts: dict[str, Ledger]
    columns: dict[str, dict[str, torch.Tensor]]
    digests: dict[str, tuple[str, ...]]
    tokens: tuple[str, ...]
    about: dict[str, Any]
    code: StateCode


def folder(tier: str = tiers.PRETRAINED) -> Path:
    """Where the kept ledger of a tier is."""
    home = os.environ.get(artifacts.KEPT_VARIABLE)
    return (Path(home) if home else artifacts.data() / "recorded") / tier


def there(tier: str = tiers.PRETRAINED) -> bool:
    """Whether a ledger has been recorded at this tier."""
    return (folder(tier) / "ledger.json").is_file()


def about(tier: str = tiers.PRETRAINED) -> dict[str, Any]:
    """How the ledger of a tier was made, without reading it.

    Raises
    ------
    FileNotFoundError
        If none has been recorded.
    ValueError
        If the file cannot be read.
    """
    return _described(folder(tier))["about"]


def digest(text: str) -> str:
    """SHA-256 of a scored text, by which an outsider finds its document."""
    return hashlib.sha256(text.encode()).hexdigest()


def of_seed(domain: str, seed: int) -> str:
    """Column of a specialist of another seed than the ledger's own."""
    return f"{domain}, seed {seed}"


def at_seed(ledger: Ledger, domains: tuple[str, ...], seed: int) -> Ledger:
    """The cooperative of some domains by their specialists of another seed.

    Raises
    ------
    KeyError
        If one of them was not recorded; names those that were.
    """
    own = ledger.restrict(domains)
    missing = [d for d in domains if of_seed(d, seed) not in ledger.models]
    if missing:
        raise KeyError(
            f"no specialist of {', '.join(missing)} with seed {seed}: the ledger holds "
            f"{', '.join(ledger.models)}"
        )
    tokens = torch.isin(ledger.token_group, torch.tensor([ledger.groups.index(d) for d in domains]))
    log_probs = own.log_probs.clone()
    for domain in domains:
        log_probs[:, own.models.index(domain)] = ledger.column(of_seed(domain, seed))[tokens]
    return replace(own, log_probs=log_probs)


def rounded(parts: Mapping[str, Ledger]) -> dict[str, Ledger]:
    """The ledgers as they come back from a file: what a recording is to measure itself on."""
    code = _code(parts)
    return {
        name: replace(
            ledger,
            log_probs=_values(*_whole(ledger.log_probs)).clamp_max(0),
            features=code.decode(code.encode(ledger.features)),
        )
        for name, ledger in parts.items()
    }


def write(
    target: Path,
    parts: Mapping[str, Ledger],
    columns: Mapping[str, Mapping[str, torch.Tensor]],
    about: Mapping[str, Any],
    *,
    digests: Mapping[str, Sequence[str]],
    tokens: Sequence[str] = (),
) -> Path:
    """Write ledgers to a folder; a reader sees the old ledger, the new one, or an error.

    Parameters
    ----------
    parts
        Ledgers by part; ``heldout`` and ``router`` must be there. Their states may have any width:
        the code is fitted to those of ``router``.
    columns
        See :class:`Kept`.
    about
        Has every name of :data:`ABOUT`; of ``corpora`` only the kind of source is kept.
    digests
        By part, :func:`digest` of each document.
    tokens
        Of the part ``prompts``, which the book wrote itself.

    Raises
    ------
    ValueError
        For parts, columns or digests that do not fit each other, numbers that are not finite, or
        more than :data:`MAX_BYTES`.
    """
    _check(parts, columns, about, digests, tokens)
    code = _code(parts)
    tensors = {f"states/{name}": getattr(code, name) for name in _CODE}
    described = {}
    for name, ledger in parts.items():
        of_tokens, of_windows = [], []
        for title, column in columns.get(name, {}).items():
            if column.dim() == 1:
                groups = _groups(ledger, column)
                there = torch.isin(ledger.token_group, torch.tensor(groups))
                tensors |= _named(f"{name}/columns/{len(of_tokens)}", column[there])
                of_tokens.append([title, groups])
            else:
                tensors[f"{name}/windows/{len(of_windows)}"] = column.float()
                of_windows.append(title)
        n_tokens = torch.bincount(ledger.window)
        first = n_tokens.cumsum(0) - n_tokens
        tensors |= {
            **_named(f"{name}/log_probs", ledger.log_probs),
            f"{name}/features": code.encode(ledger.features),
            f"{name}/window_tokens": n_tokens.int(),
            f"{name}/document_windows": torch.bincount(ledger.document[first]).int(),
            f"{name}/group": ledger.group.int(),
            f"{name}/n_bytes": ledger.n_bytes.int(),
        }
        described[name] = {
            "models": list(ledger.models),
            "experts": list(ledger.experts),
            "groups": list(ledger.groups),
            "role": ledger.role,
            "source": [str(source) for source in ledger.source],
            "sha256": list(digests[name]),
            "columns": of_tokens,
            "window_columns": of_windows,
        }
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"The ledger has {size:,} bytes, at most {MAX_BYTES:,} may ship: leave columns out"
        )
    data = artifacts.save_tensors(target / "ledger.safetensors", tensors, {}).read_bytes()
    # The place of a corpus on the machine that ran is nobody's business.
    told = dict(about) | {"corpora": about["corpora"].partition(":")[0]}
    file = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    # Last, so that tensors of a recording that was cut off are not what it describes.
    return artifacts.write_json(
        target / "ledger.json",
        {"about": told, "file": file, "parts": described, "tokens": list(tokens)},
    )


def read(tier: str = tiers.PRETRAINED) -> Kept:
    """Read the kept ledger of a tier.

    Raises
    ------
    FileNotFoundError
        If none has been recorded, or one of its files is missing.
    ValueError
        If a file is damaged, cut short, or only a pointer of Git LFS; says what to do.
    """
    home = folder(tier)
    described = _described(home)
    path = home / "ledger.safetensors"
    _verify(path, described["file"])
    tensors, _ = artifacts.load_tensors(path)
    code = StateCode(*(tensors[f"states/{name}"] for name in _CODE))
    parts, columns = {}, {}
    for name in (part for part in PARTS if part in described["parts"]):
        told = described["parts"][name]
        parts[name] = _ledger(name, told, tensors, code)
        found = {}
        for number, (title, groups) in enumerate(told["columns"]):
            there = torch.isin(parts[name].token_group, torch.tensor(groups))
            found[title] = torch.full((len(there),), torch.nan)
            found[title][there] = _values(*_of_name(f"{name}/columns/{number}", tensors))
        for number, title in enumerate(told["window_columns"]):
            found[title] = tensors[f"{name}/windows/{number}"]
        columns[name] = found
    digests = {name: tuple(described["parts"][name]["sha256"]) for name in parts}
    return Kept(parts, columns, digests, tuple(described["tokens"]), described["about"], code)


def _ledger(
    name: str, told: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], code: StateCode
) -> Ledger:
    in_window = tensors[f"{name}/window_tokens"].long()
    in_document = tensors[f"{name}/document_windows"].long()
    document = torch.arange(len(in_document)).repeat_interleave(in_document)
    return Ledger(
        models=tuple(told["models"]),
        experts=tuple(told["experts"]),
        groups=tuple(told["groups"]),
        log_probs=_values(*_of_name(f"{name}/log_probs", tensors)).clamp_max(0),
        features=code.decode(tensors[f"{name}/features"]),
        document=document.repeat_interleave(in_window),
        window=torch.arange(len(in_window)).repeat_interleave(in_window),
        group=tensors[f"{name}/group"].long(),
        n_bytes=tensors[f"{name}/n_bytes"].long(),
        role=told["role"],
        source=np.array(told["source"]),
    )


def _groups(ledger: Ledger, column: torch.Tensor) -> list[int]:
    """Groups (indices) on all of whose tokens a column has a number."""
    absent = torch.zeros(len(ledger.groups)).index_add_(
        0, ledger.token_group, column.isnan().float()
    )
    return (absent == 0).nonzero()[:, 0].tolist()


def _code(parts: Mapping[str, Ledger]) -> StateCode:
    fitting = parts["router"]
    return compact_states.fit(fitting.features, fitting.token_group)


def _whole(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Columns (n, ...) as whole numbers int16, with the least value and the unit of each (...)."""
    wide, there = values.double(), ~values.isnan()
    low = wide.where(there, torch.inf).amin(0)
    high = wide.where(there, -torch.inf).amax(0)
    unit = ((high - low) / LEVELS).clamp_min(1e-12)
    codes = ((wide - low) / unit).round() - LEVELS // 2
    return codes.where(there, _ABSENT).to(torch.int16), low, unit


def _values(codes: torch.Tensor, low: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    numbers = low + (codes.double() + LEVELS // 2) * unit
    return numbers.where(codes != _ABSENT, torch.nan).float()


def _named(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip((name, f"{name}/low", f"{name}/unit"), _whole(values), strict=True))


def _of_name(name: str, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    return [tensors[part] for part in (name, f"{name}/low", f"{name}/unit")]


def _described(home: Path) -> dict[str, Any]:
    path = home / "ledger.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: no ledger of this tier has been recorded")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): check it out again") from error


def _verify(path: Path, told: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: check out the folder again")
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is only a pointer of Git LFS: fetch it with git lfs pull")
    if len(data) != told["bytes"]:
        raise ValueError(
            f"{path} has {len(data):,} of {told['bytes']:,} bytes: check it out again, or record "
            "it again if a recording was interrupted"
        )
    if hashlib.sha256(data).hexdigest() != told["sha256"]:
        raise ValueError(f"{path} is not the file that ledger.json describes: check both out again")


def _check(
    parts: Mapping[str, Ledger],
    columns: Mapping[str, Mapping[str, torch.Tensor]],
    about: Mapping[str, Any],
    digests: Mapping[str, Sequence[str]],
    tokens: Sequence[str],
) -> None:
    missing = [name for name in ABOUT if name not in about]
    if missing:
        raise ValueError(f"A kept ledger must tell its {', '.join(missing)}")
    odd = (set(parts) | set(columns)) - set(PARTS)
    if odd or not {"heldout", "router"} <= set(parts):
        raise ValueError(f"The parts are heldout, router and of {PARTS}, not {sorted(parts)}")
    corpora.require_role(parts["router"].role, "router", "Fitting the code of states")
    prompts = len(parts["prompts"]) if "prompts" in parts else 0
    if len(tokens) != prompts:
        raise ValueError(f"{len(tokens)} token texts for {prompts} tokens of prompts")
    for name, ledger in parts.items():
        given = digests.get(name, ())
        if len(given) != ledger.n_documents:
            raise ValueError(f"{name} has {ledger.n_documents} documents and {len(given)} digests")
        if not all(re.fullmatch("[0-9a-f]{64}", one) for one in given):
            raise ValueError(f"{name}: a digest is 64 hexadecimal digits, see kept_ledger.digest")
        _check_order(name, ledger)
        for title, column in zip(ledger.models, ledger.log_probs.unbind(1), strict=True):
            _check_groups(f"Log-probability {title!r} of {name}", ledger, column)
        most = float(ledger.log_probs.nan_to_num(-1).max())
        if most > ROUNDING:
            raise ValueError(f"{name} has log-probabilities up to {most}")
        _check_finite(f"The states of {name}", ledger.features)
        n_windows = int(ledger.window.max()) + 1
        for title, column in columns.get(name, {}).items():
            wanted = len(ledger) if column.dim() == 1 else n_windows
            if column.dim() > 2 or len(column) != wanted:
                raise ValueError(
                    f"Column {title!r} of {name} has the shape {tuple(column.shape)}: give one "
                    f"number a token, ({len(ledger)},), or a row a window, ({n_windows}, K)"
                )
            # Whole numbers could be ids of text that may not ship.
            if not column.is_floating_point():
                raise ValueError(f"Column {title!r} of {name} holds {column.dtype}, not floats")
            if column.dim() == 1:
                _check_groups(f"Column {title!r} of {name}", ledger, column)
            else:
                _check_finite(f"Column {title!r} of {name}", column[~column.isnan()])


def _check_groups(what: str, ledger: Ledger, column: torch.Tensor) -> None:
    there = ~column.isnan()
    own = torch.isin(ledger.token_group, torch.tensor(_groups(ledger, column)))
    if not own.any() or bool((there & ~own).any()):
        raise ValueError(
            f"{what} is NaN within a group: it has a number for every token of a group, or for none"
        )
    _check_finite(what, column[there])


def _check_finite(what: str, values: torch.Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(f"{what}: {int((~values.isfinite()).sum())} numbers are not finite")


def _check_order(name: str, ledger: Ledger) -> None:
    for what, place in (("window", ledger.window), ("document", ledger.document)):
        steps = place.diff()
        if int(place[0]) or not ((steps == 0) | (steps == 1)).all():
            raise ValueError(f"{name}: tokens must come {what} by {what}, none left out")
