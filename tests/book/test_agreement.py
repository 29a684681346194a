"""Front page, chapters, ledger and how to read say the same of a claim, word for word."""

import re
from html import unescape
from pathlib import Path

import pytest
from pages import ROOT

from kalavai_helpers import boxes, claims, findings, verdicts

TIER = "ci"
ROW = re.compile(r'<tr (?:id="claim-|data-claim=")([^"]+)".*?</tr>', re.S)
BOX = re.compile(r'<div class="kv-verdict [^"]*" data-claim="([^"]+)">')


def text(html: str) -> str:
    return " ".join(unescape(re.sub("<[^>]+>", " ", html)).split())


def rows(site: Path, page: str) -> dict[str, str]:
    html = (site / f"{page}.html").read_text("utf-8")
    return {match[1]: match[0] for match in ROW.finditer(html)}


def shown_boxes(site: Path) -> dict[str, str]:
    """Boxes of all chapters by claim, each up to the next one."""
    found = {}
    for path in sorted((site / "notebooks").glob("*.html")):
        _, *parts = BOX.split(path.read_text("utf-8"))
        found |= dict(zip(parts[::2], parts[1::2], strict=True))
    return found


def levels(html: str) -> list[str]:
    """Every level with its word, value, interval and seeds, as a reader sees them."""
    return [text(part) for part in re.findall(r'<div class="kv-level">.*?</div>', html, re.S)]


FRONT = [claim.id for claim in claims.load() if claim.front]
TESTED = [claim.id for claim in claims.load() if claim.tested]


@pytest.mark.parametrize("id", FRONT)
def test_front_page_and_ledger_agree(site, id):
    found, front = findings.of(id, TIER, ROOT), rows(site, "index")
    ledger = rows(site, "claims")
    expected = [text(boxes.line(one)) for one in found.evidence]
    for page in (front[id], ledger[id]):
        assert levels(page)[: len(expected)] == expected
        assert found.answer in text(page)
        if found.released:
            assert found.released.value in text(page)


@pytest.mark.parametrize("id", TESTED)
def test_ledger_and_chapter_agree(site, id):
    found, shown = findings.of(id, TIER, ROOT), shown_boxes(site)
    ledger = rows(site, "claims")[id]
    assert found.answer in text(ledger)
    if id in shown:
        assert levels(shown[id]) == [text(boxes.line(one)) for one in found.evidence]
        assert found.answer in text(shown[id])
        assert levels(ledger)[: len(found.evidence)] == levels(shown[id])


def test_every_box_of_the_front_page_is_in_a_chapter(site):
    shown = set(shown_boxes(site))
    asked = {id for id in FRONT if findings.get(id).tested}
    assert asked <= shown


def test_how_to_read_lists_the_words_of_the_rule_and_no_other(site):
    html = (site / "how_to_read.html").read_text("utf-8")
    listed = re.findall(r'<span class="kv-badge[^>]*>([^<]+)</span>', html)
    assert listed == [word.value for word in (*verdicts.RELEASED, *verdicts.RUN)]
    told = text(html)
    for each in (*verdicts.Word, *verdicts.Level, *verdicts.Kind):
        assert each.meaning in told


def test_strong_words_on_the_front_page_have_ground(site):
    """Nothing is contradicted on the word of toys, who say not seen by a counterexample only."""
    for id, html in rows(site, "index").items():
        every = findings.of(id, TIER, ROOT).kind is verdicts.Kind.EVERY
        for line in levels(html):
            if not line.startswith(verdicts.Level.REPLICATED.title) and not every:
                assert verdicts.Word.CONTRADICTED.value not in line, id
            if line.startswith(verdicts.Level.TOY.title):
                assert verdicts.Word.CONTRADICTED.value not in line, id
                assert every or verdicts.Word.NOT_SEEN.value not in line, id


def test_the_summary_of_the_front_page_is_computed(site):
    html = (site / "index.html").read_text("utf-8")
    for title, sentence in boxes.summary(findings.front(TIER, ROOT)):
        assert f"{title} {sentence}" in text(html)
