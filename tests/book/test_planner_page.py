"""The planner on the page answers from the forecasts it carries, without kernel or network."""

import json
from pathlib import Path

import pytest
from test_browser import WIDTHS, Visit

from kalavai_helpers import planner

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "notebooks/06_prediction_formula"


@pytest.fixture(params=WIDTHS)
def visit(request, chromium, site):
    visit = Visit(chromium, site, CHAPTER, request.param)
    yield visit
    assert visit.asked == []
    assert visit.complaints == []
    visit.context.close()


def said(page) -> str:
    return page.locator(".kv-planner .kv-answer").inner_text().replace("−", "-")


def test_ticking_domains_and_moving_the_budget_changes_the_answer(visit):
    page = visit.page
    plan = json.loads(page.locator(".kv-planner script").text_content())
    n, last = len(plan["domains"]), len(plan["budgets"]) - 1
    told = plan["gains"][last][str(2**n - 1)]
    first = said(page)
    if isinstance(told, str):
        assert first.startswith(f"No forecast: {told}")
    else:
        gain, low, high = told
        assert f"{gain:+.1f} % (80 % interval {low:+.1f} to {high:+.1f})" in first
    assert f"bank of {plan['budgets'][last]['bank_recipes']} recipes" in first
    assert f"{n} specialists × {plan['budgets'][last]['steps']} steps" in first
    page.locator(".kv-planner [name=domain]").nth(0).uncheck()
    assert f"{n - 1} specialists" in said(page)
    page.locator(".kv-planner [name=budget]").focus()
    page.keyboard.press("Home")
    smallest = plan["budgets"][0]["steps"]
    assert f"× {smallest} steps" in said(page)
    assert page.locator(".kv-planner output").inner_text() == f"{smallest} steps"
    for k in range(1, n - 1):
        page.locator(".kv-planner [name=domain]").nth(k).uncheck()
    assert said(page) == "Choose at least two domains."


def test_without_scripts_the_table_of_forecasts_remains(chromium, site):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / f"{CHAPTER}.html").as_uri())
    assert page.locator(".kv-planner form").is_hidden()
    assert page.locator(".kv-planner table tbody tr").count() > 10
    context.close()


def test_the_page_says_what_the_widget_says_and_refuses_where_it_refuses(chromium):
    budget = {"steps": 60, "probe": 3, "tokens": 64_000, "seconds": 90.0}
    budget |= {"bank_recipes": 10, "bank_tokens": 8_000_000.0}
    plan = planner.Plan(("red", "blue"), (budget,) * 2, ({3: (-1.5, -2.0, 1.0)}, {3: "too far"}))
    page = chromium.new_page()
    page.set_content(planner.to_html(plan))
    page.add_script_tag(path=ROOT / "book" / "_ext" / "planner.js")
    reach = page.locator(".kv-planner .kv-reach")
    for index, key in enumerate(("Home", "End")):
        page.locator(".kv-planner [name=budget]").focus()
        page.keyboard.press(key)
        answer = page.locator(".kv-planner .kv-answer").inner_text()
        assert answer == planner.answer(plan, plan.domains, index)
        assert (reach.get_attribute("hidden") is None) == (index == 0)
    page.close()
