"""The ladder: rungs differ in width only, share their tokens, and its trends are those put in."""

from dataclasses import replace

import numpy as np
import pytest

from kalavai_helpers import figure_ladder, ladder, released_ladder, scaling, tiers
from kalavai_helpers.losses import Losses, over_runs


@pytest.mark.parametrize("name", ["ci", "laptop"])
def test_rungs_differ_in_width_only_and_hold_the_sweep_itself(name):
    sweep = tiers.get(name).sweep()
    rungs = ladder.tiers_of(tiers.get(name))
    assert sweep in rungs
    assert len(rungs) >= 3
    widths = [rung.hidden_size for rung in rungs]
    assert widths == sorted(set(widths))
    assert all(replace(rung, hidden_size=sweep.hidden_size) == sweep for rung in rungs)
    assert all((width // sweep.n_heads) % 4 == 0 for width in widths)


def test_a_published_checkpoint_is_one_rung():
    tier = tiers.get("pythia-1b")
    assert ladder.tiers_of(tier) == (tier.sweep(),)


@pytest.fixture(scope="module")
def rungs(tiny):
    tier = replace(tiny.tier, base_steps=4, specialist_steps=4, hidden_size=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 1)  # starting workers costs more than the training
        found = ladder.climb(tier, tiny.corpora, tiny.domains, (42, 7))
    assert [rung.tier.hidden_size for rung in found] == [8, 16, 32]
    return found


def test_all_rungs_and_seeds_read_the_same_tokens(rungs):
    tokens = [table.tokens for rung in rungs for table in rung.tables]
    assert all(np.array_equal(found, tokens[0]) for found in tokens)


def test_every_rung_has_equal_compute_and_the_sweep_equal_exposure_and_a_wider_model(rungs):
    kinds = [[baseline.kind for baseline in rung.baselines] for rung in rungs]
    assert all("monolithic_compute" in found for found in kinds)
    assert ["monolithic_exposure" in found for found in kinds] == [False, True, False]
    assert ["wider" in found for found in kinds] == [True, True, False]
    summary = scaling.summary(rungs)
    seeds = summary.seeds.groupby(level=0).unique().map(list).to_dict()
    assert seeds["evidence"] == [2]
    assert seeds["monolithic_compute"] == seeds["wider"] == [1]


def test_the_wider_model_of_one_rung_is_the_monolithic_model_of_the_next(rungs):
    found = {b.kind: b.path for b in rungs[1].baselines}
    assert found["wider"] == next(b.path for b in rungs[2].baselines)
    wide = rungs[1].ledgers[0].column("wider")
    assert wide.equal(rungs[2].ledgers[0].column("monolithic_compute"))


def test_a_second_climb_trains_nothing(rungs, monkeypatch):
    def refuse(tasks):
        assert not list(tasks)

    monkeypatch.setattr(ladder.parallel, "side_by_side", refuse)
    tier = rungs[1].tier
    ladder.climb(tier, rungs[0].cooperatives[0].corpora, rungs[0].domains, (42, 7))


def test_kept_parameters_count_the_trunk_once(rungs):
    rung = rungs[0]
    assert rung.total_parameters("weight_average") == rung.parameters
    assert rung.parameters < rung.total_parameters("evidence") < 3 * rung.parameters
    assert rungs[1].total_parameters("wider") > 2 * rungs[1].parameters


def test_accounting_leaves_nothing_over(rungs):
    found = scaling.accounting(rungs)
    assert len(found) == 3 * 2 * 2
    assert found.residual.abs().max() < 1e-9
    assert (found.bonus > -1e-9).all()


def test_the_change_is_the_difference_of_the_gains(rungs):
    gains = [scaling.estimate(rung, "evidence").value for rung in rungs]
    assert scaling.change(rungs).value == pytest.approx(gains[-1] - gains[0], abs=1e-9)
    assert scaling.lowest_gain(rungs).value <= min(gains) + 1e-9
    x = np.log10([rung.parameters for rung in rungs])
    assert scaling.slope(rungs).value == pytest.approx(np.polyfit(x, gains, 1)[0], abs=1e-9)


def test_one_rung_has_no_trend(rungs):
    with pytest.raises(ValueError, match="two rungs"):
        scaling.slope(rungs[:1])


def test_a_rival_that_was_not_run_has_no_advantage(rungs):
    assert scaling.lowest_advantage(rungs[2:], "wider") is None


def test_the_lowest_advantage_is_no_higher_than_any(rungs):
    kind = "monolithic_compute"
    found = scaling.lowest_advantage(rungs, kind, by_domain=True).value
    every = [scaling.advantage(rung, kind, d).value for rung in rungs for d in rung.domains]
    assert found == pytest.approx(min(every), abs=1e-9)
    mean = scaling.advantage(rungs[0], kind)
    assert min(every) <= mean.value <= max(every)
    assert mean.low <= mean.value <= mean.high


def _losses(values, seed):
    rng = np.random.default_rng(seed)
    tokens = np.full(40, 100.0)
    group = np.repeat([0, 1], 20)
    noise = rng.normal(0, 1, 40)
    sums = {n: 100 * v + noise for n, v in values.items()}
    return Losses(sums, tokens, group, ("a", "b"), np.arange(40))


def test_seeds_that_differ_widen_the_interval():
    def of(values):
        tables = [_losses({"x": value}, 0) for value in values]
        return over_runs(tables, lambda s, w: tables[s].equal_weight("x", w))

    same, apart = of([3.0, 3.0, 3.0]), of([2.5, 3.0, 3.5])
    assert apart.value == pytest.approx(same.value)
    assert apart.high - apart.low > 10 * (same.high - same.low)


def test_released_gains_recompute_and_the_stated_large_run_is_another():
    assert released_ladder.gains().error.abs().max() < 0.001
    large = released_ladder.large_runs().fused
    distance = (large.iloc[1:] - large.iloc[0]).abs()
    assert distance.min() < 1e-3 < distance["2,000 steps, 4 frozen blocks"]


def test_the_released_fused_model_does_not_win_on_every_domain():
    found = released_ladder.against_monolithic().reset_index()
    assert len(found) == 2 * 3 * 4
    whole = found[found.domain == "all"]
    released = whole[(whole["size"] == "410M") & (whole.seed == 42)].advantage.item()
    assert released == pytest.approx(0.472, abs=0.001)
    assert (found[(found.domain == "fiction")].advantage < 0).all()


def test_released_exposure_adds_up_to_the_number_of_specialists():
    assert sum(released_ladder.relative_exposure().values()) == pytest.approx(3)


def test_the_figure_switches_what_its_menus_say(rungs):
    summary = scaling.summary(rungs)
    fig = figure_ladder.of_summary(summary)
    assert fig.data[0].name == "evidence"
    measures, sizes = fig.layout.updatemenus
    losses = summary.loc["evidence"].loss.to_list()
    assert measures.buttons[2].args[0]["y"][0] == pytest.approx(losses, abs=1e-4)
    spread = summary.loc["evidence"].loss_high - summary.loc["evidence"].loss
    assert measures.buttons[2].args[0]["error_y.array"][0] == pytest.approx(
        spread.to_list(), abs=1e-4
    )
    kept = summary.loc["wider"]["total_parameters"]
    place = list(dict.fromkeys(summary.index)).index("wider")
    assert sizes.buttons[1].args[0]["customdata"][place] == kept.to_list()


def test_a_figure_of_unequal_lengths_is_refused():
    series = [{"name": "a", "n": [1, 2], "g": [1.0], "g_low": [0.0], "g_high": [2.0]}]
    with pytest.raises(ValueError, match="must be equal"):
        figure_ladder.ladder(series, {"g": ("g", "gain")}, {"n": ("n", "size")})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ci", [2, 3, 1]), ("laptop", [2, 1, 3, 1]), ("pythia-1b", [2])],
)
def test_a_tier_trains_the_baselines_it_can_pay_for(name, expected, monkeypatch):
    monkeypatch.setattr(ladder, "_train", lambda rungs: None)
    found = ladder.climb(tiers.get(name), "builtin", ("code", "science", "fiction"), (42, 7))
    assert [len(rung.baselines) for rung in found] == expected
    assert all(b.cooperative.seed == 42 for rung in found for b in rung.baselines)


def test_an_advantage_is_a_share_of_the_rival_s_loss(rungs):
    kind = "monolithic_compute"
    rung = rungs[0]
    (table,) = rung.tables_with("evidence", kind)
    theirs, ours = (table.equal_weight(name) for name in (kind, "evidence"))
    assert scaling.advantage(rung, kind).value == pytest.approx(100 * (theirs - ours) / theirs)
    theirs, ours = (table.by_group(name)[1] for name in (kind, "evidence"))
    own = scaling.advantage(rung, kind, rung.domains[1]).value
    assert own == pytest.approx(100 * (theirs - ours) / theirs)
