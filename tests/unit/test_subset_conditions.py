"""Published cooperatives are measured on the same documents, and asked as they were published."""

import numpy as np
import pytest
import study
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kalavai_helpers import (
    evaluation,
    gain_rules,
    parallel,
    prediction,
    published,
    subset_conditions,
    subsets,
)
from kalavai_helpers.released_cooperatives import AUGUST, FITTED
from kalavai_helpers.subset_conditions import SIX, Conditions

DOMAINS = ("tamil", "code", "yoruba", "legal", "welsh", "medical", "patent")
SETS = {**subsets.NAMED, **SIX, "twenty": DOMAINS}


@pytest.fixture(autouse=True)
def _no_worker_processes(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def ledger():
    return study.noisy_ledger(DOMAINS)


@pytest.fixture(scope="module")
def measured(ledger):
    return subset_conditions.measure(ledger, SETS)


def test_each_is_the_cooperative_that_it_is_by_itself(ledger, measured):
    for name, domains in SETS.items():
        expected = subsets.cooperative(ledger, domains)
        for measure in ("gain", "divergence", "oracle"):
            found = measured.each(measure)[name]
            alone = expected[measure]
            assert found.value == pytest.approx(alone.value, abs=1e-9), (name, measure)
            assert (found.over, found.units) == ("sources", alone.units)
            # The same bootstrap of other draws: about as wide, about the same value.
            width = alone.high - alone.low
            assert (found.high - found.low) / width == pytest.approx(1, abs=0.25)
            assert found.low == pytest.approx(alone.low, abs=0.3 * width)


def test_how_far_above_a_line_moves_with_gain_and_divergence_together(ledger, measured):
    one = measured.of(["private"])
    flat = gain_rules.Plane("", ("divergence",), (0.0,), 2.0)
    gain = measured.each("gain")["private"]
    found = subset_conditions.above_line(one, flat)
    assert found.row() == pytest.approx({key: x - 2 for key, x in gain.row().items()})
    law = prediction.fit(prediction.points("n8"))
    divergence = one.value["divergence"][0]
    steep = subset_conditions.above_line(one, law)
    assert steep.value == pytest.approx(gain.value - law.predict(divergence))
    drawn = one.drawn["gain"][:, 0] - law.predict(one.drawn["divergence"][:, 0])
    assert (steep.low, steep.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


@given(st.lists(st.integers(-1000, 1000), min_size=6, max_size=6, unique=True), st.randoms())
def test_rank_correlation_is_spearmans(values, random):
    others = random.sample(range(1000), 6)
    found = subset_conditions.rank_correlation(np.array([values, others]), np.array(others))
    expected = stats.spearmanr(values, others).statistic
    assert list(found) == pytest.approx([expected, 1])


def test_the_line_is_asked_as_its_authors_asked_it(measured):
    """With the released divergences and gains in place of measured ones, their answers come out."""
    form = "rebuttal-w2/pythia-410m_step10000/{}/{}/s42/rebuttal_EW_over_the_named_domains"

    def of(what):
        return np.array([published.value(form.format(name, what)) for name in SIX])

    value = {"gain": of("improvement_vs_spec"), "divergence": of("mean_divergence")}
    value["oracle"] = value["gain"] + 0.5
    drawn = {key: np.tile(values, (10, 1)) for key, values in value.items()}
    found = subset_conditions.tested_line(Conditions(SIX, value, drawn, measured.table))
    said = "rebuttal-w2-refit/all/held_out/{}/s_na/95_band_of_the_8-point_fit"
    assert found["in_band"].value == published.value(said.format("in_band"))
    assert found["line_rms"].value == pytest.approx(
        published.value(said.format("rmse_pp")), abs=0.05
    )
    assert found["above_band"].value < 0
    assert found["rank_released"].value == 1
    assert found["rank_divergence"].value == pytest.approx(
        stats.spearmanr(value["divergence"], value["gain"]).statistic
    )
    assert found["net"].value == pytest.approx(0.5)
    low = {**value, "gain": value["gain"] + 100}
    above = subset_conditions.tested_line(Conditions(SIX, low, drawn, measured.table))
    assert above["above_band"].value > 0
    assert above["in_band"].value == 0


def test_a_specialist_covers_another_domain_where_it_is_no_worse_than_the_base(ledger, measured):
    table = evaluation.losses(ledger).matrix()
    expected = [
        100 * (table.loc["base", "code"] - table.loc[name, "code"]) / table.loc["base", "code"]
        for name in ("welsh", "yoruba")
    ]
    found = subset_conditions.covered(measured.of([*SIX]), ("welsh", "yoruba"), "code")
    assert found.value == pytest.approx(min(expected))
    assert found.low < found.value < found.high
    assert found.units == 2


def test_every_condition_has_its_numbers_and_the_six_stand_beside_the_release(measured):
    printed = gain_rules.Plane("", ("divergence",), (0.82,), -2.72)
    found = subset_conditions.numbers(measured, printed)
    assert found["private_gain"][0].value == pytest.approx(measured.value["gain"][0])
    assert found["twenty_above_line"][0].units == 2 * len(DOMAINS)
    assert found["cross_lingual_above_line"][0].units == 8
    assert {"six_here_in_band", "six_here_line_rms", "languages_on_code"} <= set(found)
    table = subset_conditions.beside(measured.of([*SIX]))
    assert list(table.index) == [*SIX]
    law = prediction.fit(prediction.points("n8"))
    row = table.loc["code+welsh"]
    assert row["line − gain, here"] == pytest.approx(
        law.predict(row["divergence, here"]) - row["gain, here"]
    )
    assert row["from"] < row["gain, here"] < row["to"]


def test_the_released_are_the_eight_and_the_six():
    found = subset_conditions.released()
    assert list(found["kind"].value_counts().loc[[FITTED, AUGUST]]) == [8, 6]
    points = prediction.points("n8").set_index("name")
    assert found.loc["1B", "gain"] == pytest.approx(points.loc["Pythia-1B", "gain"], abs=0.05)
    assert list(found.index[-6:]) == [*SIX]


def test_several_seeds_are_one_number_and_a_seed_alone_is_the_cooperative(ledger):
    private = subsets.NAMED["private"]
    part = ledger.restrict(private)
    alone = subset_conditions.of_seeds([part])
    expected = subsets.cooperative(ledger, private)
    other = study.noisy_ledger(DOMAINS, seed=0).restrict(private)
    shifted = other.log_probs.clone()
    shifted[:, 1:] -= 0.2
    worse = type(other)(**{**vars(other), "log_probs": shifted})
    both = subset_conditions.of_seeds([part, worse])
    second = subset_conditions.of_seeds([worse])
    for name in ("gain", "divergence"):
        assert alone[name].value == pytest.approx(expected[name].value)
        assert both[name].value == pytest.approx((alone[name].value + second[name].value) / 2)
    assert both["gain"].over == "sources and 2 seeds"
