"""Builds the site from prose pages and executed chapters, and refuses to build half of it."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml
from plotly.offline import get_plotlyjs

from kalavai_helpers import artifacts, figures

# The ledger, with every derivation of 380 statements, has 449 kB of HTML, 48 kB as it is sent.
MAX_PAGE_BYTES = 500_000
_PROSE = (".md", ".bib", ".svg", ".png")
# Pages that Sphinx adds to those of the table of contents.
_EXTRA_PAGES = {"genindex", "search"}


class BuildError(RuntimeError):
    """The site could not be built as it should be; the message says which page and why."""


def build(tier: str = "ci", *, root: Path | None = None) -> Path:
    """Build ``_build/html`` from the executed chapters of one tier.

    Parameters
    ----------
    tier
        Tier whose executed chapters and records the pages show.
    root
        Project folder with ``_config.yml``, ``_toc.yml`` and ``book/``; this checkout by default.

    Returns
    -------
    Path
        ``_build/html/index.html``.

    Raises
    ------
    BuildError
        If a chapter was not executed, Sphinx warned, a page is missing, unexpected or heavier than
        ``MAX_PAGE_BYTES``, or a figure of a chapter did not reach its page.
    """
    root = Path(root or artifacts.project_root()).resolve()
    pages = toc_pages(root)
    executed = _executed(root, tier, pages)
    _stage(root, executed)
    _sphinx(root, tier)
    html = root / "_build" / "html"
    _publish_notebooks(html / "ipynb", executed, root / "book" / "_ext" / "figures.js")
    check(html, pages, executed)
    return html / "index.html"


def toc_pages(root: Path) -> list[str]:
    """Return the pages that ``_toc.yml`` lists, the root first, without extensions."""
    toc = yaml.safe_load((root / "_toc.yml").read_text("utf-8"))
    found: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.extend(str(node[key]) for key in ("root", "file") if key in node)
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                walk(child)

    walk(toc)
    return found


def _executed(root: Path, tier: str, pages: Iterable[str]) -> dict[str, Path]:
    """Return page → executed notebook for every chapter of the table of contents."""
    folder = root / "_build" / "executed" / tier
    chapters = {p: folder / f"{Path(p).name}.ipynb" for p in pages if p.startswith("notebooks/")}
    missing = [path.stem for path in chapters.values() if not path.is_file()]
    if missing:
        raise BuildError(
            f"not executed at tier {tier!r}: {', '.join(missing)}. "
            f"Run python -m kalavai_helpers execute --tier {tier}"
        )
    return chapters


def _stage(root: Path, executed: dict[str, Path]) -> None:
    """Fill ``_build/source``, touching only what changed so that Sphinx re-reads only that."""
    source = root / "_build" / "source"
    wanted: dict[Path, bytes] = {}
    for path in sorted((root / "book").glob("*")):
        if path.suffix in _PROSE:
            wanted[source / path.name] = path.read_bytes()
    for page, path in executed.items():
        wanted[source / f"{page}.ipynb"] = _page_notebook(path)
    for path in [p for p in source.rglob("*") if p.is_file() and p not in wanted]:
        path.unlink()
    for path, content in wanted.items():
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            artifacts.write_bytes(path, content)


def _page_notebook(path: Path) -> bytes:
    """Return an executed notebook as its page shows it.

    Without papermill's repeated parameters, and with each figure and its notes as one output, in
    the form that the site draws.
    """
    notebook = nbformat.read(path, as_version=4)
    declared: dict[str, object] = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            declared = _assignments(cell.source)
        # Where they differ from the declared ones the page shows what was really run.
        if "injected-parameters" in tags and _assignments(cell.source) == declared:
            cell.metadata["tags"] = [*tags, "remove-cell"]
        cell.update(_page_outputs(cell))
    return (nbformat.writes(notebook) + "\n").encode()


def _page_outputs(cell: nbformat.NotebookNode) -> dict[str, list[nbformat.NotebookNode]]:
    outputs: list[nbformat.NotebookNode] = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        html = data.get("text/html", "")
        if figures.FIGURE in html:
            data.pop(figures.PLOTLY, None)
        if figures.NOTES in html and outputs:
            above = outputs[-1].get("data", {})
            above["text/html"] = figures.joined(above["text/html"], html)
        else:
            outputs.append(output)
    return {"outputs": outputs} if outputs else {}


def _assignments(source: str) -> dict[str, object]:
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def _sphinx(root: Path, tier: str) -> None:
    """Run Jupyter Book with this interpreter; warnings are errors."""
    program = "from jupyter_book.cli.main import main; main()"  # it has no ``python -m`` entry
    options = ["--config", "_config.yml", "--toc", str(root / "_toc.yml"), "--path-output", "."]
    options += ["-W", "-n", "--keep-going"]
    command = [sys.executable, "-c", program, "build", "_build/source", *options]
    package = str(Path(__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "NO_COLOR": "1",
        "KALAVAI_TIER": tier,
        "KALAVAI_ROOT": str(root),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        # Sphinx keeps pages that it warned about and would pass them in silence the next time.
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
        output = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr).split("Traceback")[0]
        lines = [line for line in output.splitlines() if line.strip()]
        told = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-10:]
        raise BuildError("Jupyter Book refused the sources:\n" + "\n".join(dict.fromkeys(told)))


def _publish_notebooks(folder: Path, executed: dict[str, Path], script: Path) -> None:
    """Write the executed notebooks, as a reader downloads them, to where the pages link them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {p.name for p in folder.iterdir()} - {p.name for p in executed.values()}:
        (folder / stale).unlink()
    drawing = _drawing(script.read_text("utf-8"))
    for path in executed.values():
        notebook = nbformat.read(path, as_version=4)
        artifacts.write_bytes(folder / path.name, _download(notebook, drawing))


def _download(notebook: nbformat.NotebookNode, drawing: str) -> bytes:
    """Return an executed notebook that reads well in JupyterLab and through nbconvert.

    Sentences stay outputs of their cells, so that a reader who runs the notebook again reads his
    own numbers; as Markdown cells they would still say the book's.
    """
    drawn = None
    for cell in notebook.cells:
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            # JupyterLab collapses the input by itself; nbconvert leaves it out if it reads this.
            cell.metadata["transient"] = {"remove_source": True}
        for output in cell.get("outputs", []):
            if figures.FIGURE in output.get("data", {}).get("text/html", ""):
                drawn = output["data"]
    if drawn is not None:
        # nbconvert prefers HTML to plotly's JSON, so that the HTML has to draw itself there.
        drawn["text/html"] += drawing
    return (nbformat.writes(notebook) + "\n").encode()


def _drawing(script: str) -> str:
    """Return HTML that draws all figures of its page: plotly.js, and the site's own script.

    Packed, plotly.js is 2 MB and not 4.8; fetched from another site, figures would need a network.
    """
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    return f"""<script type="text/plain" id="kv-plotly">{packed}</script>
<script>
(async () => {{
  if (!window.Plotly) {{
    const packed = atob(document.getElementById("kv-plotly").textContent);
    const bytes = Uint8Array.from(packed, (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    (0, eval)(await new Response(stream).text());
  }}
  {script}
  window.dispatchEvent(new Event("beforeprint")); // all at once: paper has no scrolling
}})();
</script>"""


def check(html: Path, pages: list[str], executed: dict[str, Path]) -> None:
    """Raise `BuildError` naming every page that is missing, unexpected, heavy or without a figure."""
    faults: list[str] = []
    built = {p.relative_to(html).with_suffix("").as_posix() for p in html.rglob("*.html")}
    built = {name for name in built if not name.startswith("_")}
    faults += [f"{page}: the page is missing" for page in pages if page not in built]
    faults += [
        f"{page}: the page is not in _toc.yml" for page in sorted(built - {*pages} - _EXTRA_PAGES)
    ]
    for page in [p for p in pages if p in built]:
        content = (html / f"{page}.html").read_bytes()
        if len(content) > MAX_PAGE_BYTES:
            faults.append(
                f"{page}: {len(content):,} bytes of HTML, the limit is {MAX_PAGE_BYTES:,}"
            )
        drawn = content.decode().count(figures.FIGURE)
        made = figures_in(executed[page]) if page in executed else 0
        if drawn != made:
            faults.append(f"{page}: {drawn} figures on the page, {made} in the notebook")
    if faults:
        raise BuildError("the site is not whole:\n" + "\n".join(faults))


def figures_in(notebook: Path) -> int:
    """Count the figures among the outputs of an executed notebook."""
    count = 0
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/html", "")
            count += "".join(text).count(figures.FIGURE)
    return count
