"""A forecast sees other recipes only, and its intervals hold as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
import study
import torch

from kalavai_helpers import (
    evaluation,
    forecast,
    forecast_runs,
    losses,
    parallel,
    prediction,
    predictors,
    tiers,
)


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
    assert (errors["low"] <= middle).all()
    assert (middle <= errors["high"]).all()
    assert errors.loc["probe forecast", "q2"] > 0.5
    assert 0.6 <= table["inside"].mean() <= 0.95
    assert (table["low"] < table["forecast"]).all()
    assert (table["forecast"] < table["high"]).all()


def test_a_probe_tells_what_its_own_specialist_learned_and_forgot():
    (run,) = study.runs(n=1)
    change = run.probe - run.base
    known = forecast.Known.of(run)
    for i in range(len(study.DOMAINS)):
        forgot = np.delete(change[i], i).mean()
        assert known.about[i, 0] == pytest.approx(change[i, i])
        assert known.pair[i, :, 0] == pytest.approx(change[i, i])
        assert known.pair[i, :, 1] == pytest.approx(forgot)
        assert known.pair[i, :, -1] == pytest.approx(change[i])
        assert known.specialists[i, 4] == pytest.approx(forgot)


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
    part = known[0].only([0, 2])
    assert np.array_equal(part.specialists, known[0].specialists[[0, 2]])


def test_too_few_recipes_are_refused():
    known, table = learned(study.runs(n=3))
    with pytest.raises(ValueError, match="at least 4 recipes, not 3"):
        forecast.learn(known, table)
    with pytest.raises(ValueError, match="at least 3 recipes, not 2"):
        forecast.learn({r: known[r] for r in (0, 1)}, table, stretch=False)


def test_far_from_the_bank_there_is_a_reason_and_no_number(told):
    known, table = told
    forecaster = forecast.learn({r: k for r, k in known.items() if r != 4}, table)
    near = known[4]
    assert forecaster.predict(near, (0, 1)) == forecaster.interval(near, (0, 1))
    far = near.specialists.copy()
    far[1, 2] += 10  # passes over the text
    far = replace(near, specialists=far)
    refusal = forecaster.predict(far, (0, 1))
    assert isinstance(refusal, forecast.Refusal)
    assert "too far from the bank" in refusal.reason
    assert "passes over the text" in refusal.reason
    assert not isinstance(forecaster.predict(far, (0, 2)), forecast.Refusal), "not of the two"
    wide = near.specialists + np.eye(len(forecast.QUANTITIES))[-1]
    refusal = forecaster.predict(replace(near, specialists=wide), (0, 1))
    assert refusal.reason == "the bank has never varied width"


def test_a_forecast_that_would_be_refused_is_judged_and_marked(told):
    known, table = told
    far = dict(known)
    far[4] = replace(known[4], specialists=known[4].specialists + 10)
    judged = forecast.leave_one_out(far, table)
    mine = judged["recipe"] == 4
    assert judged.loc[mine, "refused"].all()
    assert np.array_equal(judged.loc[mine, "forecast"], table.loc[mine, "forecast"])
    assert not table["refused"].all()


def test_a_family_that_is_left_out_teaches_nothing_of_itself(told):
    known, table = told
    families = {"few": [0, 1, 2], "odd": [1, 3, 5]}
    first = forecast.leave_out_families(known, table, families)
    assert first.groupby("family")["recipe"].unique().map(list).to_dict() == families
    other = {r: replace(k, changes=k.changes + (r in families["few"])) for r, k in known.items()}
    again = forecast.leave_out_families(other, table, families)
    same = (again["forecast"] == first["forecast"]).groupby(first["family"]).all()
    assert same.to_dict() == {"few": True, "odd": False}


def test_families_are_summed_up_beside_the_line_through_the_recipes_outside(told):
    known, table = told
    families = {"few": [0, 1, 2], "odd": [1, 3, 5]}
    rows = forecast.leave_out_families(known, table, families)
    rows["refused"] = rows["recipe"] == 1
    found = predictors.by_family(rows, table)
    few = rows[rows["family"] == "few"]
    assert found.loc["few", "coverage"] == 100 * few["inside"].mean()
    assert found.loc["few", "refused"] == pytest.approx(100 / 3)
    assert found.loc["few", "accepted"] == (few["recipe"] != 1).sum()
    law = prediction.fit(table[~table["recipe"].isin(families["few"])][["divergence", "gain"]])
    expected = (law.slope * few["divergence"] + law.intercept - few["gain"]).abs().median()
    assert found.loc["few", "line error"] == pytest.approx(expected)


def test_a_smaller_bank_has_its_own_forecasts(told):
    known, table = told
    small = forecast.leave_one_out(known, table, size=4)
    assert small["recipe"].equals(table["recipe"])
    assert not np.array_equal(small["forecast"], table["forecast"])
    assert small.equals(forecast.leave_one_out(known, table, size=4))


def test_the_refitted_line_sees_the_other_recipes_and_no_gain_of_its_own(told):
    _, table = told
    line = predictors.refitted_line(table)
    mine = table["recipe"] == 3
    law = prediction.fit(table.loc[~mine, ["divergence", "gain"]])
    assert line.loc[mine, "value"].tolist() == pytest.approx(
        [law.predict(x) for x in table.loc[mine, "divergence"]]
    )
    again = predictors.refitted_line(table.assign(gain=table["gain"].where(~mine, 99.0)))
    assert again[mine].equals(line[mine])
    assert not again[~mine].equals(line[~mine])
    assert (line["low"] < line["value"]).all()
    assert (line["value"] < line["high"]).all()


def test_a_ratio_of_errors_compares_two_ways_over_recipes(told):
    _, table = told
    perfect = table.assign(forecast=table["gain"] + 0.01)
    ratio = predictors.error_ratio(perfect, "probe forecast", "refitted line")
    line = (predictors.refitted_line(table)["value"] - table["gain"]).abs().median()
    assert ratio.value == pytest.approx(0.01 / line)
    assert predictors.standing(ratio) == "smaller"
    inverse = predictors.error_ratio(perfect, "refitted line", "probe forecast")
    assert inverse.value == pytest.approx(1 / ratio.value)
    assert predictors.standing(inverse) == "larger"
    assert predictors.standing(losses.Estimate(0.7, 0.5, 1.2)) == "no different"


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
    assert (groups.over, groups.units) == ("recipes", table["recipe"].nunique())
    named = predictors.over_groups(twice, "copy", statistic, "copies")
    assert named.taken == f"95 % interval over {len(table)} copies"


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


def test_divergence_in_nats_is_of_the_model_from_the_base_and_not_the_other_way(tiny):
    windows = tiny.windows("heldout", "red")
    model, base = tiny.model("red"), tiny.model("base")
    ids, real = torch.from_numpy(windows.input_ids), torch.from_numpy(windows.targets) >= 0
    log_p, log_q = (m(ids).logits[real].double().log_softmax(-1).detach() for m in (model, base))
    forward, backward = (
        float(torch.nn.functional.kl_div(b, a, reduction="batchmean", log_target=True))
        for a, b in ((log_p, log_q), (log_q, log_p))
    )
    found = forecast_runs.kl_from_base(model, base, windows)
    assert found == pytest.approx(forward, rel=1e-3)
    assert abs(forward - backward) > 0.01 * forward


def test_errors_are_those_of_recipes_that_were_left_out():
    runs = study.runs(noise=0.05)
    known, table = dict(enumerate(map(forecast.Known.of, runs))), predictors.cooperatives(runs)
    errors = []
    for recipe, left in known.items():
        others = forecast._planes([k for r, k in known.items() if r != recipe])
        errors.append(left.changes - forecast._carry(others, left))
    found, expected = forecast.learn(known, table, stretch=False).spread, forecast.Spread.of(errors)
    assert found.cell == pytest.approx(expected.cell)
    assert np.allclose(found.recipe, expected.recipe)
    assert np.allclose(found.specialist, expected.specialist)
