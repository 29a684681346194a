"""The published line can be refitted, and exact accounting explains every released gain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalavai_helpers import prediction, published

losses = st.floats(0.5, 6)


@pytest.mark.parametrize(
    ("version", "ids"),
    [
        ("n6, 6.9B at 8.73", "regression-n6/all/n6_6.9B_8.73_6.53/{}/s_na/OLS"),
        ("n6, first version", "regression-n6/all/n6_first_version_6.9B_8.29_5.81/{}/s_na/OLS"),
        ("n8", "regression-n8/all/linear/{}/s_na/OLS"),
    ],
)
def test_released_coefficients_are_recomputed(version: str, ids: str) -> None:
    law = prediction.fit(prediction.points(version))
    for name in ("slope", "intercept", "r2"):
        assert getattr(law, name) == pytest.approx(published.value(ids.format(name)), abs=1e-9)


def test_leaving_out_a_point_gives_the_residuals_of_refits() -> None:
    points = prediction.points("n6, 6.9B at 8.73")
    law = prediction.fit(points)
    for row, residual in zip(points.index, law.loo, strict=True):
        line = prediction.fit(points.drop(index=row))
        left_out = points.loc[row]
        assert residual == pytest.approx(left_out["gain"] - line.predict(left_out["divergence"]))
    assert law.q2 < law.r2, "points left out cannot be predicted better than points fitted"


def test_released_leave_one_out_follows_from_the_gains_it_names() -> None:
    """That analysis took other gains than the fit (7.70 for 410M, 21.87 for cross-lingual)."""
    points = prediction.points("n6, 6.9B at 8.73")
    names = ["Qwen-1.5B", "Pythia-6.9B", "Pythia-1B", "Pythia-410M", "Exp2_private"]
    form = "regression-LOO/all/loo_primary_leave_out_{}/{}/s_na/LOO_OLS"
    residuals = []
    for row, name in enumerate([*names, "Exp1_cross-lingual"]):
        residuals.append(published.value(form.format(name, "residual_pct")))
        predicted = published.value(form.format(name, "gain_predicted_pct"))
        points.loc[row, "gain"] = predicted + residuals[-1]
    assert prediction.fit(points).loo == pytest.approx(residuals, abs=1e-3)


def test_prediction_interval_covers_new_points_as_often_as_it_says() -> None:
    import pandas as pd

    random = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        x = random.uniform(0, 25, 7)
        y = 0.8 * x - 2 + random.normal(0, 3, 7)
        law = prediction.fit(pd.DataFrame({"divergence": x[:6], "gain": y[:6]}))
        low, high = law.prediction_interval(x[6], 0.8)
        hits += low <= y[6] <= high
    assert 760 < hits < 840


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(ValueError, match="n17"):
        prediction.points("n17")
    with pytest.raises(ValueError, match="three points"):
        prediction.fit(prediction.points("n8").head(2))


@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=6), losses)
def test_accounting_is_an_identity(pairs: list[tuple[float, float]], best: float) -> None:
    own, fused = map(list, zip(*pairs, strict=True))
    parts = prediction.account(own, best, fused)
    assert parts["gain"] == pytest.approx(100 * (best - np.mean(fused)) / best, abs=1e-9)
    assert parts["gain"] == pytest.approx(parts["oracle"] - parts["above_oracle"], abs=1e-9)
    whole = prediction.account(own, best, float(np.mean(fused)))
    assert whole["gain"] == pytest.approx(parts["gain"], abs=1e-9)


def test_accounting_reproduces_every_released_corrected_gain() -> None:
    frame = prediction.accounting()
    assert len(frame) >= 40
    assert (frame["losses"] == "matrix").sum() >= 20
    assert frame["error"].abs().max() <= 0.35
    assert frame["released_id"].is_unique


def test_the_domain_oracle_is_the_gain_unless_the_router_fails() -> None:
    frame = prediction.accounting().set_index("name")
    fine = frame.drop(index=["cross-lingual, seed 42", "410M, uniform router"])
    fine = fine[~fine.index.str.startswith("LoRA")]  # worse than base at home: no oracle to match
    assert (fine["oracle"] - fine["released"]).abs().max() <= 0.35


def test_a_collapsed_router_stays_above_the_oracle() -> None:
    frame = prediction.accounting().set_index("name")
    collapsed, sound = (frame.loc[f"cross-lingual, seed {seed}"] for seed in (42, 137))
    assert collapsed["above_oracle"] > 15
    assert sound["above_oracle"] < 0.05
    assert collapsed["oracle"] == pytest.approx(sound["oracle"], abs=0.35), "specialists were fine"


def test_a_changed_loss_shows_as_an_error() -> None:
    record = dict(zip(*published.load()[["id", "value"]].to_numpy().T, strict=True))
    record["main-410M/pythia-410m_step10000/model_moe/loss_fiction/s42/corr"] += 0.1
    frame = prediction.accounting(record).set_index("name")
    assert abs(frame.loc["410M, seed 42", "error"]) > 1


def test_a_new_gain_has_students_interval_with_two_parameters_fitted() -> None:
    from scipy import stats

    points = prediction.points("n6, 6.9B at 8.73")
    x, y = points["divergence"].to_numpy(), points["gain"].to_numpy()
    line = stats.linregress(x, y)
    error = np.sqrt(((y - line.slope * x - line.intercept) ** 2).sum() / (len(x) - 2))
    spread = error * np.sqrt(1 + 1 / len(x) + (12.0 - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, len(x) - 2) * spread
    low, high = prediction.fit(points).prediction_interval(12.0)
    assert (high - low) / 2 == pytest.approx(reach)
    assert (high + low) / 2 == pytest.approx(line.slope * 12 + line.intercept)
