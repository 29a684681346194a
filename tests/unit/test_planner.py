"""The planner says what the forecaster says, on the page as in JupyterLab."""

import json
import re
from dataclasses import replace

import pytest
import study

from kalavai_helpers import forecast, forecast_runs, planner, predictors


@pytest.fixture(scope="module")
def plan():
    runs = study.runs()
    known = dict(enumerate(map(forecast.Known.of, runs)))
    return planner.make(runs, known, predictors.cooperatives(runs))


def test_every_set_of_domains_has_a_forecast_at_every_budget(plan):
    assert len(plan.budgets) == len(plan.gains) == forecast_runs.N_BUDGETS
    told = [told for gains in plan.gains for told in gains.values()]
    numbers = [one for one in told if not isinstance(one, str)]
    assert len(told) == 3 * (2**5 - 1 - 5)
    assert len(numbers) > len(told) / 2
    assert all(low < gain < high for gain, low, high in numbers)
    assert plan.table().index[0] == "red + green"
    assert len(plan.table()) == 26


def test_cost_grows_with_domains_and_budget_and_counts_the_probes(plan):
    two, four = (plan.look_up(study.DOMAINS[:n], 0) for n in (2, 4))
    assert four["tokens"] == 2 * two["tokens"]
    assert four["minutes"] == pytest.approx(2 * two["minutes"])
    tier = study.runs()[0].tier
    steps = tier.specialist_steps + forecast_runs.probe_steps(tier)
    assert two["tokens"] == 2 * steps * tier.batch_size * tier.seq_len
    assert plan.look_up(study.DOMAINS, 2)["tokens"] > four["tokens"]


def test_the_bank_that_taught_the_forecast_is_counted(plan):
    tiers = [run.tier for run in study.runs()[1:]]
    steps = sum(tier.specialist_steps + forecast_runs.probe_steps(tier) for tier in tiers)
    tokens = len(study.DOMAINS) * steps * tiers[0].batch_size * tiers[0].seq_len
    assert plan.budgets[0]["bank_tokens"] == pytest.approx(tokens)
    assert plan.budgets[0]["bank_recipes"] == len(tiers)
    said = planner.answer(plan, study.DOMAINS, 0)
    assert "The bank of 8 recipes" in said
    assert f"{tokens / 1e6:.2f} million tokens." in said


@pytest.fixture
def refusing(plan):
    """The plan, with a reason in place of the last budget's numbers."""
    reasons = dict.fromkeys(plan.gains[-1], "the bank has never varied <width>")
    return replace(plan, gains=(*plan.gains[:-1], reasons))


def test_too_far_from_the_bank_the_planner_says_so_and_gives_no_number(refusing):
    found = refusing.look_up(study.DOMAINS, 2)
    assert "gain" not in found
    assert found["refused"] == "the bank has never varied <width>"
    said = planner.answer(refusing, study.DOMAINS, 2)
    assert said.startswith("No forecast: the bank has never varied <width>. Cost: 5 specialists")
    assert "Predicted" not in said
    assert set(refusing.table().iloc[:, -1]) == {"no forecast"}
    assert "<width>" not in planner.to_html(refusing)


def test_a_plan_refuses_what_the_forecaster_refuses():
    runs = study.runs()
    known = dict(enumerate(map(forecast.Known.of, runs)))
    known[0] = replace(known[0], specialists=known[0].specialists + 10)
    found = planner.make(runs, known, predictors.cooperatives(runs)).gains[0]
    assert all(
        "too far from the bank" in reason or "never varied" in reason for reason in found.values()
    )


def test_a_plan_is_the_forecast_without_its_own_recipe(plan):
    runs = study.runs()
    known = dict(enumerate(map(forecast.Known.of, runs)))
    table = predictors.cooperatives(runs)
    others = {r: k for r, k in known.items() if r != 1}
    told = forecast.learn(others, table).interval(known[1], (0, 2))
    assert plan.look_up(("red", "blue"), 1)["gain"] == told.value


@pytest.mark.parametrize("chosen", [(), ("red",), ("red", "red"), ("red", "gold")])
def test_what_cannot_be_planned_is_said(plan, chosen):
    with pytest.raises(ValueError, match="two domains or more of red, green, blue, black"):
        plan.look_up(chosen, 0)


def test_the_page_carries_the_forecasts_and_a_table_for_readers_without_scripts(plan):
    page = planner.to_html(plan)
    body = re.search(r'<script type="application/json">(.*?)</script>', page, re.S).group(1)
    data = json.loads(body)
    assert "<" not in body
    assert data["domains"] == list(study.DOMAINS)
    assert data["gains"][2]["31"][0] == pytest.approx(plan.gains[2][31][0], abs=0.005)
    assert "<form hidden>" in page
    assert page.count('type="checkbox"') == 5
    assert page.count("<tr") == 27
    assert 'aria-live="polite"' in page
    assert len(page) < 60_000


def test_widgets_answer_as_domains_and_budget_change(plan):
    box = planner.widget(plan)
    boxes, slider, said = box.children[0].children, box.children[1], box.children[2]
    assert said.value == planner.answer(plan, study.DOMAINS, 2)
    boxes[0].value = False
    slider.value = 0
    assert said.value == planner.answer(plan, study.DOMAINS[1:], 0)
    assert "4 specialists" in said.value
    for check in boxes[1:4]:
        check.value = False
    assert said.value == planner.FEW
