"""Downloaded notebooks outside the site: in JupyterLab and through nbconvert, in a real browser."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from pages import PAGES, ROOT

from kalavai_helpers import figures, kernel

CHAPTERS = [Path(page).name for page in PAGES if page.startswith("notebooks/")]
# Sphinx's roles, and the places for numbers in what `prose.say` is given.
UNREAD = re.compile(
    r"""\{[a-z]+\}`|\{(?:pub|recorded|pretrained):|\|\+?\.\d[a-z](?:\|ci)?\}|prose\.say\("+[\w{*-]"""
)

BY_HAND = [
    "# A chapter run by hand",
    "from kalavai_helpers import figures, prose, records\n"
    "records.start('01_small', tier='ci', seed=42, corpora='builtin')\n"
    "records.record('gain', 7.0, '%', low=6.0, high=8.0)",
    'prose.say("""\nIt gains {gain|+.1f|ci}: see [chapter 1](01_protocol.ipynb).\n""")',
    "line = {'name': 'code', 'x': [0, 1], 'y': [3.0, 2.0]}\n"
    "figures.show(figures.curves([line], 'step', 'loss'), alt='a falling line', table=None,\n"
    "             caption='Made up.')",
]


def download(site: Path, chapter: str) -> nbformat.NotebookNode:
    return nbformat.read(site / "ipynb" / f"{chapter}.ipynb", as_version=4)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_figure_is_there_in_plotlys_own_form(chapter, site):
    found = 0
    for cell in download(site, chapter).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if figures.FIGURE in data.get("text/html", ""):
                assert data[figures.PLOTLY]["data"]
                found += 1
    assert found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nbconvert_shows_sentences_and_draws_every_figure(chapter, site, chromium, tmp_path):
    notebook = download(site, chapter)
    made = sum(
        figures.FIGURE in output.get("data", {}).get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    body, _ = HTMLExporter().from_notebook_node(notebook)
    path = tmp_path / "page.html"
    path.write_text(body, "utf-8")
    context = chromium.new_context()
    context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
    page = context.new_page()
    page.goto(path.as_uri())
    drawn = "document.querySelectorAll('.kv-plot[data-drawn]').length"
    page.wait_for_function(f"{drawn} == {made}", timeout=20_000)
    assert UNREAD.findall(page.inner_text("body")) == []
    assert page.locator(".kv-rec").count() > 0
    context.close()


@pytest.fixture(scope="module")
def lab(site, tmp_path_factory):
    """Address of a JupyterLab on a folder with a download and a chapter that was never run."""
    folder = tmp_path_factory.mktemp("lab")
    work = folder / "work"
    work.mkdir()
    name = f"{CHAPTERS[1]}.ipynb"
    (work / name).write_bytes((site / "ipynb" / name).read_bytes())
    title, *code = BY_HAND
    cells = [nbformat.v4.new_markdown_cell(title), *map(nbformat.v4.new_code_cell, code)]
    cells[2].metadata["jupyter"] = {"source_hidden": True}
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}),
        work / "by_hand.ipynb",
    )
    kernel._write_kernelspec(folder / "jupyter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--port={port}", "--no-browser", f"--ServerApp.root_dir={work}", "--allow-root"]
    options += ["--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    environment = {
        **os.environ,
        "JUPYTER_PATH": str(folder / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                json.load(urllib.request.urlopen(f"{address}/api", timeout=1))
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"JupyterLab did not start:\n{(folder / 'log').read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def opened(chromium, lab: str, name: str):
    # High enough for the whole notebook: JupyterLab draws what is in view.
    context = chromium.new_context(viewport={"width": 1280, "height": 20_000})
    page = context.new_page()
    page.goto(f"{lab}/lab/workspaces/{Path(name).stem}/tree/{name}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    return page


def test_download_opens_in_jupyterlab_with_figures_and_without_source_of_sentences(
    lab, chromium, site
):
    made = sum(
        figures.PLOTLY in output.get("data", {})
        for cell in download(site, CHAPTERS[1]).cells
        for output in cell.get("outputs", [])
    )
    page = opened(chromium, lab, f"{CHAPTERS[1]}.ipynb")
    drawn = "document.querySelectorAll('.jp-OutputArea .js-plotly-plot:has(.main-svg)').length"
    page.wait_for_function(f"{drawn} == {made}", timeout=30_000)
    assert made > 0
    assert page.locator(".jp-OutputArea figcaption").count() == made
    assert page.locator(".jp-RenderedMarkdown .kv-rec").count() > 0
    seen = page.evaluate(
        "[...document.querySelectorAll('.jp-MarkdownOutput, .jp-RenderedMarkdown, .jp-Placeholder')]"
        ".map((part) => part.innerText.split('\\n')[0]).join('\\n')"
    )
    assert UNREAD.findall(seen) == []
    page.context.close()


def test_chapter_run_by_hand_says_its_numbers_and_draws(lab, chromium):
    page = opened(chromium, lab, "by_hand.ipynb")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    said = page.locator(".jp-OutputArea .jp-RenderedMarkdown").first
    said.wait_for(timeout=60_000)
    assert said.inner_text().replace("\u202f", " ") == (
        "It gains +7.0 % (+6.0 to +8.0): see chapter 1."
    )
    page.locator(".jp-OutputArea .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    assert page.locator(".jp-OutputArea figcaption").inner_text() == "Made up."
    page.context.close()
