"""Text: domains to documents, to document-level splits.

Sources are named by a spec: ``builtin`` (offline, always there), ``folder:PATH`` (see
:mod:`kalavai_helpers.text_folder`), ``folder-open:PATH`` (the same, restricted to sources whose
licence lets derived weights be shipped, see ``data/licences.json``) and ``hub`` (the published
data sets).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from . import artifacts, builtin_text, hub_text, text_folder
from .text_folder import GENERAL, CorpusError

SPLITS = {"base": 0.15, "train": 0.60, "router": 0.10, "heldout": 0.15}
"""Shares of a domain's text: trace for the base, specialist, router fitting, evaluation."""

MAIN_DOMAINS = ("code", "science", "fiction")
"""The domains of the published main experiment."""

SLACK = 0.25
"""Share of a budget by which whole documents may exceed it. Of the builtin domains and twenty-one
others none does at 40 kB or more."""
PIECE = 4096
"""Least bytes of a document's beginning that are worth having, where no whole one fits."""
MIN_DOCUMENTS = 2 * len(SPLITS)
BUILTIN_MODULES = tuple(sorted(path.stem for path in artifacts.PACKAGE.glob("builtin_*.py")))


class RoleError(ValueError):
    """Text in a role that it was not set aside for: says which, where, and what is needed."""


@dataclass(frozen=True)
class Document:
    """One text, the unit of routing bounds.

    ``role`` is a key of :data:`SPLITS`, empty until :func:`split` sets it. ``unit`` names what
    was split as one: its source, or the document itself where the source is a list of independent
    documents. Documents of one unit are not independent, so intervals resample units.
    """

    id: str
    domain: str
    text: str
    source: str
    role: str = ""
    unit: str = ""


def role_of(documents: Iterable[Document]) -> str:
    """The one role that all documents have.

    Raises
    ------
    RoleError
        If there is no document, or they differ.
    """
    roles = sorted({document.role for document in documents})
    if len(roles) != 1:
        raise RoleError(
            f"Documents of roles {roles} in one piece of text: take all of them from one list of "
            "corpora.split"
        )
    return roles[0]


def require_role(role: str, allowed: str | tuple[str, ...], use: str) -> None:
    """Refuse text that was set aside for something else.

    Parameters
    ----------
    role
        What the text is: ``role`` of a ledger, of windows or of chunks.
    use
        What it is about to be used for, for the message.

    Raises
    ------
    RoleError
        If it is not allowed.
    """
    allowed = (allowed,) if isinstance(allowed, str) else allowed
    if role not in allowed:
        raise RoleError(
            f"{use} takes documents of role {' or '.join(map(repr, allowed))}, not {role!r}: "
            "models learn on 'base' and 'train', routers on 'router', and only 'heldout' documents "
            "compare them; take the role from corpora.split or name it to ledger.build"
        )


def joined(first: Document, second: Document, domain: str) -> Document:
    """A document made of two of one role; it belongs to the unit of the first.

    Raises
    ------
    RoleError
        If the two have different roles.
    """
    role = role_of((first, second))
    return replace(first, id=f"{first.id}+{second.id}", domain=domain, role=role)


def domains(spec: str) -> list[str]:
    """Domains a source offers, ``general`` (the base mix) left out."""
    kind, path = _parse(spec)
    if kind == "builtin":
        names = set(builtin_text.DOMAINS)
    elif kind == "hub":
        names = set(hub_text.DATASETS)
    else:
        names = set(text_folder.files(path))
        if kind == "folder-open":
            names = {name for name in names if len(_read_open(path, name)) >= MIN_DOCUMENTS}
    return sorted(names - {GENERAL})


@lru_cache(maxsize=64)
def load(spec: str, domain: str) -> tuple[Document, ...]:
    """All documents of a domain, in a fixed order.

    A text of a folder that stands in several domains belongs to the first of them by name, and
    general text that a domain has belongs to that domain: roles are given within a domain, and no
    text may have two.

    Raises
    ------
    CorpusError
        Unknown source or domain (the valid ones are listed), missing folder, empty or
        undecodable file, malformed line.
    """
    documents = _documents(spec, domain)
    if not documents:
        raise CorpusError(
            f"{spec} has no usable document for domain {domain!r}: all are empty, or stand in "
            "another domain as well"
        )
    return documents


def _documents(spec: str, domain: str) -> tuple[Document, ...]:
    kind, path = _parse(spec)
    if domain != GENERAL and domain not in domains(spec):
        raise CorpusError(
            f"Unknown domain {domain!r} in {spec}: choose from {', '.join(domains(spec))}"
        )
    if kind == "builtin":
        pairs = _cached_builtin(domain)
    elif kind == "hub":
        pairs = hub_text.documents(domain)
    else:
        read = _read_folder if kind == "folder" else _read_open
        elsewhere = _texts_before(path, domain)
        pairs = [pair for pair in read(path, domain) if _words(pair[0]) not in elsewhere]
    documents = {}
    for text, source in pairs:
        if text.strip():
            key = f"{domain}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
            documents[key] = Document(key, domain, text, source)
    return tuple(documents.values())


def choose(spec: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted domains where a source offers all of them, else the first it does offer.

    So a chapter written for code, science and fiction also runs on a folder of other domains.
    """
    offered = domains(spec)
    if set(wanted) <= set(offered):
        return wanted
    if len(offered) < 2:
        raise CorpusError(f"{spec} offers {offered or 'no domain'}: a cooperative needs at least 2")
    return tuple(offered[: len(wanted)])


def base_mix(spec: str, max_bytes: int, trace: float = 0.4) -> list[Document]:
    """What a base is trained on: ``general`` text and a trace of every domain of the source.

    The trace (a share of the bytes, split evenly over the domains) stands for what the Pile gives
    Pythia: a base that never saw a script has absurd losses on it. Without ``general`` text the
    mix is the traces alone.
    """
    offered = domains(spec)
    general = []
    if _has_general(spec):
        general = [replace(document, role="base") for document in _documents(spec, GENERAL)]
    trace = trace if general else 1.0
    mix = capped(general, int(max_bytes * (1 - trace))) if general else []
    for domain in offered:
        mix += capped(split(spec, domain)["base"], int(max_bytes * trace / len(offered)))
    return mix


def split(spec: str, domain: str) -> dict[str, list[Document]]:
    """Documents by role: ``base``, ``train``, ``router``, ``heldout``; no text in two roles.

    Pieces of one source file (chapters of a book, functions of a module) stay together. A source
    with more than 5 % of the domain is a list of independent documents and is split by document.
    """
    documents = load(spec, domain)
    total = sum(len(document.text) for document in documents)
    size: dict[str, int] = {}
    for document in documents:
        size[document.source] = size.get(document.source, 0) + len(document.text)
    groups: dict[str, list[Document]] = {}
    for document in documents:
        large = size[document.source] > 0.05 * total
        groups.setdefault(document.id if large else document.source, []).append(document)

    def order(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    # Each group goes to the role that is furthest below its share, so that even a handful of
    # groups reaches every role; roles are tried in the order of SPLITS.
    parts: dict[str, list[Document]] = {role: [] for role in SPLITS}
    filled = dict.fromkeys(SPLITS, 0)
    for key in sorted(groups, key=order):
        role = min(SPLITS, key=lambda name: filled[name] / SPLITS[name])
        parts[role] += [replace(document, role=role, unit=key) for document in groups[key]]
        filled[role] += sum(len(document.text) for document in groups[key])
    empty = [role for role in SPLITS if not parts[role]]
    if empty:
        raise CorpusError(
            f"{spec} domain {domain!r}: {len(documents)} documents are too few to fill the "
            f"{', '.join(empty)} split; give at least {MIN_DOCUMENTS} documents"
        )
    return parts


def capped(documents: list[Document], max_bytes: int) -> list[Document]:
    """Documents up to a budget of UTF-8 bytes, taken evenly over the list.

    Whole ones, so the budget is met on average; the beginning of one that would exceed it by more
    than :data:`SLACK`, after which no more are taken. Where none fits, the beginnings of some.
    """
    sizes = [len(document.text.encode()) for document in documents]
    keep = min(1.0, max_bytes / max(1, sum(sizes)))
    chosen, due, used = [], 0.0, 0
    for document, size in zip(documents, sizes, strict=True):
        due += keep
        if due >= 1.0 or keep == 1.0:
            due -= 1.0
            if used + size > (1 + SLACK) * max_bytes:
                return [*chosen, _beginning(document, max_bytes - used)]
            chosen.append(document)
            used += size
    if chosen or not documents:
        return chosen
    few = documents[:: -(-len(documents) // max(1, max_bytes // PIECE))]
    return [_beginning(document, max_bytes // len(few)) for document in few]


def _beginning(document: Document, n_bytes: int) -> Document:
    """So much of a document, at least a character; another document, by its id."""
    text = document.text.encode()[: max(4, n_bytes)].decode("utf-8", "ignore")
    if text == document.text:
        return document
    return replace(document, id=f"{document.id}[:{len(text)}]", text=text)


def spread(documents: list[Document]) -> list[Document]:
    """The documents of one role, one unit after the other, round and round, in a fixed order.

    So the first few come from as many units as there are: an interval over units needs many.
    """

    def order(key: str) -> bytes:
        return hashlib.sha256(key.encode()).digest()

    turns: dict[str, int] = {}
    placed = []
    for document in sorted(documents, key=lambda d: order(d.id)):
        turn = turns[document.unit] = turns.get(document.unit, -1) + 1
        placed.append((turn, order(document.unit), document))
    return [document for *_, document in sorted(placed, key=lambda item: item[:2])]


def opening(spec: str, domain: str, index: int, max_chars: int) -> str:
    """The beginning of a document, cut at white space: a short text to look at."""
    return load(spec, domain)[index].text[:max_chars].rsplit(None, 1)[0]


def _parse(spec: str) -> tuple[str, Path]:
    kind, _, path = spec.partition(":")
    if kind not in ("builtin", "folder", "folder-open", "hub") or bool(path) != ("folder" in kind):
        raise CorpusError(
            f"Unknown text source {spec!r}: use builtin, folder:PATH, folder-open:PATH or hub"
        )
    folder = Path(path).expanduser()
    if path and not folder.is_dir():
        raise CorpusError(f"Corpus folder {folder} does not exist: check --corpora {spec}")
    return kind, folder


@lru_cache(maxsize=1)
def _builtin_key() -> str:
    """Fingerprint of all that makes the builtin text; asked once, since it reads all metadata."""
    # Documentation of any installed package may be part of the text.
    installed = sorted(f"{d.name} {d.version}" for d in importlib.metadata.distributions())
    return artifacts.fingerprint(artifacts.code_digest(BUILTIN_MODULES), sys.version, installed)


def _cached_builtin(domain: str) -> list[tuple[str, str]]:
    # Generating takes seconds (parsing docstrings of installed packages): keep the result.
    path = artifacts.store() / "text" / f"builtin-{domain}-{_builtin_key()}.json"
    pairs = artifacts.read_json(path)
    if pairs is None:
        pairs = builtin_text.DOMAINS[domain]()
        artifacts.write_json(path, pairs)
    return [(text, source) for text, source in pairs]


def _has_general(spec: str) -> bool:
    kind, path = _parse(spec)
    return kind == "builtin" or ("folder" in kind and GENERAL in text_folder.files(path))


def _read_open(folder: Path, domain: str) -> list[tuple[str, str]]:
    licences = json.loads((artifacts.data() / "licences.json").read_text("utf-8"))
    allowed = tuple(licences["open"])
    return [pair for pair in _read_folder(folder, domain) if pair[1].startswith(allowed)]


def _read_folder(folder: Path, domain: str) -> list[tuple[str, str]]:
    found = text_folder.files(folder)
    if domain not in found:
        raise CorpusError(f"{folder} has no text of {domain!r}, only of {', '.join(found)}")
    return text_folder.read(found[domain])


def _texts_before(folder: Path, domain: str) -> set[str]:
    """Texts that domains before this one by name have, all domains before ``general``."""
    names = [name for name in text_folder.files(folder) if name != GENERAL]
    before = [name for name in names if domain == GENERAL or name < domain]
    return set().union(*(_texts(folder, name) for name in before))


@lru_cache(maxsize=64)
def _texts(folder: Path, domain: str) -> frozenset[str]:
    return frozenset(_words(text) for text, _ in _read_folder(folder, domain))


def _words(text: str) -> str:
    """Digest of a text that white space does not change: pieces of a file end as they may."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
