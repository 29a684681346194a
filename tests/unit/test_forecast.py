"""A forecast sees other recipes only, and its intervals hold as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
import study

from kalavai_helpers import evaluation, forecast, forecast_runs, parallel, predictors, tiers


def learned(runs):
    return dict(enumerate(map(forecast.Known.of, runs))), predictors.cooperatives(runs)


@pytest.fixture(scope="module")
def told():
    known, table = learned(study.runs())
    return known, forecast.leave_one_out(known, table)


def test_a_forecast_is_close_where_changes_follow_their_probes(told):
    _, table = told
    errors = predictors.compare(table)
    middle = errors["median error"]
    assert middle["probe forecast"] < 0.5 * middle["mean gain"]
    assert errors.loc["probe forecast", "q2"] > 0.5
    assert 0.6 <= table["inside"].mean() <= 0.95
    assert (table["low"] < table["forecast"]).all()
    assert (table["forecast"] < table["high"]).all()


def test_a_recipe_never_informs_its_own_forecast(told):
    known, table = told
    other = dict(known)
    other[3] = replace(known[3], changes=known[3].changes + 1.0)
    changed = table.assign(gain=table["gain"].where(table["recipe"] != 3, 99.0))
    again = forecast.leave_one_out(other, changed.drop(columns=["forecast", "low", "high"]))
    mine = table["recipe"] == 3
    for column in ("forecast", "low", "high"):
        assert np.array_equal(again.loc[mine, column], table.loc[mine, column])
        assert not np.array_equal(again.loc[~mine, column], table.loc[~mine, column])


def test_intervals_are_wider_where_changes_do_not_follow(told):
    known, table = learned(study.runs(noise=0.15))
    wild = forecast.leave_one_out(known, table)
    width = [(t["high"] - t["low"]).median() for t in (told[1], wild)]
    assert width[1] > 2 * width[0]


def test_domains_left_out_teach_nothing_of_themselves(told):
    known, table = told
    first = forecast.leave_out_domains(known, table)
    assert set(first["n"]) == {2}, "of five domains, only pairs leave three to learn from"
    row = first.iloc[0]
    kept = list(row["kept"])
    other = {}
    for recipe, k in known.items():
        changes = k.changes.copy()
        changes[kept] += 1.0
        changes[:, kept] += 1.0
        other[recipe] = replace(k, changes=changes)
    again = forecast.leave_out_domains(other, table)
    assert again.loc[row.name, "forecast"] == row["forecast"]
    assert not np.array_equal(again["forecast"], first["forecast"])


def test_too_few_recipes_are_refused():
    known, table = learned(study.runs(n=3))
    with pytest.raises(ValueError, match="at least 4 recipes, not 3"):
        forecast.learn(known, table)


def test_errors_are_split_into_what_a_recipe_a_specialist_and_a_loss_share():
    random = np.random.default_rng(1)
    made = forecast.Spread(np.diag([0.04, 0.09]), np.diag([0.01, 0.0025]), 0.02)
    errors = [made.draw(1, 5, random)[0] for _ in range(3000)]
    found = forecast.Spread.of(errors)
    assert np.diag(found.recipe) == pytest.approx([0.042, 0.0906], rel=0.1)
    assert found.cell == pytest.approx(0.02, rel=0.1)
    drawn = made.draw(4000, 5, random)
    assert drawn.shape == (4000, 5, 5)
    assert drawn[:, 0, 0].std() == pytest.approx(0.05**0.5, rel=0.1)


def test_subsets_are_fixed_different_and_end_with_all_domains():
    domains = tuple("abcdef")
    found = predictors.subsets(domains, 3)
    assert found == predictors.subsets(domains, 3)
    assert len(set(found)) == len(found) == 7
    assert found[-1] == domains
    assert {len(s) for s in found} == {2, 3, 4, 5, 6}
    assert predictors.subsets(domains, 4) != found


def test_measured_cooperatives_add_up_and_say_what_the_losses_say():
    table = predictors.cooperatives(study.runs(n=2))
    assert table["residual"].abs().max() < 1e-9
    run = study.runs(n=2)[0]
    row = table[(table["recipe"] == 0) & (table["n"] == len(study.DOMAINS))].iloc[0]
    matrix = evaluation.losses(run.ledger).matrix(("base", *study.DOMAINS)).to_numpy()
    own = np.diag(matrix[1:])
    assert row["divergence"] == pytest.approx(np.mean(100 * (matrix[0] - own) / matrix[0]))
    best = matrix[1:].mean(1).min()
    assert row["oracle"] == pytest.approx(100 * (best - own.mean()) / best)
    assert row["perplexity"] == pytest.approx(np.exp(matrix[0]).mean())


def test_intervals_over_groups_are_wider_than_rows_would_make_them(told):
    _, table = told
    twice = table.assign(copy=range(len(table)))
    statistic = lambda rows: rows["gain"].mean()  # noqa: E731
    groups = predictors.over_groups(twice, "recipe", statistic)
    rows = predictors.over_groups(twice, "copy", statistic)
    assert groups.low < groups.value < groups.high
    assert groups.high - groups.low > rows.high - rows.low


def test_recipes_vary_steps_depth_width_and_text_within_five_percent_probes():
    for name in ("ci", "laptop"):
        found = forecast_runs.recipes(tiers.get(name))
        assert len(found) == len({str(t) for t in found}) >= 10
        for field in ("specialist_steps", "frozen_layers", "hidden_size", "train_bytes"):
            assert len({getattr(t, field) for t in found}) > 1
        for tier in found:
            assert 3 <= forecast_runs.probe_steps(tier) <= 0.05 * tier.specialist_steps
            assert 0 <= tier.frozen_layers < tier.n_layers
        first = found[: forecast_runs.N_BUDGETS]
        assert len({str(replace(t, specialist_steps=0)) for t in first}) == 1


def test_runs_are_trained_scored_and_read_again(tiny, monkeypatch):
    """Probe and full run of every domain, all from the store the second time."""
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)  # no worker processes
    tier = replace(tiny.tier, specialist_steps=40)
    first = forecast_runs.measure([tier], tiny.corpora, tiny.domains, 42)[0]
    monkeypatch.setattr(forecast_runs.training, "train", None)
    again = forecast_runs.measure([tier], tiny.corpora, tiny.domains, 42)[0]
    assert np.array_equal(first.probe, again.probe)
    assert first.probe.shape == (3, 3)
    assert first.ledger.models == ("base", *tiny.domains)
    assert (first.kl > 0).all()
    assert (first.text_bytes > 0).all()
    change = first.probe - first.base
    full = forecast.Known.of(first).changes
    assert np.diag(full).mean() < np.diag(change).mean() < 0, "full runs learn more than probes"
    gains = predictors.cooperatives([first])["gain"]
    assert (gains > 0).all()
