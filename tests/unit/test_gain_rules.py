"""Rules are learned on one half of the specialists and know nothing of the other."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import gain_rules, subsets

N = 8


def cooperatives(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Subsets of eight made-up specialists with what is known of them, and halves."""
    random = np.random.default_rng(seed)
    base = random.uniform(1.5, 5, N)
    changes = random.uniform(-0.02, 0.1, (N, N))
    changes[np.diag_indices(N)] = -random.uniform(0.05, 0.3, N)
    matrix = base * (1 + changes)
    halves = subsets.halvings(N, 20)
    members = subsets.draw(halves)
    rows = [np.flatnonzero(row) for row in members]
    table = pd.DataFrame([gain_rules.of_matrix(base[k], matrix[np.ix_(k, k)]) for k in rows])
    return table.assign(gain=table["oracle"]), members, halves


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_at_home_is_the_oracle_gain_where_specialists_are_the_base_abroad(seed, n):
    random = np.random.default_rng(seed)
    base = random.uniform(1, 5, n)
    matrix = np.tile(base, (n, 1))
    matrix[np.diag_indices(n)] -= random.uniform(0.01, 0.5, n)
    known = gain_rules.of_matrix(base, matrix)
    assert known["at_home"] == pytest.approx(known["oracle"])
    assert known["transfer"] == pytest.approx(0, abs=1e-9)
    assert known["reduction"] == pytest.approx(
        known["best_over_base"] + known["oracle"] * (1 - known["best_over_base"] / 100)
    )


def test_what_is_known_of_a_cooperative_is_what_its_losses_say():
    base = np.array([4.0, 2.0])
    matrix = np.array([[3.0, 2.2], [4.4, 1.8]])
    known = gain_rules.of_matrix(base, matrix)
    expected = {
        "n": 2, "one_over_n": 0.5, "divergence": 17.5, "divergence_spread": 7.5,
        "shared_divergence": 8.75, "base": 3.0, "reduction": 20.0, "strongest": 1 / 1.2,
        "at_home": 4.0, "transfer": -10.0, "best_over_base": 100 * 0.4 / 3,
        "over_average": 100 * 0.45 / 2.85, "oracle": 100 * 0.2 / 2.6,
    }  # fmt: skip
    assert known == pytest.approx(expected)


def test_a_plane_is_found_again_and_sizes_have_equal_shares():
    table, _, _ = cooperatives()
    table["gain"] = 1 + 2 * table["divergence"] - 3 * table["one_over_n"]
    rows = gain_rules.weighted(table)
    plane = gain_rules.fit(rows, ("divergence", "one_over_n"))
    assert (*plane.slopes, plane.intercept) == pytest.approx((2, -3, 1))
    assert plane(table) == pytest.approx(table["gain"].to_numpy())
    by_size = pd.Series(rows["weight"]).groupby(rows["n"]).sum()
    assert by_size.to_numpy() == pytest.approx(1 / (N - 1))
    table["gain"] = table["oracle"]
    once = gain_rules.fit(gain_rules.weighted(table), ("divergence",))
    twice = gain_rules.weighted(pd.concat([table, table[table["n"] == 2]]))
    again = gain_rules.fit(twice, ("divergence",))
    assert again.slopes == pytest.approx(once.slopes)
    assert again.intercept == pytest.approx(once.intercept)


def test_the_half_that_is_asked_about_never_informs_a_rule():
    table, members, halves = cooperatives()
    before = gain_rules.judge(table, members, halves[:1])
    other = ~(members & ~halves[0, 1]).any(1)
    raised = table.assign(gain=table["gain"] + 5 * other)
    after = gain_rules.judge(raised, members, halves[:1])
    first = slice(0, len(gain_rules.RULES))
    assert list(after["form"][first]) == list(before["form"][first])
    assert after["bias"][first].to_numpy() == pytest.approx(before["bias"][first].to_numpy() - 5)
    learned = after["bias"].to_numpy()[len(gain_rules.RULES) :]
    assert not np.allclose(learned, before["bias"].to_numpy()[len(gain_rules.RULES) :])


def test_a_short_law_is_found_and_carries_to_the_other_half():
    table, members, halves = cooperatives()
    table["gain"] = 0.5 * table["at_home"] + 2 * table["one_over_n"] - 1
    judged = gain_rules.judge(table, members, halves)
    found = gain_rules.compare(judged, N)
    assert list(found.index) == list(gain_rules.RULES)
    assert found.loc["short rule", "form"] == "at home, 1/N"
    assert found.loc["short rule", "error"] == pytest.approx(0, abs=1e-6)
    assert found.loc["short rule", "q2"] == pytest.approx(1)
    assert found.loc["published line", "error"] > 1
    assert (found["error_low"] <= found["error"]).all()
    assert (found["error"] <= found["error_high"]).all()
    difference = gain_rules.apart(judged, "short rule", "published line", N)
    assert difference.high < 0
    assert difference.taken == f"95 % interval over {N} specialists"
    slopes = gain_rules.coefficients(
        table, members, halves, gain_rules.learned(table)["short rule"]
    )
    assert slopes["at_home"].low == pytest.approx(0.5)
    assert slopes["intercept"].value == pytest.approx(-1)


def test_what_explains_the_gain_is_told_from_what_does_not():
    table, members, halves = cooperatives()
    table["gain"] = 3 * table["divergence"]
    found = gain_rules.explained(table, members, halves, ("divergence", "base", "transfer"))
    assert found.loc["divergence", "alone"] == pytest.approx(1)
    assert found.loc["divergence", "unique"] > 0.1
    assert found.loc["base", "alone"] < 0.9
    assert found.loc["base", "unique"] < 0.01  # what adds nothing can only mislead


def test_a_rule_says_nothing_about_what_it_does_not_know():
    table, _, _ = cooperatives()
    planes = gain_rules.learned(table)
    conditions = table.assign(transfer=np.nan, oracle=np.nan).head(3)
    told = gain_rules.ask(planes, conditions)
    assert told["oracle gain"].isna().all()
    assert told["ridge, with losses abroad"].isna().all()
    assert told[["published line", "at home", "short rule"]].notna().all(axis=None)
    expected = planes["published line"](conditions) - conditions["gain"]
    assert told["published line"].to_numpy() == pytest.approx(expected.to_numpy())
