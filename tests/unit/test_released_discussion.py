"""What the values of August 2026 say follows from them, and moves when they are changed."""

import numpy as np
import pytest

from kalavai_helpers import claims, discussion_rules, prediction, published
from kalavai_helpers import released_discussion as discussion
from kalavai_helpers import released_held_out as held_out

W2 = "{}/pythia-410m_step10000/{}/{}/s42/rebuttal_EW_over_the_named_domains"


def _with(**changed: float):
    """Reader of the record in which the ids that contain a key have another value."""

    def value(id: str) -> float:
        for part, number in changed.items():
            if part.replace("__", "/") in id:
                return number
        return published.value(id)

    return value


def test_losses_of_domains_are_solved_from_means_over_sets() -> None:
    losses = {"a": 1.0, "b": 2.0, "c": 4.0}
    sets = ["a+b", "b+c", "a+b+c", "a+c"]
    means = [np.mean([losses[d] for d in name.split("+")]) for name in sets]
    assert held_out.domain_losses(sets, means) == pytest.approx(losses)
    with pytest.raises(ValueError, match="do not determine"):
        held_out.domain_losses(["a+b", "a+b+c"], [1.0, 2.0])


@pytest.mark.parametrize("folder", [held_out.RETRIED, held_out.NOT_RETRIED])
def test_solved_base_is_the_released_one(folder: str) -> None:
    """Neither base nor own losses were released with the conditions; their mean was, elsewhere."""
    losses = held_out.losses(folder)
    base = published.value("rebuttal-w5/pythia-410m_step10000/base/loss_EW/s137/rebuttal_EW")
    assert losses["base"].mean() == pytest.approx(base, abs=1e-3)
    divergence = 100 * (losses["base"] - losses["own"]) / losses["base"]
    assert list(divergence) == pytest.approx(list(losses["divergence"]))
    assert list(losses.index) == list(held_out.DOMAINS)


@pytest.mark.parametrize("folder", [held_out.RETRIED, held_out.NOT_RETRIED])
def test_a_condition_is_told_from_the_five_others(folder: str) -> None:
    frame = held_out.held_out(folder)
    assert list(frame.index) == list(held_out.CONDITIONS)
    assert frame["net"].abs().max() < 0.01  # pp; routers that were fitted once
    value = _with(**{"code+welsh__moe_loss_EW": 2.0})
    other = held_out.held_out(folder, value)
    # Its own fused loss is not read for its oracle, that of a neighbour is.
    assert other.loc["code+welsh", "oracle"] == frame.loc["code+welsh", "oracle"]
    assert abs(other.loc["code+yoruba", "oracle"] - frame.loc["code+yoruba", "oracle"]) > 1


def test_gains_follow_from_each_other() -> None:
    """Gain over base and the best specialist's give the gain over that specialist."""
    frame = held_out.held_out()
    over = (frame["gain_over_base"] - frame["best_over_base"]) / (1 - frame["best_over_base"] / 100)
    assert list(over) == pytest.approx(list(frame["gain"]), abs=1e-3)
    for ids in frame["ids"]:
        assert all(published.row(id)["date"] == "2026-08-01" for id in ids)


def test_band_and_line_are_the_released_ones() -> None:
    frame = held_out.held_out()
    form = "rebuttal-w2-refit/all/held_out_{}/{}/s_na/95_band_of_the_8-point_fit"
    for name, row in frame.iterrows():
        assert row["line"] == pytest.approx(published.value(form.format(name, "pred")))
        assert row["in_band"] == bool(published.value(form.format(name, "in_band")))
        assert row["inside"] == (3.16 <= row["divergence"] <= 25.65)
    assert frame["low"].lt(frame["line"]).all()
    assert frame["line"].lt(frame["high"]).all()


def test_share_of_the_strongest_domain() -> None:
    losses = held_out.losses()
    parts = losses["base"] - losses["own"]
    share = held_out.held_out().loc["tamil+welsh", "strongest"]
    assert share == pytest.approx(parts["welsh"] / (parts["welsh"] + parts["tamil"]))


def test_foretellers_are_scored_on_conditions_left_out() -> None:
    frame = held_out.foretellers()
    points = held_out.held_out()
    law = prediction.fit(points[["divergence", "gain"]].astype(float))
    assert frame.loc["mean divergence", "left_out_error"] == pytest.approx(np.abs(law.loo).mean())
    assert frame.loc["oracle gain", "left_out_error"] < 0.02
    assert frame[["rank_correlation", "correlation"]].abs().le(1 + 1e-9).all(axis=None)


def test_fits_on_eight_six_and_fourteen() -> None:
    frame = held_out.fits()
    assert list(frame["n"]) == [8, 6, 14]
    released = "rebuttal-w2-refit/all/refit_all/{}/s_na/OLS"
    for column, name in {"slope": "slope", "intercept": "intercept", "R2": "r2"}.items():
        told = published.value(released.format(name))
        assert frame.loc["all fourteen", column] == pytest.approx(told)
    rms = published.value("rebuttal-w2-refit/all/held_out/rmse_pp/s_na/95_band_of_the_8-point_fit")
    assert frame.loc["the published eight", "rms"] == pytest.approx(rms)


def test_rivals_share_one_base() -> None:
    frame = discussion.rivals()
    assert frame.loc["base", "over_base"] == 0
    assert frame.loc["best single specialist", "over_best"] == 0
    assert (frame["over_base"].diff().gt(0) == frame["loss"].diff().lt(0)).all()
    derived = frame.loc["fused, fresh specialists (derived)"]
    assert derived["loss"] == pytest.approx(held_out.losses()["own"].mean())
    assert len(derived["ids"]) == 6


def test_seven_b_gives_the_released_equal_weight_losses() -> None:
    """Perplexities were rounded to one decimal: 0.01 nats of the mean."""
    frame = discussion.seven_b()
    for model in ("base", "moe"):
        told = published.value(f"rebuttal-w7/Qwen2.5-7B/eq/{model}/s42/rebuttal")
        assert np.log(frame[f"perplexity_{model}"]).mean() == pytest.approx(told, abs=0.01)
    assert frame["flores_moe"].isna().tolist() == [False, False, False, True]
    assert frame["belebele_base"].notna().tolist() == [True, True, False, False]


def test_sizes_say_gain_over_base_beside_gain_over_the_best_specialist() -> None:
    frame = discussion.sizes()
    told = published.value("rebuttal-w7/Qwen2.5-7B/all/fusion_gain_pct/s42/rebuttal")
    assert frame.loc["Qwen2.5-7B, text of August", "over_best"] == pytest.approx(told, abs=1e-3)
    over = (frame["over_base"] - frame["best_over_base"]) / (1 - frame["best_over_base"] / 100)
    assert list(over) == pytest.approx(list(frame["over_best"]))


def test_downstream_has_a_row_a_language_and_seed() -> None:
    frame = discussion.downstream()
    assert len(frame) == 9
    own = frame.set_index(["seed", "language"]).loc[(42, "yoruba")]
    name = "rebuttal-w1/pythia-410m_step10000/metrics_yoruba_spec_flores_yoruba/ppl/s42/rebuttal"
    assert own["flores_own"] == published.value(name)


def test_conversion_is_gain_over_divergence_by_size() -> None:
    frame = discussion.conversions()
    assert set(frame["size"]) == {"410M", "1B", "6.9B"}
    assert (frame["conversion"] * frame["divergence"]).tolist() == pytest.approx(
        list(frame["gain"])
    )
    assert {"410M, main run", "1B, main run", "6.9B, main run"} <= set(frame["name"])
    assert not frame["name"].str.contains("LoRA").any()


# Rules of the statements, on small numbers.


def _rule(text: str, **values: float) -> float:
    return claims.evaluate(text, values)[0].value


def test_rules_that_solve() -> None:
    losses = {"a": 1.0, "b": 2.0, "c": 4.0}
    values = {"ab": 1.5, "bc": 3.0, "ac": 2.5}
    sets = "@a+b,b+c,a+c; {}; ab, bc, ac"
    for name, loss in losses.items():
        assert _rule(f"solved({sets.format('@' + name)})", **values) == pytest.approx(loss)
    text = f"solved_base({sets.format('@a+b')}; d, d; e)"
    # Bases 1 / (1 - 0.5) and 2 / (1 - 0.2).
    assert _rule(text, **values, d=50.0, e=20.0) == pytest.approx((2 + 2.5) / 2)
    for loss, below in ((2.3, 0.0), (2.34, 1.0)):
        wanted = sets.format("@a+b+c")
        assert _rule(f"solved_below({wanted}; rival)", **values, rival=loss) == below
        assert _rule(f"solved_above({wanted}; rival)", **values, rival=loss) == 1 - below


def test_rules_of_accuracy() -> None:
    n = np.array([100.0])
    guess = np.array([0.25])
    assert discussion_rules.near_chance(np.array([0.33]), guess, n) == 1
    assert discussion_rules.near_chance(np.array([0.34]), guess, n) == 0
    assert discussion_rules.above_chance(np.array([0.34]), guess, n) == 1
    assert discussion_rules.above_chance(np.array([0.10]), guess, n) == 0
    a, b = np.array([0.30, 0.30]), np.array([0.20, 0.30])
    two = np.array([100.0, 100.0])
    assert discussion_rules.decided(a, b, two) == 0  # 0.10 of a standard error of 0.061
    assert discussion_rules.decided(a, b, 2 * two) == 1
    assert discussion_rules.undecided(a, b, 2 * two) == 0
    assert discussion_rules.decided_together(a, b, 4 * two) == 1
    assert discussion_rules.decided_together(a, b, 3 * two) == 0  # 0.05 of 0.0249 · 1.96 = 0.049


def test_rules_of_shares_and_factors() -> None:
    one = [np.array([x]) for x in (3.0, 2.0, 1.0)]
    assert discussion_rules.share(*one) == 0.5
    before, after = np.array([8.0, 8.0, 8.0]), np.array([1.0, 2.0, 4.0])
    assert discussion_rules.factors_within(before, after, np.array([2.0, 4.0])) == 2
    bits_before, bits_after = np.array([3.0, 3.0, 3.0]), np.array([0.0, 1.0, 2.0])
    limits = np.array([1.9, 4.1])  # 8 bits of 3 doublings: 8, 4 and 2 times
    assert discussion_rules.bit_factors_within(before, bits_before, bits_after, limits) == 2
    steps = [np.array([x]) for x in (1, 1, 3, 1, 2, 1)]
    assert discussion_rules.rising_steps(*steps) == 1
    assert discussion_rules.rest_within(
        np.array([1.0]), np.exp([1.0]), np.array([1.5]), np.exp([1.95]), np.array([10.0])
    )
    assert not discussion_rules.rest_within(
        np.array([1.0]), np.exp([1.0]), np.array([1.5]), np.exp([1.0]), np.array([10.0])
    )


def test_rules_of_the_line() -> None:
    record = claims.record()
    points = prediction.points("n8")
    x, y = points["divergence"].to_numpy(), points["gain"].to_numpy()
    law = prediction.fit(points)
    low, high = law.prediction_interval(30.0)
    at = np.full(3, 30.0)
    gains = np.array([low - 1, law.predict(30), high + 1])
    assert discussion_rules.law_in_band("n8", at, gains, record=record) == 1
    assert discussion_rules.law_none_above("n8", at, gains, record=record) == 0
    assert discussion_rules.law_none_above("n8", at[:2], gains[:2], record=record) == 1
    assert discussion_rules.law_rms("n8", at[1:2], gains[1:2] + 2, record=record) == pytest.approx(
        2
    )
    twice = discussion_rules.law_refit("n8", "slope", x, y, record=record)
    assert twice == pytest.approx(law.slope)
    bounds = [
        discussion_rules.law_slope_bound("n8", side, record=record) for side in ("low", "high")
    ]
    assert np.mean(bounds) == pytest.approx(law.slope)
    from scipy import stats

    error = stats.linregress(x, y).stderr
    assert np.diff(bounds)[0] == pytest.approx(2 * stats.t.ppf(0.975, 6) * error)
