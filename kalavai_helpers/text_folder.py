"""A folder of text: which file is which domain, and what is in it. One rule for all of it.

A domain is one file ``NAME.jsonl`` (or ``.jsonl.xz``, ``.jsonl.gz``, ``.jsonl.bz2``) of objects with
``text`` and optionally ``source``, or one folder ``NAME`` of ``.txt`` files. All names are looked at
before anything is read, all lines of a domain before anything is trained, and whatever cannot be
used is told with file, line and way out.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import re
import unicodedata
import zlib
from functools import lru_cache
from pathlib import Path

GENERAL = "general"
"""Name of the text that is no domain's: the base is trained on it."""

OPEN = {
    ".jsonl": bytes,
    ".jsonl.xz": lzma.decompress,
    ".jsonl.gz": gzip.decompress,
    ".jsonl.bz2": bz2.decompress,
}
"""How a file is opened, by how its name ends."""

# fmt: off
RESERVED = frozenset((
    "base", "weight_average", "multihead", "hub", "fused",
    "monolithic", "monolithic_compute", "monolithic_exposure", "wider",
    "uniform", "evidence", "linear", "pooled", "prefix_mean", "log_linear", "tempered", "mlp",
    "trunk", "em", "expert_states", "strict", "dispatch", "classifier",
    "oracle", "domain_oracle", "document_oracle", "token_oracle", "mixing_oracle",
    "all", "whole", "mean", "best", "smallest", "largest", "least", "most", "lowest", "highest",
))
# fmt: on
"""Names that mean something in a table of losses or among records; a domain would take their place."""

_LEFTOVER = re.compile(r"\..*|.*~|#.*#|.*\.(bak|tmp|temp|swp|swo|part|crdownload|orig)", re.I)
"""Of editors, browsers and systems: ``._red.jsonl``, ``red.jsonl~``, ``#red.jsonl#``."""


class CorpusError(ValueError):
    """A corpus that cannot be used: says which file, where in it, and what to do."""


def name_of(path: Path) -> str:
    """A domain's name: lower-case letters, digits and ``_`` of its file's name, without accents.

    Names become parts of records, files and addresses, which case or a hyphen would break.

    Raises
    ------
    CorpusError
        If nothing is left, or what is left is one of :data:`RESERVED`.
    """
    stem = path.name.split(".")[0]
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    # Letters of other scripts are not dropped from a name: what is left would name something else.
    foreign = any(
        not unicodedata.normalize("NFKD", letter).encode("ascii", "ignore")
        for letter in stem
        if letter.isalpha()
    )
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if foreign or not re.search("[a-z]", name):
        raise CorpusError(
            f"{path}: a domain's name needs letters from a to z, and {stem!r} has others or none; "
            "rename it, for example by the English name of the language"
        )
    if name in RESERVED:
        raise CorpusError(
            f"{path}: {name!r} means something else in the tables of this book; rename it, for "
            f"example to {name}_text"
        )
    return name


@lru_cache(maxsize=16)
def files(folder: Path) -> dict[str, Path]:
    """Where each domain's text is, ``general`` among them: a file, or a folder of text files.

    Raises
    ------
    CorpusError
        For a name that cannot be used, two places for one domain, or a compression that is not
        known; names them.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if _LEFTOVER.fullmatch(path.name) or not _is_text(path):
            continue
        name = name_of(path)
        if name in found:
            raise CorpusError(
                f"{found[name]} and {path} are both the domain {name!r}: join them, or rename one"
            )
        found[name] = path
    return found


def _is_text(path: Path) -> bool:
    """Whether a place in the folder has text of a domain, by its name."""
    if path.is_dir():
        return bool(_text_files(path))
    ending = re.search(r"\.jsonl(\.[^.]*)?$", path.name, re.I)
    if ending is None:
        return False
    if ending[0].lower() not in OPEN:
        raise CorpusError(
            f"{path} ends in {ending[0]}, which is none of {', '.join(OPEN)}: unpack it, or pack it "
            "again as one of these"
        )
    return True


def _text_files(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file()]
    return sorted(path for path in found if not _LEFTOVER.fullmatch(path.name))


@lru_cache(maxsize=64)
def read(path: Path) -> list[tuple[str, str]]:
    """Texts of a domain's file or folder, each with its source.

    Raises
    ------
    CorpusError
        If a file or a line of it cannot be used; names it.
    """
    if path.is_dir():
        return [(_checked(_decoded(file), file), file.name) for file in _text_files(path)]
    pairs = []
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if line.strip():
            text, source = _item(line, f"{path} line {number}")
            pairs.append((text, source or f"{path.name}:{number}"))
    if not pairs:
        raise CorpusError(f"{path} is empty: it needs one JSON object a line with a 'text'")
    return pairs


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}): look at its rights") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CorpusError(f"{path} is UTF-16: convert it, e.g. iconv -f UTF-16 -t UTF-8")
    unpack = OPEN.get(path.name[path.name.lower().find(".jsonl") :].lower(), bytes)
    try:
        data = unpack(data)
    except (lzma.LZMAError, EOFError, OSError, zlib.error, ValueError) as error:
        kind = path.suffix.lstrip(".")
        raise CorpusError(
            f"{path} is not a readable {kind} file ({error}): copy it again"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 (byte {error.start}): convert it, e.g. with iconv"
        ) from None


def _item(line: str, where: str) -> tuple[str, str]:
    """Text and source of a line; the source is empty where there is none."""
    try:
        item = json.loads(line)
    except ValueError as error:
        raise CorpusError(f"{where} is not a JSON object with a 'text' ({error})") from None
    if not isinstance(item, dict) or "text" not in item:
        raise CorpusError(f"{where} is not a JSON object with a 'text'")
    if not isinstance(item["text"], str):
        kind = "null" if item["text"] is None else type(item["text"]).__name__
        raise CorpusError(f"{where}: 'text' is {kind} and must be a string; leave the line out")
    source = item.get("source")
    if isinstance(source, (dict, list)):
        raise CorpusError(f"{where}: 'source' must be a name, not {type(source).__name__}")
    return _checked(item["text"], where), "" if source is None else _checked(str(source), where)


def _checked(text: str, where: object) -> str:
    lone = re.search("[\ud800-\udfff]", text)
    if lone:
        raise CorpusError(
            f"{where} has half of a surrogate pair (character {lone.start() + 1}), which is no "
            "text: write the whole character, or leave it out"
        )
    return text
