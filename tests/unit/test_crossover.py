"""Where a deeper freeze overtakes: found where it is, not found where it is not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalavai_helpers import crossover, durations, figure_views, gain_curves, released_durations
from kalavai_helpers.durations import Condition, Outcome
from kalavai_helpers.losses import Losses

STEPS = (3, 10, 30, 100, 300)
DOMAINS = ("a", "b")
finite = st.floats(-5, 5).filter(lambda x: abs(x) > 1e-6)


def outcomes(lead, noise=0.0, seeds=(42,), documents=40, best=(2.0, 2.0)):
    """Depths 0 and 2 whose fused losses differ by ``lead(steps)`` nats; ``best`` by depth."""
    rng = np.random.default_rng(1)
    tokens, group = np.full(documents, 100.0), np.arange(documents) % 2
    common = rng.normal(0, 0.3, documents)  # documents are hard or easy for everyone
    found = {}
    for seed in seeds:
        for steps in STEPS:
            for depth in (0, 2):
                own = rng.normal(0, noise, documents)
                fused = 1.5 - (lead(steps) if depth else 0.0) + common + own
                level = best[bool(depth)]
                per_token = {
                    "base": 2.5 + common,
                    "a": level + common,
                    "b": level + 0.1 + common,
                    "domain_oracle": fused,
                    "evidence": fused,
                }
                sums = {name: loss * tokens for name, loss in per_token.items()}
                table = Losses(sums, tokens, group, DOMAINS, np.arange(documents))
                found[Condition(steps, depth, seed)] = Outcome(table, {})
    return found


def crossing_at(where):
    return lambda steps: 0.05 * math.log(steps / where)


@given(st.floats(3.1, 299))
def test_a_line_in_log_duration_is_located_where_it_crosses(where):
    found = crossover.locate(STEPS, np.log(np.array(STEPS) / where))
    assert found == pytest.approx(where, rel=1e-9)


@given(st.lists(finite, min_size=5, max_size=5))
def test_a_crossover_lies_where_the_sign_changes_for_the_last_time(values):
    found = float(crossover.locate(STEPS, np.array(values)))
    ahead = [v > 0 for v in values]
    if not ahead[-1]:
        assert found == math.inf
    elif all(ahead):
        assert found == 0
    else:
        last = max(i for i, a in enumerate(ahead) if not a)
        assert STEPS[last] <= found <= STEPS[last + 1]


@given(st.lists(finite, min_size=5, max_size=5), st.floats(0.1, 10))
def test_the_unit_of_the_gain_does_not_move_the_crossover(values, scale):
    once, again = (crossover.locate(STEPS, np.array(values) * factor) for factor in (1.0, scale))
    assert again == pytest.approx(once)


def test_resamples_are_located_one_by_one():
    values = np.random.default_rng(0).normal(size=(50, 5))
    together = crossover.locate(STEPS, values)
    np.testing.assert_array_equal(together, [crossover.locate(STEPS, row) for row in values])


@pytest.mark.parametrize("denominator", gain_curves.DENOMINATORS)
@pytest.mark.parametrize("where", [5.0, 60.0, 250.0])
def test_the_interval_holds_the_true_crossover(denominator, where):
    found = crossover.crossover(outcomes(crossing_at(where), noise=0.02), 2, denominator)
    assert found.found
    assert found.low <= where <= found.high
    assert found.low < found.steps < found.high


def test_more_noise_gives_a_wider_interval_and_less_certainty():
    quiet, loud = (
        crossover.crossover(outcomes(crossing_at(60), noise=n), 2, "base") for n in (0.01, 0.6)
    )
    assert quiet.high / quiet.low < loud.high / loud.low
    assert quiet.missing == 0.0 < loud.missing < 1.0


@pytest.mark.parametrize(("lead", "steps"), [(-0.1, math.inf), (0.1, 0.0)])
def test_no_crossover_is_said_in_words(lead, steps):
    found = crossover.crossover(outcomes(lambda _: lead, noise=0.02), 2, "base")
    assert not found.found
    assert (found.steps, found.missing) == (steps, 1.0)
    assert "none found at this tier" in found.text()


def test_a_worse_best_specialist_alone_can_make_the_deeper_freeze_overtake():
    # The fused loss with freezing is the worse one at every duration.
    runs = outcomes(lambda _: -0.01, best=(2.0, 2.2))
    by_best, by_base = (crossover.crossover(runs, 2, name) for name in gain_curves.DENOMINATORS)
    assert by_best.steps == 0  # ahead everywhere
    assert by_base.steps == math.inf  # and nowhere
    apart = crossover.ratio(runs, 2)
    assert apart.value == pytest.approx(math.log2(STEPS[-1] / STEPS[0]))
    assert apart.low > 0


def test_denominators_agree_when_the_reference_is_the_same_model():
    runs = outcomes(crossing_at(60), noise=0.02)
    by_best, by_base = (crossover.crossover(runs, 2, name) for name in gain_curves.DENOMINATORS)
    apart = crossover.ratio(runs, 2)
    assert by_best.found
    assert by_base.found
    assert apart.low <= 0 <= apart.high


def test_seeds_that_disagree_widen_the_interval():
    one = outcomes(crossing_at(20), noise=0.01, seeds=(1,))
    other = outcomes(crossing_at(150), noise=0.01, seeds=(2,))
    alone = crossover.crossover(one, 2, "base")
    both = crossover.crossover(one | other, 2, "base")
    assert alone.steps < both.steps
    assert both.high / both.low > 2 * alone.high / alone.low


def test_a_peak_at_an_end_of_the_grid_is_no_hump():
    rising = outcomes(lambda s: 0.1 * math.log(s), noise=0.001)
    assert crossover.peak(rising, 2, "base") == 300
    flat = crossover.hump(rising, 2, "base")
    assert (flat.value, flat.low, flat.high) == (0.0, 0.0, 0.0)
    hill = outcomes(lambda s: -0.1 * abs(math.log(s / 30)), noise=0.001)
    assert crossover.peak(hill, 2, "base") == 30
    found = crossover.hump(hill, 2, "base")
    assert 0 < found.low <= found.value <= found.high


def test_an_unknown_denominator_is_refused_with_the_valid_ones():
    table = next(iter(outcomes(lambda _: 0.0).values())).losses
    with pytest.raises(ValueError, match="best specialist or base"):
        gain_curves.gain(table, "monolithic")


def test_released_losses_give_both_published_crossovers():
    runs = released_durations.crossover()
    leads = {
        name: released_durations.leads_from(*released_durations.difference(runs, name))
        for name in ("over_spec", "over_base")
    }
    assert leads == {"over_spec": 5000, "over_base": 10000}


def test_the_early_win_of_freezing_is_the_router_not_the_specialists():
    runs = released_durations.crossover().set_index(["depth", "steps"])
    free, frozen = runs.loc[(0, 1000)], runs.loc[(4, 1000)]
    assert free.over_spec < frozen.over_spec
    assert free.repaired_over_spec > frozen.repaired_over_spec
    # The first router on the same checkpoints reached what the repair gives.
    assert free.repaired == pytest.approx(free.fused_first, abs=1e-4)


def test_the_released_freeze_sweep_recomputes():
    sweep = released_durations.freeze_sweep()
    np.testing.assert_allclose(sweep.over_spec, sweep.published, atol=1e-3)


def test_durations_span_two_orders_of_magnitude_at_every_tier():
    from kalavai_helpers import tiers

    for name in tiers.NAMES:
        chosen = durations.plan(tiers.get(name).sweep(), 42)
        assert chosen.steps[-1] / chosen.steps[0] >= 100
        assert len(chosen.depths) >= 3
        assert chosen.depths[0] == 0
        assert chosen.sweep_steps in chosen.steps


def test_the_grid_is_trained_scored_and_accounted_once(tiny, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no worker processes: models are tiny
    chosen = durations.Plan((2, 4), (0, 1), (0, 1), 4, (42,), 2000)
    grid = durations.cooperatives(tiny.tier, tiny.corpora, tiny.domains, chosen)
    assert {c.base_key for c in grid.values()} == {tiny.base_key}
    first = durations.measure(grid)
    table = gain_curves.frame(first)
    assert len(table) == 4
    assert table.residual.max() < 1e-9
    one = table.iloc[0]
    direct = 100 * (one.best - one.fused) / one.best
    assert one.gain_pct == pytest.approx(direct)
    assert one.over_spec == pytest.approx(direct)

    monkeypatch.setattr(durations, "_score", None)  # a warm run scores nothing
    again = durations.measure({replace(c): coop for c, coop in grid.items()})
    for condition, outcome in first.items():
        np.testing.assert_array_equal(
            outcome.losses.sums["evidence"], again[condition].losses.sums["evidence"]
        )
        kept = again[condition].accounting["gain_pct"]
        assert (kept.over, kept.units) == ("sources", sum(outcome.losses.units().values()))


def test_tables_of_gains_and_leads_agree_with_the_losses():
    runs = outcomes(crossing_at(60), noise=0.02, seeds=(1, 2))
    gains, leads = gain_curves.gains(runs, (0, 2)), gain_curves.leads(runs, (2,))
    assert (gains.seeds == 2).all()
    assert (gains.low <= gains.value).all()
    assert (gains.value <= gains.high).all()
    by = gains.set_index(["denominator", "depth", "steps"]).value
    for row in leads.itertuples():
        apart = by[row.denominator, 2, row.steps] - by[row.denominator, 0, row.steps]
        assert row.value == pytest.approx(apart)


def test_views_show_one_figure_at_a_time_and_keep_all_lines():
    runs = gain_curves.gains(outcomes(crossing_at(60)), (0, 2))
    one, two = (
        figure_views.log_curves(figure_views.by_depth(part), "steps", "%")
        for part in (runs, runs[runs.depth == 0])
    )
    fig = figure_views.views({"this run": one, "published": two})
    assert len(fig.data) == len(one.data) + len(two.data)
    assert [trace.visible is not False for trace in fig.data] == [
        *[True] * len(one.data),
        *[False] * len(two.data),
    ]
    shown = [button.args[0]["visible"] for button in fig.layout.updatemenus[0].buttons]
    assert np.array(shown).sum(0).tolist() == [1] * len(fig.data)
    with pytest.raises(ValueError, match="same panels"):
        figure_views.views({"a": one, "b": figure_views.log_curves([_line()], "x", "y")})


def _line():
    return {"name": "a", "x": [1, 2], "y": [1, 2]}


def test_own_foreign_and_divergence_are_means_of_the_cells_of_the_loss_matrix():
    cells = {"base": (2.0, 5.0, 4.0), "a": (1.0, 7.0, 6.0), "b": (3.0, 4.0, 8.0), "c": (4, 9, 2.0)}
    sums = {name: np.array(row, float) for name, row in cells.items()}
    table = Losses(sums, np.ones(3), np.arange(3), ("a", "b", "c"), np.arange(3))
    assert durations.own_loss(table) == pytest.approx((1 + 4 + 2) / 3)
    assert durations.foreign_loss(table) == pytest.approx((7 + 6 + 3 + 8 + 4 + 9) / 6)
    assert durations.divergence(table) == pytest.approx(100 * (1 / 2 + 1 / 5 + 2 / 4) / 3)
