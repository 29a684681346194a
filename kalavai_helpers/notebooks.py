"""Pairs every chapter (MyST text) with a cleared `.ipynb` that Colab and others can open."""

from pathlib import Path

import nbformat

from kalavai_helpers import artifacts, chapters


def pair(root: Path | None = None) -> list[Path]:
    """Write `notebooks/<chapter>.ipynb` for every chapter; return the files that changed."""
    root = root or artifacts.project_root()
    changed = drift(root)
    for path in changed:
        if path.with_suffix(".md").exists():
            artifacts.write_bytes(path, render(root, path.stem))
        else:
            path.unlink()
    return changed


def drift(root: Path | None = None) -> list[Path]:
    """Return the `.ipynb` files that are missing, out of date, or left from a removed chapter."""
    root = root or artifacts.project_root()
    wanted = {
        root / "notebooks" / f"{name}.ipynb": render(root, name) for name in chapters.names(root)
    }
    stale = [
        path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data
    ]
    orphans = set((root / "notebooks").glob("[0-9][0-9]_*.ipynb")) - set(wanted)
    return sorted([*stale, *orphans])


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
    nbformat.validate(notebook)
    text = nbformat.writes(notebook, indent=1, sort_keys=True, ensure_ascii=False)
    return (text.rstrip("\n") + "\n").encode()
