"""What is said of subsets is what their table says, and the winner is whoever errs least."""

from dataclasses import replace

import numpy as np
import pytest
import study
from kept_study import ALL, kept_study

from kalavai_helpers import (
    gain_rules,
    kept_ledger,
    kept_runs,
    parallel,
    subset_study,
    subsets,
    teams,
    tiers,
)
from kalavai_helpers.gain_rules import Plane

DOMAINS = ("tamil", "code", "yoruba", "legal", "welsh", "medical", "patent", "math")


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel.os, "cpu_count", lambda: 1)
        yield subset_study.study(study.noisy_ledger(DOMAINS), halvings=15)


def test_the_closest_rules_are_those_that_err_least(found):
    errors = found.judged.groupby("rule")["error"].mean()
    assert found.own == errors[list(subset_study.OWN_LOSSES)].idxmin()
    assert found.abroad == errors[list(subset_study.LOSSES_ABROAD)].idxmin()
    assert errors[found.best] == min(errors[found.own], errors[found.abroad])
    assert found.of_rule(found.own).value == pytest.approx(errors[found.own])
    assert found.apart(found.own).value == pytest.approx(
        errors[found.own] - errors[subset_study.REFITTED]
    )


def test_rules_are_judged_on_what_a_half_can_hold_and_larger_ones_are_measured_too(found):
    assert found.found.table["n"].max() == len(DOMAINS) // 2
    assert found.whole.table["n"].max() == len(DOMAINS)
    assert set(found.accounts.table["n"]) == set(range(2, len(DOMAINS) + 1))
    assert found.protocol().startswith(f"{len(found.found.table)} subsets of 2 to 4 specialists")
    assert "30 halves" in found.protocol()


def test_every_estimate_is_finite_and_lies_in_its_interval(found):
    numbers = subset_study.over_subsets(found)
    for name, (value, _) in numbers.items():
        assert np.isfinite([value.value, value.low, value.high]).all(), name
        assert value.low <= value.value <= value.high, name
        assert value.units == len(DOMAINS), name
    net = numbers["mixing_bonus"][0].value - numbers["routing_regret"][0].value
    accounts = found.accounts.table.query("n <= 4")
    assert net == pytest.approx(accounts.groupby("n")["net"].mean().mean())
    assert numbers["net"][0].value == pytest.approx(
        numbers["gain_mean"][0].value - numbers["oracle_gain"][0].value
    )


def test_the_refitted_line_is_least_squares_where_every_size_counts_alike(found):
    table = found.found.table
    weights = np.sqrt(1 / table.groupby("n")["gain"].transform("size"))
    slope, intercept = np.polyfit(table["divergence"], table["gain"], 1, w=weights)
    numbers = subset_study.over_subsets(found)
    assert numbers["refitted_slope"][0].value == pytest.approx(slope)
    assert numbers["refitted_intercept"][0].value == pytest.approx(intercept)


def test_extremes_and_errors_are_those_of_the_tables(found):
    counted = subset_study.counted(found)
    table = found.whole.table
    assert counted["cooperatives"][0] == len(table)
    assert counted["gain_to"][0] == table["gain"].max()
    assert counted["accounting_residual"][0] < 1e-9
    larger = table[table["n"] > 4]
    line = found.planes[subset_study.PRINTED]
    off = (line.slopes[0] * larger["divergence"] + line.intercept - larger["gain"]).abs()
    assert counted["printed_line_on_larger"][0] == pytest.approx(
        off.groupby(larger["n"]).mean().mean()
    )
    released = subset_study.told_of_released(found, [subset_study.PRINTED])
    off = (released[subset_study.PRINTED] - released["gain"]).abs()
    assert counted["printed_line_on_six"][0] == pytest.approx(off.iloc[-6:].mean())
    assert counted["printed_line_on_eight"][0] == pytest.approx(off.iloc[:-6].mean())


def test_conversion_goes_with_perplexity_where_it_is_made_to(found):
    table, members, _ = found.on
    group = found.ledger.token_group.numpy()
    base = -found.ledger.column("base").double().numpy()
    perplexity = np.array([np.exp(base[group == k].mean()) for k in range(len(DOMAINS))])
    mean = np.array([perplexity[row].mean() for row in members])
    made = table.assign(gain=table["divergence"] * (3 - np.log(mean)))
    told = subset_study.conversion_correlation(
        replace(found, found=replace(found.found, table=made))
    )
    assert told.row() == pytest.approx({"value": -1, "low": -1, "high": -1})


def test_a_few_of_every_size_are_told_by_rules_that_know_none_of_their_specialists(found):
    rules = [subset_study.PRINTED, subset_study.REFITTED]
    shown = subset_study.told(found, rules, per_size=3)
    assert dict(shown["n"].value_counts()) == {2: 3, 3: 3, 4: 3}
    everything = gain_rules.told_by_others(*found.on, rules)
    for row, told in shown.iterrows():
        assert told["domains"] == found.found.table.loc[row, "domains"]
        assert told[rules].to_list() == pytest.approx(everything.loc[row].to_list())
    assert shown[rules].notna().all(axis=None)


@pytest.mark.parametrize(
    ("plane", "said"),
    [
        (Plane("", ("divergence",), (0.82,), -2.72), "0.82 × divergence − 2.72"),
        (
            Plane("", ("at_home", "base"), (-1.0, -0.5), 3.0),
            "−1.00 × gain at home − 0.50 × loss of the base + 3.00",
        ),
        (Plane("oracle", ("oracle",), (1.0,), 0.0), "the oracle gain itself"),
        (Plane("", (), (), -1.5), "the mean gain of others, −1.50\u202f%"),
    ],
)
def test_a_rule_is_said_as_a_formula(plane, said):
    assert subset_study.in_words(plane) == said


def test_every_rule_has_words():
    forms = {**gain_rules.OWN, **gain_rules.MATRIX}
    assert set(subset_study.WORDS) == {*gain_rules.ALL_MATRIX, "shared_divergence"}
    for name, names in forms.items():
        plane = Plane(name, names, (0.5,) * len(names), 1.0)
        assert subset_study.in_words(plane).count("×") == len(names)
        assert subset_study.subject(plane)
    assert subset_study.subject(Plane("", (), (), 1.0)).startswith("nothing")


def test_a_recorded_ledger_is_read_for_its_first_team(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)
    kept_ledger.write(tmp_path / tiers.PRETRAINED, **kept_study(ALL, 1, seq_len=16, n_columns=1))
    monkeypatch.setenv("KALAVAI_KEPT", str(tmp_path))
    kept = kept_ledger.read()
    ledger, _ = kept_runs.view(kept.parts["heldout"], "heldout", teams.TEAMS[0])
    assert len(ledger.experts) == 20
    found = subset_study.study(ledger, halvings=2)
    conditions = subset_study.conditions(found)
    assert conditions.value["gain"].shape == (9,)
    growth = subset_study.growth(found)
    whole = growth.loc[20]
    assert whole["gain"] == pytest.approx(conditions.value["gain"][-1])
    assert whole["gain"] == pytest.approx(whole["oracle"] - whole["regret"] + whole["bonus"])
    seeds, english = subset_study.english(kept)
    assert seeds == [42, 137, 2026]
    assert english["english_gain"][0].over == "sources and 3 seeds"
    kept.about["teams"] = [team for team in kept.about["teams"] if team["seed"] == 42]
    seeds, english = subset_study.english(kept)
    assert seeds == [42]
    part = kept_runs.view(kept.parts["heldout"], "heldout", kept_runs.team("english"))[0]
    alone = subsets.cooperative(part, part.experts)
    assert english["english_gain"][0].value == pytest.approx(alone["gain"].value)
