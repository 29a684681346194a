"""Released cooperatives are described by the released losses, and no further."""

import pytest

from kalavai_helpers import gain_rules, prediction, published, released_cooperatives
from kalavai_helpers import released_held_out as held_out


@pytest.fixture(scope="module")
def released():
    return released_cooperatives.cooperatives()


def test_the_fitted_eight_and_the_six_of_august_are_there(released):
    fitted = released[released["kind"] == released_cooperatives.FITTED]
    assert fitted["trained"].nunique() == len(prediction.points("n8"))
    points = prediction.points("n8").set_index("name")
    means = fitted.groupby("trained")[["divergence", "gain"]].mean()
    names = {"410M": "Pythia-410M", "cross-lingual": "Exp1_Cross-lingual", "P2": "P2_4-domain",
             "private": "Exp2_Private", "Qwen-1.5B": "Qwen-1.5B"}  # fmt: skip
    for name, point in names.items():
        assert means.loc[name, "divergence"] == pytest.approx(
            points.loc[point, "divergence"], abs=0.1
        )
        assert means.loc[name, "gain"] == pytest.approx(points.loc[point, "gain"], abs=0.1)
    august = released[released["kind"] == released_cooperatives.AUGUST]
    assert list(august.index) == list(held_out.CONDITIONS)
    six = held_out.held_out()
    for name in ("divergence", "gain", "oracle"):
        assert august[name].to_numpy(float) == pytest.approx(six[name].to_numpy(float), abs=0.02)


def test_oracles_are_those_of_the_accounting(released):
    exact = prediction.accounting().set_index("name")
    both = exact.index.intersection(released.index)
    assert len(both) > 25
    assert released.loc[both, "oracle"].to_numpy() == pytest.approx(exact.loc[both, "oracle"])
    assert released.index.is_unique


def test_what_was_not_released_is_not_known(released):
    assert released.loc["P2, seed 42", ["base", "at_home", "oracle", "net"]].isna().all()
    assert (
        released.loc["20 contributors, seed 42", "transfer"]
        != released.loc["20 contributors, seed 42", "transfer"]
    )
    matrix = published.loss_matrix("main-410M", 42)
    base, losses = matrix.loc["base"].to_numpy(), matrix.iloc[1:4].to_numpy()
    known = gain_rules.of_matrix(base, losses)
    assert released.loc["410M, seed 42", [*known]].to_dict() == pytest.approx(known)
