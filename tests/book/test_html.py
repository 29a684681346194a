"""What the built pages promise, read from the HTML."""

import json
import re
from pathlib import Path

import nbformat
import plotly
import pytest
from pages import PAGES, Page

from kalavai_helpers import book

CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]
ELSEWHERE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
# Attributes whose address a browser requests by itself; links are followed by readers only.
REQUESTED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src",
    "audio": "src", "embed": "src", "object": "data", "track": "src",
}  # fmt: skip
PASSIVE_LINKS = {"canonical", "next", "prev", "index", "search", "author", "license", "alternate"}


@pytest.fixture(params=PAGES)
def page(request, site) -> Page:
    return Page(site / f"{request.param}.html")


def test_pages_are_those_of_the_table_of_contents(site):
    built = {p.relative_to(site).with_suffix("").as_posix() for p in site.rglob("*.html")}
    assert {name for name in built if not name.startswith("_")} == {*PAGES, "genindex", "search"}


def test_page_is_light(page):
    assert len(page.text.encode()) <= book.MAX_PAGE_BYTES


def test_page_requests_nothing_from_another_site(page):
    asked = [
        attributes[name]
        for tag, name in REQUESTED.items()
        for attributes in page.all(tag)
        if ELSEWHERE.match(attributes.get(name, ""))
    ]
    asked += [
        link["href"]
        for link in page.all("link")
        if ELSEWHERE.match(link.get("href", "")) and link.get("rel") not in PASSIVE_LINKS
    ]
    assert asked == []


def test_stylesheets_request_nothing_from_another_site(site):
    for sheet in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text("utf-8"), flags=re.DOTALL)
        asked = re.findall(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")]+)", text)
        assert asked == [], sheet.name


def test_plotly_is_loaded_once_where_there_are_figures_and_nowhere_else(page):
    scripts = [s for s in page.all("script") if "plotly" in s.get("src", "")]
    assert len(scripts) == bool(page.all("figure", class_="kv-figure"))
    assert all("defer" in script for script in scripts)


def test_plotly_is_the_one_that_wrote_the_figures(site):
    installed = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    shipped = (site / "_assets" / "plotly.min.js").read_bytes()
    assert shipped == installed.read_bytes()
    version = plotly.offline.get_plotlyjs_version()
    assert f"v{version}".encode() in shipped[:200]


def test_every_figure_has_an_alternative_a_height_and_a_table(page):
    figures = page.text.split('<figure class="kv-figure">')[1:]
    for figure in figures:
        figure = figure.split("</figure>")[0]
        assert len(re.search(r'role="img"[^>]*aria-label="([^"]*)"', figure)[1]) >= 20
        assert re.search(r'style="height:\d{2,4}px"', figure)
        assert re.search(r"<details.*<table", figure, re.DOTALL)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_executed_notebook_can_be_downloaded(chapter, site):
    page = Page(site / f"{chapter}.html")
    (link,) = [a["href"] for a in page.all("a") if a.get("href", "").startswith("../ipynb/")]
    notebook = nbformat.read((site / chapter).parent / link, as_version=4)
    assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_figure_of_a_chapter_is_on_its_page(chapter, site):
    shown = Page(site / f"{chapter}.html").all("figure", class_="kv-figure")
    made = book.figures_in(site / "ipynb" / f"{Path(chapter).name}.ipynb")
    assert len(shown) == made > 0


def test_ids_are_unique(page):
    ids = [
        attributes["id"]
        for _, attributes in page.tags
        if attributes.get("id", "").startswith("kv-")
    ]
    assert len(set(ids)) == len(ids)


def test_figures_are_readable_json(page):
    for body in re.findall(r'vnd\.plotly\.v1\+json"[^>]*>(.*?)</script>', page.text, re.DOTALL):
        assert json.loads(body)["data"]


# Signs of a sentence or a table that nobody read: kind → pattern in the text of a page.
UNREAD = {
    "role": r"\{[a-z]+\}`[^`]*`|\{(?:pub|recorded|pretrained):",
    "tuple of one": r"\(\d+,\)",
    "one of many": r"(?<![\d.,−–-])1[ \u202f](?:seeds|specialists|documents|steps|tokens|runs|fits|"
    r"cooperatives|switches|domains|windows)\b",
    "plural in brackets": r"[a-z]\(s\)",
    "truncated table": r"\d+ rows × \d+ columns|(?m:^\.\.\.$)",
    "number of a machine": r"\d[eE][-+]\d\d",
    "doubled unit": r"(%|nats/token|nats|pp|steps|seeds)[ \u202f]+\1(?![\w/])",
}


@pytest.mark.parametrize("kind", UNREAD)
def test_text_of_a_page_was_read_by_somebody(page, kind):
    assert re.findall(UNREAD[kind], page.words()) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("role", "held for {rec}`06/coverage|.0f` of"),
        ("tuple of one", "seeds (42,)"),
        ("one of many", "mean of 1 seeds"),
        ("plural in brackets", "3 seed(s)"),
        ("truncated table", "a\n...\nb"),
        ("number of a machine", "true if < 1e-05 nats/token"),
        ("doubled unit", "41 steps steps"),
    ],
)
def test_what_nobody_read_is_found(kind, text):
    assert re.search(UNREAD[kind], text)
