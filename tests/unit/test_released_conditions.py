"""Released gains outside the published fit: none is a fitted point, each has a divergence."""

import numpy as np
import pytest

from kalavai_helpers import prediction, published, released_conditions


@pytest.fixture(scope="module")
def unused():
    return released_conditions.unused()


def test_no_condition_is_one_the_line_was_fitted_on(unused):
    fitted = prediction.points("n6, 6.9B at 8.73")
    for point in fitted.itertuples():
        same = np.isclose(unused["divergence"], point.divergence, atol=0.02)
        same &= np.isclose(unused["gain"], point.gain, atol=0.02)
        assert not same.any(), point.name
    assert unused["name"].is_unique
    assert len(unused) >= 50
    assert unused[["divergence", "gain", "law", "error"]].notna().all(axis=None)


def test_durations_have_the_divergences_of_their_domain_losses(unused):
    rows = unused[(unused.family == "duration") & unused.name.str.contains(" 0 frozen")]
    assert list(rows.divergence.round(1)) == [9.0, 11.7, 15.0, 17.0, 16.0, 14.0]
    assert set(rows.how) == {released_conditions.LOSSES}


def test_errors_are_those_of_the_published_line_and_lora_lies_outside_its_range(unused):
    slope = published.value("regression-n6/all/n6_6.9B_8.73_6.53/slope/s_na/OLS")
    intercept = published.value("regression-n6/all/n6_6.9B_8.73_6.53/intercept/s_na/OLS")
    law = slope * unused.divergence + intercept
    assert unused.error.to_numpy() == pytest.approx((law - unused.gain).to_numpy())
    assert not unused.inside[unused.family == "LoRA"].any()
    assert unused.inside.mean() > 0.8


def test_a_gain_from_losses_is_the_one_its_matrix_gives(unused):
    row = unused[unused.family == "6.9B maturity"].iloc[0]
    assert 4 < row.gain < 7
    assert row.divergence == pytest.approx(7.5, abs=0.1)


def test_conditions_that_share_specialists_are_resampled_together(unused):
    trained = unused.groupby("name")["trained"].first()
    assert trained["18 contributors, seed 42"] == trained["20 contributors, seed 137"]
    assert trained["five domains, seed 42"] == trained["2-domain subset, mean of seeds"]
    assert trained["410M, 2 frozen, seed 42"] != trained["410M, 6 frozen, seed 42"]
    assert trained["410M, 0 frozen, seed 42"] == trained["410M, 0 frozen, seed 137"]
