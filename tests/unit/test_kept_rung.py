"""A rung from a recorded ledger is measured as the rungs of the ladder are."""

import numpy as np
import pytest

from kalavai_helpers import evaluation, kept_rung, released_ladder, scaling, tiers


@pytest.fixture(scope="module")
def rung(kept_all):
    return kept_rung.of(kept_all[0])


def gain(run, method):
    """Gain of one seed, from the losses as the release tells them."""
    losses = run.losses()
    alone = [losses.equal_weight(d) for d in run.domains]
    return 100 * (1 - float(losses.equal_weight(method)) / min(alone))


def test_parameters_are_those_of_the_base():
    tier = tiers.get(tiers.PRETRAINED)
    width, heads, key_heads, inner = tier.hidden_size, tier.n_heads, 3, 1536
    attention = 2 * width**2 + 2 * width * (width // heads) * key_heads
    block = attention + 3 * width * inner + 2 * width
    assert tier.vocab_size * width + tier.n_layers * block + width == kept_rung.PARAMETERS


def test_measures_are_means_over_the_seeds_that_were_recorded(rung):
    assert [team.seed for team in rung.cooperatives] == [42, 137, 2026]
    found = {name: estimate.value for name, (estimate, _) in kept_rung.measures(rung).items()}
    each = [gain(run, "evidence") for run in rung.runs]
    assert found["gain_largest"] == pytest.approx(np.mean(each))
    assert found["gain_lowest"] == pytest.approx(np.mean(each)), "one size is the lowest of all"
    assert scaling.spread(rung) == pytest.approx(np.std(each, ddof=1))
    assert found["pooled_largest"] == pytest.approx(np.mean([gain(r, "pooled") for r in rung.runs]))
    published = np.mean([gain(run, "uniform, logits") for run in rung.runs])
    assert found["uniform_logits_largest"] == pytest.approx(published)
    assert found["uniform_largest"] != pytest.approx(published)
    moved = [
        np.mean([evaluation.divergence_pct(run.losses(), d).value for d in run.domains])
        for run in rung.runs
    ]
    assert found["divergence_largest"] == pytest.approx(np.mean(moved))
    shares = np.array(each) / moved
    assert found["conversion_largest"] == pytest.approx(shares.mean())
    own = scaling.divergences([rung])
    assert own["mean"].iloc[0] == pytest.approx(found["divergence_largest"])


def test_intervals_are_over_sources_and_seeds(rung):
    for name, (estimate, _) in kept_rung.measures(rung).items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.over == "sources and 3 seeds"
        assert estimate.units == sum(rung.tables[0].units().values())


def test_gains_are_accounted_for_exactly(rung):
    terms = kept_rung.accounting(rung)
    assert list(terms.index) == list(kept_rung.ROUTERS)
    assert terms.residual.max() < 1e-9
    # Made-up logit mixtures need not obey Jensen's inequality.
    assert (terms.bonus[["evidence", "linear", "prefix-mean", "uniform"]] > 0).all()
    summed = terms.oracle - terms.regret + terms.bonus
    assert summed.to_numpy() == pytest.approx(terms.gain.to_numpy())
    assert terms.gain["evidence"] == pytest.approx(
        kept_rung.measures(rung)["gain_largest"][0].value
    )


def test_released_rungs_stand_below_with_their_range_over_seeds(rung):
    frame = kept_rung.beside_released(rung)
    released = released_ladder.gains()
    row = frame.loc["410M: published"]
    assert row.gain == pytest.approx(released.gain["410M"].mean())
    assert row.gain_low == released.gain["410M"].min()
    assert row.per_divergence == pytest.approx(row.gain / row.divergence)
    assert len(frame) == 6
    assert (frame.oracle - frame.above_oracle).to_numpy() == pytest.approx(frame.gain.to_numpy())


def test_the_table_of_methods_has_the_best_first(rung):
    frame = kept_rung.summary(rung)
    assert frame.loss.is_monotonic_increasing
    assert {"weight_average", "domain_oracle"} <= set(frame.index)


def test_one_seed_has_no_spread(rung):
    with pytest.raises(ValueError, match="at least two"):
        scaling.spread(kept_rung.KeptRung(rung.runs[:1]))
