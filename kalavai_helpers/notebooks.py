"""Pairs every chapter (MyST text) with a cleared `.ipynb` that Colab and others can open.

The repository's address has one setting, `Repository` of `pyproject.toml`; what else names it
(first cells, settings of the site, citation) is written from there.
"""

import re
import tomllib
from pathlib import Path

import nbformat

from kalavai_helpers import artifacts, chapters

_ADDRESS = re.compile(
    r'(?<=git\+)https?://[^"\s]+|(?<=^  url: )\S+|(?<=^repository-code: )\S+', re.M
)


def pair(root: Path | None = None) -> list[Path]:
    """Write `notebooks/<chapter>.ipynb` for every chapter; return the files that changed."""
    root = root or artifacts.project_root()
    elsewhere = _elsewhere(root)
    for path, text in elsewhere.items():
        artifacts.write_bytes(path, text.encode())
    changed = drift(root)
    for path in changed:
        if path.with_suffix(".md").exists():
            artifacts.write_bytes(path, render(root, path.stem))
        else:
            path.unlink()
    return [*elsewhere, *changed]


def drift(root: Path | None = None) -> list[Path]:
    """Return the files that are missing, out of date, or left from a removed chapter."""
    root = root or artifacts.project_root()
    wanted = {
        root / "notebooks" / f"{name}.ipynb": render(root, name) for name in chapters.names(root)
    }
    stale = [
        path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data
    ]
    orphans = set((root / "notebooks").glob("[0-9][0-9]_*.ipynb")) - set(wanted)
    return sorted([*stale, *orphans, *_elsewhere(root)])


def _elsewhere(root: Path) -> dict[Path, str]:
    """Return the files that name another repository, with the text that they should have."""
    settings = root / "pyproject.toml"
    if not settings.exists():
        return {}
    address = tomllib.loads(settings.read_text("utf-8"))["project"]["urls"]["Repository"]
    others = [root / "_config.yml", root / "CITATION.cff"]
    sources = [chapters.source_path(root, name) for name in chapters.names(root)]
    found = {}
    for path in filter(Path.exists, [*others, *sources]):
        text = path.read_text("utf-8")
        wanted = _ADDRESS.sub(address, text)
        if wanted != text:
            found[path] = wanted
    return found


def render(root: Path, chapter: str) -> bytes:
    """Return a chapter as notebook JSON: no outputs, the same bytes on every machine."""
    notebook = chapters.read(root, chapter)
    # Format and library versions of the text notebook would differ from machine to machine.
    notebook.metadata.pop("jupytext", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if cell.metadata.get("jupyter", {}).get("source_hidden"):
                cell.metadata["cellView"] = "form"  # how Colab writes it
    nbformat.validate(notebook)
    text = nbformat.writes(notebook, indent=1, sort_keys=True, ensure_ascii=False)
    return (text.rstrip("\n") + "\n").encode()
