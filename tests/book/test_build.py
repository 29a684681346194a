"""The builder on a small project: it builds what changed and refuses half a site."""

import json
import shutil
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from pages import ROOT

from kalavai_helpers import book, published

FIGURE = '<figure class="kv-figure"><div class="kv-plot" role="img"></div></figure>'


def write_record(root: Path, gain: float) -> None:
    path = root / "_build/records/ci/01_small.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"value": gain, "unit": "%", "low": gain - 1, "high": gain + 1, "protocol": "corrected"}
    excess = {"value": -0.00003, "unit": "nats"}
    router = {"value": "evidence", "unit": ""}
    run = {"chapter": "01_small", "tier": "ci", "seed": 42, "corpora": "builtin"}
    path.write_text(
        json.dumps({**run, "records": {"gain": entry, "excess": excess, "router": router}})
    )


def make_project(root: Path) -> Path:
    """Write a project of two pages: prose that quotes numbers, and one executed chapter."""
    (root / "book").mkdir()
    shutil.copytree(ROOT / "book/_ext", root / "book/_ext")
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    config.pop("logo")
    config["html"].pop("favicon")
    (root / "_config.yml").write_text(yaml.safe_dump(config))
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": "notebooks/01_small"}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (root / "book/references.bib").write_text("")
    known = published.load().iloc[0]["id"]
    (root / "book/index.md").write_text(
        "# Small\n\nGain {rec}`01_small/gain|+.1f|ci`, {rec}`01_small/excess|.1e|bare`, {rec}`01_small/router`, "
        f"published {{pub}}`{known}`.\n"
    )
    cell, output = nbformat.v4.new_code_cell, nbformat.v4.new_output
    parameters = "tier = 'ci'\nseed = 42"
    cells = [
        nbformat.v4.new_markdown_cell("# A small chapter"),
        cell(parameters, metadata={"tags": ["parameters"]}),
        cell("# Parameters\n" + parameters, metadata={"tags": ["injected-parameters"]}),
        cell("show()", outputs=[output("display_data", data={"text/html": FIGURE})]),
    ]
    executed = root / "_build/executed/ci"
    executed.mkdir(parents=True)
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), executed / "01_small.ipynb"
    )
    run = {"chapter": "01_small", "tier": "ci", "seed": 42, "corpora": "builtin", "seconds": 93.4}
    (executed / "01_small.json").write_text(json.dumps({**run, "date": "2026-01-31"}))
    write_record(root, 7.0)
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"))
    assert book.build(root=root) == root.resolve() / "_build/html/index.html"
    return root


def html(root: Path, page: str) -> str:
    return (root / f"_build/html/{page}.html").read_text("utf-8")


def test_prose_shows_records_and_published_values_with_their_origin(project):
    index = html(project, "index")
    assert "+7.0\u202f% (+6.0 to +8.0)" in index
    assert 'title="This run: tier ci, seed 42, text builtin, protocol corrected"' in index
    assert "\u22123.0\u202f·\u202f10⁻⁵<" in index
    assert ">evidence</span>" in index
    assert 'title="Published: ' in index


def test_chapter_says_how_it_was_run_and_offers_its_notebook(project):
    chapter = html(project, "notebooks/01_small")
    for part in ("tier <b>ci</b>", "seed 42", "text builtin", "93 s", "2026-01-31"):
        assert part in chapter
    assert 'href="../ipynb/01_small.ipynb"' in chapter
    assert (project / "_build/html/ipynb/01_small.ipynb").is_file()


def test_parameters_appear_once(project):
    assert html(project, "notebooks/01_small").count('<span class="n">seed</span>') == 1


def test_scripts_only_where_there_are_figures(project):
    assert html(project, "notebooks/01_small").count("plotly.min.js") == 1
    assert "plotly.min.js" not in html(project, "index")
    assert "claims.js" not in html(project, "notebooks/01_small")


def test_build_again_is_quick_and_a_new_record_reaches_the_text(project):
    before = (project / "_build/html/notebooks/01_small.html").stat().st_mtime_ns
    write_record(project, 9.0)
    began = time.monotonic()
    book.build(root=project)
    assert time.monotonic() - began < 20
    assert "+9.0\u202f%" in html(project, "index")
    after = (project / "_build/html/notebooks/01_small.html").stat().st_mtime_ns
    assert after == before, "an unchanged chapter must not be rendered again"


def test_unknown_names_fail_every_time(project):
    index = project / "book/index.md"
    good = index.read_text()
    wrong = ("01_small/gian", "no/such/id", "01_small/gain|.2f|cii")
    index.write_text(good + "\n{{rec}}`{}` {{pub}}`{}` {{rec}}`{}`\n".format(*wrong))
    # Sphinx would remember the page and say nothing the second time.
    for _ in range(2):
        with pytest.raises(book.BuildError) as caught:
            book.build(root=project)
        assert all(name in str(caught.value) for name in wrong)
    index.write_text(good)


def test_figure_that_would_vanish_fails_the_build(project):
    """Plotly's own output has no HTML: MyST-NB drops it with no more than a warning."""
    path = project / "_build/executed/ci/01_small.ipynb"
    good = path.read_text("utf-8")
    notebook = nbformat.reads(good, as_version=4)
    data = {"application/vnd.plotly.v1+json": {"data": [], "layout": {}}}
    output = nbformat.v4.new_output("display_data", data=data)
    notebook.cells.append(nbformat.v4.new_code_cell("fig.show()", outputs=[output]))
    nbformat.write(notebook, path)
    with pytest.raises(book.BuildError, match=r"vnd\.plotly"):
        book.build(root=project)
    path.write_text(good, "utf-8")


def test_chapter_that_was_not_executed_is_named(tmp_path):
    root = make_project(tmp_path)
    (root / "_build/executed/ci/01_small.ipynb").unlink()
    with pytest.raises(book.BuildError, match="not executed at tier 'ci': 01_small"):
        book.build(root=root)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "notebooks/01_small: the page is missing"),
        (
            "x" * (book.MAX_PAGE_BYTES + 1) + FIGURE,
            rf"notebooks/01_small: {book.MAX_PAGE_BYTES // 1000},... bytes of HTML",
        ),
        ("no figure", "notebooks/01_small: 0 figures on the page, 1 in the notebook"),
    ],
)
def test_page_that_is_not_whole_is_named(tmp_path, content, fault):
    root = make_project(tmp_path)
    folder = root / "_build/html/notebooks"
    folder.mkdir(parents=True)
    (folder.parent / "index.html").write_text("")
    if content is not None:
        (folder / "01_small.html").write_text(content)
    executed = {"notebooks/01_small": root / "_build/executed/ci/01_small.ipynb"}
    with pytest.raises(book.BuildError, match=fault):
        book.check(folder.parent, book.toc_pages(root), executed)


def test_page_outside_the_table_of_contents_is_named(tmp_path):
    for name in ("index", "stray", "search"):
        (tmp_path / f"{name}.html").write_text("")
    with pytest.raises(book.BuildError, match=r"^the site is not whole:\nstray: .*toc\.yml$"):
        book.check(tmp_path, ["index"], {})
