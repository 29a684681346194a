"""Sentences say numbers of records and of the public record, and no number in them is typed."""

import ast
import re
from functools import cache
from pathlib import Path

import jupytext
import pytest

from kalavai_helpers import chapters, kept_ledger, prose, published, recorded, records, tiers

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("notebooks/[0-9][0-9]_*.md"), *ROOT.glob("book/*.md")])

# What is not prose: front matter, code, roles and directives' options, mathematics, addresses.
NOT_PROSE = (
    r"\A---\n.*?\n---\n",
    r"^```\{(?:code-cell|claims|consistency|bibliography).*?^```",
    r"^```(?:bash|text|python|json)?\n.*?^```",
    r"^```.*$|^:[a-z-]+:.*$|^\([a-z0-9_-]+\)=$",
    r"\{[a-z:]+\}`[^`]*`",
    r"`[^`\n]*`",
    r"\{[^{}\n]*\}",
    r"\$[^$\n]+\$",
    r"\]\([^)]*\)|<https?:[^>]*>|https?://\S+",
)
# Numbers that are no results: names of models and steps, hardware, settings that define a term.
NAMES = (
    r"\b(?:Pythia|pythia|Qwen)[\w.-]*|\b\d+(?:\.\d+)?[MB]\b",
    r"^#+ Step \d|^\*\*\d\.\*\*|^ *\d+\. |\b[Cc]hapters? \d+(?:(?: to |, | and )\d+)*",
    r"\b\d+(?: to \d+)? GB\b|α = 0|ε = 0\.01|\b0 to 1\b|UTF-8|\b95 %|\b80 %|\(19\d\d\)|\b20\d\d\b|\bseed 42\b|Python 3(?:\.\d+)?",
)
# A setting of a published run is part of the ids of its values: "2,000 steps", "four frozen blocks".
SETTING = (
    r"\b(\d[\d,]*) (?:steps|tokens|blocks|layers|chunks|windows|contributors|specialists|seeds)\b"
)
NUMBER = r"(?<![\w.])[-+−]?\d[\d,.]*(?:\s?%)?"


@cache
def settings() -> set[str]:
    """Whole numbers in the ids and protocols of the public record."""
    frame = published.load()
    words = [*frame["id"], *frame["eval_protocol"].astype(str)]
    return {number for word in words for number in re.findall(r"\d+", word)}


def typed_numbers(text: str) -> list[str]:
    """Numbers that stand in the prose of a page, with a few words of context."""
    for pattern in NOT_PROSE:
        text = re.sub(
            pattern, " ", text, flags=re.DOTALL | re.MULTILINE if ".*?" in pattern else re.MULTILINE
        )
    for pattern in NAMES:
        text = re.sub(pattern, " ", text, flags=re.MULTILINE)
    text = re.sub(SETTING, lambda m: " " if m[1].replace(",", "") in settings() else m[0], text)
    return [text[max(0, m.start() - 25) : m.end() + 15] for m in re.finditer(NUMBER, text)]


def said(source: str) -> list[str]:
    """The texts that a code cell hands to ``prose.say``, in pieces where it chooses among them."""
    calls = [node for node in ast.walk(chapters._parse(source)) if isinstance(node, ast.Call)]
    return [
        part.value
        for call in calls
        if ast.unparse(call.func) == "prose.say"
        for argument in call.args
        for part in ast.walk(argument)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def sentences(path: Path) -> str:
    if path.parent.name != "notebooks":
        return path.read_text("utf-8")
    parts = []
    for cell in jupytext.read(path).cells:
        parts += said(cell.source) if cell.cell_type == "code" else [cell.source]
    return "\n\n".join(parts)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_numbers_in_prose_come_from_records_or_from_the_public_record(path):
    assert typed_numbers(sentences(path)) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "It gains 7.7 % over the best.",
        "The loss is 2.218 nats.",
        "it wins after 5,123 steps",
        "−21.1 %",
    ],
)
def test_a_typed_result_is_found(sentence):
    assert len(typed_numbers(sentence)) >= 1


def test_a_number_by_role_is_none_that_was_typed():
    assert typed_numbers("It gains {rec}`01_protocol/gain_evidence|+.2f` at 410M.") == []
    assert typed_numbers("It gains {gain_evidence|+.2f} and {pub:a/410M/2.5|.1f} at 410M.") == []


CHAPTERS = chapters.names(ROOT)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapters_have_nothing_that_only_the_site_can_read(chapter):
    for cell in chapters.read(ROOT, chapter).cells:
        if cell.cell_type == "markdown":
            assert not re.findall(r"\{[a-z:]+\}`|^```\{.*|^:::.*", cell.source, re.MULTILINE)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_caption_counts_what_its_intervals_rest_on(chapter):
    for cell in chapters.code_cells(chapters.read(ROOT, chapter)):
        assert not re.findall(r"95 %(?: intervals?)? over (?:sources|documents).*", cell.source)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_cell_that_says_a_sentence_is_collapsed_everywhere(chapter):
    for cell in chapters.code_cells(chapters.read(ROOT, chapter)):
        if cell.metadata.get("jupyter"):
            assert not re.search(r"\{.*\|", cell.source.split("\n")[0])
        if said(cell.source) and cell.source.startswith("prose.say("):
            assert "remove-input" in cell.metadata["tags"]
            assert cell.metadata["jupyter"] == {"source_hidden": True}
            # JupyterLab shows the first line of a collapsed cell.
            assert re.match(r'prose\.say\(f?"""\n', cell.source)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_numbers_that_a_chapter_says_exist(chapter):
    """Names of this run are met when the chapter runs; here are those that lie in the data."""
    for cell in chapters.code_cells(chapters.read(ROOT, chapter)):
        for text in said(cell.source):
            for name in re.findall(r"\{pub:([^{}|]+)", text):
                published.row(name)
            for name in re.findall(r"\{recorded:([^{}|]+)", text):
                assert name in recorded.load(chapter)["records"]


@pytest.fixture
def run():
    records.start("01_protocol", tier="ci", seed=42, corpora="builtin")
    records.record("gain", 7.125, "%", low=-6.0, high=8.0, protocol="a|b")
    records.record("tiny", -3e-5, "nats")
    records.record("switches", 1, "switches")
    records.record("one", 1.0, "seeds")
    records.record("steps", 20000, "steps")
    records.record("perplexity", 41.5, "perplexity")
    records.record("same", "a_b*")
    yield
    records._run = None


def plain(markdown: str) -> str:
    return re.sub("<[^>]+>", "", prose.fill(markdown)).replace("\u202f", " ")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{gain|+.1f|ci}", "+7.1 % (−6.0 to +8.0)"),
        ("{gain|ci|bare|.0f}", "7 (−6 to 8)"),
        ("{tiny|.1e}", "−3.0 · 10⁻⁵ nats"),
        ("{switches} and {one|.0f}", "1 switch and 1 seed"),
        ("{one|.1f}", "1.0 seeds"),
        ("{steps}", "20,000 steps"),
        ("a perplexity of {perplexity|.1f}", "a perplexity of 41.5"),
        ("$\\frac{a}{b}$ and `{x}`", "$\\frac{a}{b}$ and `{x}`"),
    ],
)
def test_numbers_are_said_as_print_says_them(run, template, text):
    assert plain(template) == text


def test_a_number_keeps_its_origin_and_cannot_break_a_table(run):
    cell = prose.fill("| {gain|.1f} | {same} |")
    assert cell.count("|") == 3
    assert 'class="kv-rec"' in cell
    assert "This run: tier ci, seed 42, text builtin, protocol a" in cell
    assert "a&#95;b&#42;" in cell, "a word must not begin emphasis"


def test_published_and_recorded_numbers_say_where_they_come_from(run):
    id = published.load().iloc[0]["id"]
    text = prose.fill(f"{{pub:{id}}} {{recorded:gain_evidence|.1f}}")
    assert 'class="kv-pub"' in text
    assert "Published: " in text
    assert f"Recorded {recorded.load('01_protocol')['date']}" in text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{gian}", r"\{gian\} in the text: .*closest: gain"),
        ("{pub:no/such/id}", "No published value"),
        ("{recorded:gain_evidense}", "closest: gain_evidence"),
        ("{tiny|ci}", "without an interval"),
        ("{gain|.1f|.2f}", "one format"),
        ("{}", "no record ''"),
    ],
)
def test_a_number_that_cannot_be_said_fails_the_cell(run, template, message):
    with pytest.raises(ValueError, match=message):
        prose.say(template)


def test_numbers_from_a_recorded_ledger_are_those_of_the_side_run(run, monkeypatch):
    with pytest.raises(ValueError, match=r"\{pretrained:gain\} in the text: .*nothing inside"):
        prose.say("{pretrained:gain}")
    about = {"tier": tiers.PRETRAINED, "corpora": "folder", "seed": 42, "date": "2026-12-01"}
    monkeypatch.setattr(kept_ledger, "about", lambda tier: about | {"environment": {}})
    with records.run_of(tiers.PRETRAINED):
        records.record("gain", 21.85, "%", low=20.0, high=23.0)
    text = prose.fill("{gain|.1f}, {pretrained:gain|+.1f|ci}")
    assert plain("{gain|.1f}, {pretrained:gain|+.1f|ci}") == "7.1 %, +21.9 % (+20.0 to +23.0)"
    assert f"ledger recorded 2026-12-01: tier {tiers.PRETRAINED}, seed 42, text folder" in text
    with pytest.raises(ValueError, match="closest: gain"):
        prose.say("{pretrained:gian}")


def test_before_records_start_nothing_is_said():
    records._run = None
    with pytest.raises(ValueError, match=r"records\.start"):
        prose.say("{gain}")


def test_a_sentence_is_one_output_in_two_forms(run, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    prose.say("\nIt gains {gain|.0f}.\n")
    ((data, raw),) = shown
    assert raw
    assert data["text/markdown"].startswith("It gains <span")
    assert data["text/plain"] == "It gains 7\u202f%."


def test_lists_and_counts_follow_their_number():
    assert prose.seeds((42,)) == "seed 42"
    assert prose.seeds([42, 137, 2026]) == "seeds 42, 137 and 2026"
    assert prose.count(1, "studies") == "1 study"
    assert prose.count(2000, "passes") == "2,000 passes"
