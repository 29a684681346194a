"""The claims ledger answers to search, filters and sorting, without kernel or network."""

import pytest
from test_browser import WIDTHS, Visit

from kalavai_helpers import book, claims, findings

PUBLISHED = [claim for claim in claims.load() if claim.where != findings.OWN]
SHOWN = "[...document.querySelectorAll('.kv-claims tbody tr')].filter((row) => !row.hidden)"


@pytest.fixture(params=WIDTHS)
def ledger(request, chromium, site):
    visit = Visit(chromium, site, "claims", request.param)
    visit.width = request.param
    yield visit
    assert visit.asked == []
    assert visit.complaints == []
    visit.context.close()


def audit_of_published():
    audit = claims.audit()
    return audit[audit["where"] != findings.OWN]


def shown(visit) -> list[str]:
    return [id.removeprefix("claim-") for id in visit.page.evaluate(f"{SHOWN}.map((r) => r.id)")]


def order_by(visit, column: int) -> None:
    if visit.width < 700:
        visit.page.select_option(".kv-tools [name=order]", str(column))
    else:
        visit.page.click(f".kv-claims thead button >> nth={column}")


def test_every_claim_is_on_the_page_with_its_verdict_and_the_page_stays_light(ledger, site):
    assert shown(ledger) == [claim.id for claim in PUBLISHED]
    audit = audit_of_published()
    verdicts = ledger.page.evaluate(f"{SHOWN}.map((row) => row.dataset.verdict)")
    assert verdicts == list(audit["verdict"])
    counts = ledger.page.locator(".kv-counts b").all_inner_texts()
    assert [int(n) for n in counts] == [(audit["verdict"] == v).sum() for v in claims.VERDICTS]
    assert (site / "claims.html").stat().st_size <= book.MAX_PAGE_BYTES


def test_search_wants_every_word(ledger):
    ledger.page.fill(".kv-tools [name=text]", "welsh PERPLEXITY")
    found = shown(ledger)
    assert "welsh-moe" in found
    assert 0 < len(found) < len(PUBLISHED) / 10
    told = ledger.page.inner_text(".kv-tools output")
    assert told == f"{len(found)} of {len(PUBLISHED)}"
    ledger.page.fill(".kv-tools [name=text]", "no such words")
    assert shown(ledger) == []
    ledger.page.fill(".kv-tools [name=text]", "")
    assert len(shown(ledger)) == len(PUBLISHED)


@pytest.mark.parametrize("verdict", claims.VERDICTS)
def test_filter_by_verdict_and_part(ledger, verdict):
    audit = audit_of_published()
    ledger.page.select_option(".kv-tools [name=verdict]", verdict)
    assert shown(ledger) == list(audit["id"][audit["verdict"] == verdict])
    ledger.page.select_option(".kv-tools [name=section]", "abstract")
    both = (audit["verdict"] == verdict) & (audit["section"] == "abstract")
    assert shown(ledger) == list(audit["id"][both])


def test_a_count_of_the_summary_filters(ledger):
    ledger.page.click(".kv-counts a[data-verdict=contradicts]")
    verdicts = ledger.page.evaluate(f"{SHOWN}.map((row) => row.dataset.verdict)")
    assert set(verdicts) == {"contradicts"}


def test_sorting_by_number_both_ways_and_rows_without_a_number_last(ledger):
    order_by(ledger, 3)
    keys = ledger.page.evaluate(f"{SHOWN}.map((row) => row.cells[3].dataset.key)")
    numbers = [float(key) for key in keys if key]
    assert numbers == sorted(numbers)
    assert "" not in keys[: len(numbers)]
    if ledger.width > 700:
        order_by(ledger, 3)
        keys = ledger.page.evaluate(f"{SHOWN}.map((row) => row.cells[3].dataset.key)")
        numbers = [float(key) for key in keys if key]
        assert numbers == sorted(numbers, reverse=True)
        assert "" not in keys[: len(numbers)]
        heads = ledger.page.locator(".kv-claims thead th[aria-sort=descending]")
        assert heads.all_inner_texts() == ["Recomputed"]


def test_sorting_by_text(ledger):
    order_by(ledger, 1)
    texts = ledger.page.evaluate(f"{SHOWN}.map((row) => row.cells[1].textContent.toLowerCase())")
    assert ledger.page.evaluate(
        "(t) => t.every((x, i) => !i || t[i - 1].localeCompare(x) <= 0)", texts
    )


def test_a_row_links_to_its_chapter_and_says_how_it_was_recomputed(ledger, site):
    row = ledger.page.locator("#claim-hero-410m")
    link = row.locator("a").get_attribute("href")
    assert (site / link).is_file()
    row.locator("summary").click()
    assert "gain(" in row.locator("details code").inner_text()


def test_without_scripts_the_table_is_complete(chromium, site):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "claims.html").as_uri())
    assert page.locator(".kv-claims tbody tr").count() == len(PUBLISHED)
    assert page.locator(".kv-tools").is_hidden()
    context.close()
