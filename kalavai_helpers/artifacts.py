"""Content-addressed store of tokenizers, checkpoints and ledgers.

What a file holds is decided by the fingerprint in its name: recipe, text and the source of the
code that made it. A changed input gives a new name, so nothing in the store is ever stale.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import importlib.metadata
import json
import os
import site
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).parent
KEPT_VARIABLE = "KALAVAI_KEPT"
"""Names a folder whose ledgers stand for those of ``data/recorded``, e.g. made-up ones."""


class CorruptArtifactWarning(UserWarning):
    """A file of the store could not be read; it was set aside and will be rebuilt."""


def project_root() -> Path:
    """Folder of the checkout this package runs from, or the working folder when installed."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else Path.cwd()


def data() -> Path:
    """Folder of the data that ships with the book: ``data/`` of the checkout, or installed.

    The working folder plays no part: many have a ``data/`` of their own.
    """
    if (PACKAGE.parent / "pyproject.toml").exists():
        return PACKAGE.parent / "data"
    # An environment's folder, the one of ``pip install --user``, and that of ``--target``.
    homes = (sys.prefix, site.getuserbase(), PACKAGE.parent)
    places = [Path(home) / "share" / "kalavai" for home in homes]
    return next((place for place in places if place.is_dir()), places[0])


def store() -> Path:
    """Folder of the artifact store: ``KALAVAI_STORE``, or ``_build/store`` of the checkout."""
    return Path(os.environ.get("KALAVAI_STORE") or project_root() / "_build" / "store")


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there already."""
    while not path.exists():
        path = path.parent
    return path


def fingerprint(*parts: Any) -> str:
    """Hex digest (20 characters of SHA-256) of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def code_digest(modules: Iterable[str]) -> str:
    """Fingerprint of the code of helper modules, so that changed code makes new artifacts.

    Comments, docstrings and layout do not count: they cannot change a result.
    """
    paths = [PACKAGE / f"{name}.py" for name in sorted(modules)]
    return fingerprint([_code(path, path.stat().st_mtime_ns) for path in paths])


@cache
def _code(path: Path, changed_ns: int) -> str:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        # A string that stands alone, docstrings among them, computes nothing.
        if isinstance(body, list):
            node.body = [item for item in body if not _is_text(item)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that influence a result."""
    return {name: importlib.metadata.version(name) for name in packages}


def write_atomic(path: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    A reader sees the old file or the new one, never half of one, whatever kills the writer.

    Raises
    ------
    OSError
        With the path and the way out, when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # safetensors reports a full disk as its own exception, with only the text to go by.
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if full:
            raise OSError(
                errno.ENOSPC,
                f"No space left to write {path.name}; nothing that was there is lost. Free some "
                "space or set KALAVAI_STORE to a folder on another disk, then run again",
                str(path),
            ) from error
        raise
    return path


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomic(Path(path), lambda temporary: temporary.write_bytes(data) and None)


def replace_files(made: Path, target: Path, last: str, stale: str) -> None:
    """Move the files of a finished folder into another one on the same disk.

    Parameters
    ----------
    last
        Name of the file without which a reader ignores the folder: it comes after all others.
    stale
        Pattern of older files that go, just before the last one, where no new one has their name.
    """
    target.mkdir(exist_ok=True)
    names = {file.name for file in made.iterdir()}
    for name in sorted(names - {last}):
        (made / name).replace(target / name)
    for old in target.glob(stale):
        if old.name not in names:
            old.unlink()
    if last in names:
        (made / last).replace(target / last)


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically, with sorted keys so that equal content is equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_bytes(path, (text + "\n").encode())


def set_aside(path: Path, reason: object) -> None:
    """Rename an unreadable file to ``*.corrupt`` and say so; the caller rebuilds it."""
    path = Path(path)
    path.replace(path.with_name(path.name + ".corrupt"))
    warnings.warn(
        f"{path} cannot be read ({reason}); set aside as {path.name}.corrupt and rebuilt",
        CorruptArtifactWarning,
        stacklevel=3,
    )


def read_json(path: Path) -> Any | None:
    """Read JSON; ``None`` when the file is missing or, after setting it aside, unreadable."""
    path = Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        set_aside(path, error)
        return None


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Path:
    """Write tensors and JSON-able metadata to one safetensors file, atomically."""
    from safetensors.torch import save_file

    header = {"json": json.dumps(metadata)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_atomic(Path(path), lambda temporary: save_file(plain, temporary, header))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Read what :func:`save_tensors` wrote.

    Returns
    -------
    (tensors, metadata), or ``None`` when the file is missing or unreadable. An unreadable file
    is set aside as ``*.corrupt`` with a :class:`CorruptArtifactWarning` that names it.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned: a mapped file that is truncated later would kill the process that reads it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {})["json"])
    except (SafetensorError, KeyError, ValueError) as error:
        set_aside(path, error)
        return None
