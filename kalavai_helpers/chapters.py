"""Chapters as files: which exist, what each declares, and everything its output depends on.

A chapter's key covers its source, the source of every helper module it reaches through imports,
the data those modules name, its parameters, its text and the versions of the libraries that
decide a number. Equal key, equal output: that is why an unchanged chapter need not run again.
"""

import ast
import hashlib
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from kalavai_helpers import artifacts

PACKAGE = "kalavai_helpers"
LIBRARIES = ("torch", "transformers", "tokenizers", "plotly", "numpy")


class ChapterError(ValueError):
    """A chapter's source is not a chapter: the message says what is missing and what to do."""


def names(root: Path) -> list[str]:
    """Return the chapters of a project in book order, e.g. `["01_protocol", …]`."""
    return sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.md"))


def choose(root: Path, requested: Iterable[str] | None = None) -> list[str]:
    """Return the requested chapters in book order, or all of them.

    Raises
    ------
    ValueError
        When a chapter does not exist; the valid ones are listed.
    """
    valid = names(root)
    wanted = list(requested or valid)
    unknown = [name for name in wanted if name not in valid]
    if unknown or not valid:
        known = ", ".join(valid) or f"none in {root / 'notebooks'}"
        raise ValueError(f"Unknown chapter {', '.join(map(repr, unknown))}: chapters are {known}")
    return [name for name in valid if name in wanted]


def source_path(root: Path, chapter: str) -> Path:
    """Return the text notebook of a chapter."""
    return root / "notebooks" / f"{chapter}.md"


def read(root: Path, chapter: str) -> NotebookNode:
    """Read a chapter as a notebook without outputs, with cell ids that stay the same.

    The ids derive from the chapter's name and the cell's position, so that reading twice gives
    equal notebooks and a diff shows only what a person changed.
    """
    notebook = jupytext.read(source_path(root, chapter))
    for index, cell in enumerate(notebook.cells):
        cell["id"] = hashlib.sha256(f"{chapter}/{index}".encode()).hexdigest()[:12]
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def defaults(notebook: NotebookNode, chapter: str) -> dict[str, Any]:
    """Return the parameters a chapter declares in its tagged cell, with their default values.

    Raises
    ------
    ChapterError
        When no code cell is tagged `parameters`, or a value there is not a literal.
    """
    for cell in code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", []):
            break
    else:
        raise ChapterError(
            f"Chapter {chapter} has no code cell tagged 'parameters': add "
            f"a cell that starts with :tags: [parameters] and sets tier, seed and corpora"
        )
    found = {}
    for node in ast.parse(cell.source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = ast.literal_eval(node.value)
                except (ValueError, TypeError):
                    raise ChapterError(
                        f"Chapter {chapter}: parameter {target.id!r} must be a literal value"
                    ) from None
    return found


def check_parameters(chapter: str, declared: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse parameters that the chapter does not declare; papermill would only warn.

    Raises
    ------
    ChapterError
        Naming the unknown parameters and the valid ones.
    """
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ChapterError(
            f"Chapter {chapter} has no parameter {', '.join(map(repr, unknown))}: its parameters "
            f"cell sets {', '.join(declared) or 'nothing'}"
        )


def package_folder(root: Path) -> Path:
    """Return the helper package that the project's kernels import."""
    own = root / PACKAGE
    return own if own.is_dir() else artifacts.PACKAGE


def dependencies(root: Path, sources: Iterable[str]) -> dict[str, str]:
    """Return the helper modules that pieces of code reach through imports, with their source.

    Imports inside functions count, and so do module names in strings such as
    `"kalavai_helpers.specialists"`, which worker processes and lazy imports use. A bare
    `import kalavai_helpers` may reach anything, so it counts as every module.

    Parameters
    ----------
    root
        Project folder.
    sources
        Python code, e.g. the code cells of a chapter.
    """
    folder = package_folder(root)
    existing = {path.stem for path in folder.glob("*.py")}
    found: dict[str, str] = {}
    pending = {name for source in sources for name in _imports(source, existing)}
    while pending:
        name = pending.pop()
        found[name] = (folder / f"{name}.py").read_text(encoding="utf-8")
        pending |= _imports(found[name], existing) - set(found)
    return found


def key(root: Path, chapter: str, notebook: NotebookNode, parameters: Mapping[str, Any]) -> str:
    """Return the fingerprint of everything that decides a chapter's output."""
    cells = [_python_only(cell.source) for cell in code_cells(notebook)]
    modules = dependencies(root, cells)
    sources = [*cells, *modules.values()]
    mentioned = set().union(*(_path_parts(source) for source in sources))
    earlier = [name for name in names(root) if name < chapter and name in mentioned]
    corpora = str(parameters.get("corpora", ""))
    kept = os.environ.get(artifacts.KEPT_VARIABLE)
    return artifacts.fingerprint(
        source_path(root, chapter).read_text(encoding="utf-8"),
        modules,
        _data(root, sources, modules),
        # A chapter that reads an earlier one's records changes with it.
        {name: key(root, name, read(root, name), parameters) for name in earlier},
        dict(parameters),
        _folder_state(Path(corpora.partition(":")[2])) if ":" in corpora else None,
        _folder_state(Path(kept)) if kept else None,
        {**artifacts.versions(*LIBRARIES), "python": platform.python_version()},
    )


def _imports(source: str, existing: set[str]) -> set[str]:
    """Return the package's modules that one piece of code names."""
    reached: set[str] = set()
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                reached |= _modules(alias.name, [], existing)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # the package is flat: one dot is the package itself
                module = f"{PACKAGE}.{module}".rstrip(".")
            reached |= _modules(module, [alias.name for alias in node.names], existing)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(rf"{PACKAGE}\.\w+", node.value)
        ):
            reached |= _modules(node.value, [], existing)
    return reached


def _modules(module: str, imported: list[str], existing: set[str]) -> set[str]:
    package, _, rest = module.partition(".")
    if package != PACKAGE:
        return set()
    own = {"__init__"} & existing
    if rest:
        return own | ({rest.split(".")[0]} & existing)
    if imported and set(imported) <= existing | {"__version__"}:
        return own | (set(imported) & existing)
    return set(existing)


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])  # running the chapter reports it, with its line


def _python_only(source: str) -> str:
    """Drop IPython's own lines (`%magic`, `!command`), which `ast` cannot read."""
    return "\n".join(
        "pass" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()
    )


def _path_parts(source: str) -> set[str]:
    """Return what may be part of a path: pieces of strings, and attributes (`artifacts.data()`)."""
    nodes = list(ast.walk(_parse(source)))
    strings = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {part for string in strings for part in string.split("/")}


def _data(root: Path, sources: list[str], modules: Mapping[str, str]) -> dict[str, Any]:
    """Return a digest of every entry of `data/` that a reached module is named after or names."""
    digests = {}
    for entry in sorted((root / "data").glob("*")):
        named = any({"data", entry.name} <= _path_parts(source) for source in sources)
        if entry.stem in modules or named:
            files = [entry] if entry.is_file() else sorted(entry.rglob("*"))
            digests[entry.name] = {
                str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in files
                if path.is_file()
            }
    return digests


def _folder_state(folder: Path) -> list[list[Any]]:
    """Return names, sizes and times of a text folder; hashing gigabytes would cost more."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        [str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
    ]
