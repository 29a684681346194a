"""The bank of recipes: what it costs, which families it has, and how far it reaches."""

from dataclasses import replace

import numpy as np
import pytest

from kalavai_helpers import bank, forecast_runs, tiers

NAMES = ("steps", "width")


def described(*centres: float, width: float | None = None) -> list[np.ndarray]:
    """Recipes of three specialists around a centre each, alike in width unless it is given."""
    around = np.array([-0.1, 0.0, 0.1])
    return [np.column_stack([c + around, np.full(3, width or 1.0)]) for c in centres]


def test_the_limit_is_the_largest_distance_of_a_recipe_from_the_others():
    recipes = described(0.0, 1.0, 2.0, 5.0)
    reach = bank.Reach.of(recipes, NAMES)
    rows = np.concatenate(recipes[:3])[:, 0]
    z = (rows - rows.mean()) / rows.std()
    far = (5.1 - rows.mean()) / rows.std()
    assert reach.limit == pytest.approx(far**2 / (z @ z + 1))
    assert reach.reason(described(3.0)[0]) is None


def test_beyond_the_limit_the_reason_names_the_quantity():
    reach = bank.Reach.of(described(0.0, 1.0, 2.0, 3.0), NAMES)
    assert reach.reason(described(2.5)[0]) is None
    far = reach.reason(described(30.0)[0])
    assert far.startswith("too far from the bank: distance ")
    assert "most of all in steps" in far


def test_what_the_bank_never_varied_it_cannot_tell_about():
    reach = bank.Reach.of(described(0.0, 1.0, 2.0, 3.0), NAMES)
    other = described(1.0, width=0.5)[0]
    assert reach.distance(other) == float("inf")
    assert reach.reason(other) == "the bank has never varied width"


def test_one_recipe_that_alone_tries_something_does_not_open_the_limit():
    recipes = [*described(0.0, 1.0, 2.0, 3.0), *described(1.0, width=0.5)]
    reach = bank.Reach.of(recipes, NAMES)
    assert np.isfinite(reach.limit)
    assert reach.reason(described(30.0)[0]) is not None


def test_families_have_in_common_what_the_other_recipes_lack():
    recipes = forecast_runs.recipes(tiers.get("ci"))
    found = bank.families(recipes)
    assert {"scarce text", "nothing frozen", "narrower models"} <= set(found)
    outside = lambda name: [t for k, t in enumerate(recipes) if k not in found[name]]  # noqa: E731
    assert min(t.frozen_layers for t in outside("nothing frozen")) > 0
    assert len({t.train_bytes for t in outside("scarce text")}) == 1
    assert len({t.hidden_size for t in outside("narrower models")}) == 1
    assert all(len(recipes) - len(members) >= bank.LEAST for members in found.values())
    few = bank.families(recipes[:5])
    assert "scarce text" not in few, "nobody has the trait"
    assert "shortest runs" not in bank.families(recipes[:4]), "too few would be left"


def test_the_bank_costs_full_runs_and_pays_after_more_forecasts_than_it_has_recipes():
    tier = tiers.get("ci")
    recipes = [replace(tier, specialist_steps=steps) for steps in (100, 300)]
    cost = bank.cost(recipes, 4)
    tokens = tier.batch_size * tier.seq_len
    assert cost.full == 200 * tokens
    assert cost.probe == 10 * tokens
    assert cost.bank == 4 * 210 * tokens
    assert cost.share() == pytest.approx(425)
    assert cost.pays_after == 5
    for n, pays in ((4, False), (5, True)):
        assert (cost.bank + n * cost.probe < n * cost.full) is pays
        assert (cost.share(n) < 100) is pays
