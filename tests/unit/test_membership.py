"""Joining, leaving and the worth of a contributor, read off a ledger."""

from dataclasses import replace

import numpy as np
import pytest
import study
import torch

from kalavai_helpers import evaluation, ledger, membership, routing


@pytest.fixture(scope="module")
def found(tiny):
    return ledger.build(tiny)


def fused_loss(found, experts):
    part = replace(found, experts=experts)
    log_probs = evaluation.route(part, {"r": routing.EvidenceRouter()})["r"].log_probs
    return float(evaluation.losses(part, {"r": log_probs}).equal_weight("r"))


def test_who_left_might_never_have_joined(found):
    two = replace(found, experts=("blue", "green"))
    joined, _ = membership.join(
        replace(two, models=("base", "blue", "green"), log_probs=found.log_probs[:, :3]),
        "red",
        found.column("red"),
    )
    assert joined.experts == ("blue", "green", "red")
    left = membership.leave(joined, "red")
    routers = {"r": routing.EvidenceRouter()}
    before, after = (evaluation.route(x, routers)["r"] for x in (two, left))
    assert torch.equal(before.log_probs, after.log_probs)
    assert torch.equal(before.gates, after.gates)


def test_the_certificate_is_the_change_of_the_fused_loss_on_every_old_domain(found):
    two = replace(found, experts=("blue", "green"))
    renamed = tuple("other" if m == "red" else m for m in found.models)
    _, certificate = membership.join(replace(two, models=renamed), "red", found.column("red"))
    assert set(certificate.change) == {*found.groups, "all"}
    change = fused_loss(found, found.experts) - fused_loss(found, two.experts)
    assert certificate.change["all"].value == pytest.approx(change, abs=1e-9)
    assert certificate.change["red"].high < 0  # its own domain
    worst = max(estimate.high for estimate in certificate.change.values())
    assert certificate.harmless(worst)
    assert not certificate.harmless(worst - 1e-6)


@pytest.mark.parametrize(
    ("name", "scores", "complaint"),
    [
        ("blue", lambda n: torch.zeros(n), "already"),
        ("new", lambda n: torch.zeros(n - 1), "for each of the"),
        ("new", lambda n: torch.full((n,), float("nan")), "finite"),
    ],
)
def test_who_cannot_join_is_told_why(found, name, scores, complaint):
    with pytest.raises(ValueError, match=complaint):
        membership.join(found, name, scores(len(found)))


def test_an_unknown_expert_or_the_last_one_cannot_leave(found):
    with pytest.raises(ValueError, match="blue, green, red"):
        membership.leave(found, "pink")
    with pytest.raises(ValueError, match="cannot leave"):
        membership.leave(replace(found, experts=("blue",)), "blue")


def test_shapley_values_add_up_to_what_everybody_saves(found):
    worth = membership.worth(found)
    everybody = fused_loss(found, ("base", *found.experts))
    saved = evaluation.losses(found).equal_weight("base") - everybody
    assert sum(w.shapley.value for w in worth.values()) == pytest.approx(saved, abs=1e-9)
    assert all(w.shapley.low <= w.shapley.value <= w.shapley.high for w in worth.values())
    assert all(w.sampling_error == 0 for w in worth.values())


def test_shapley_is_the_mean_over_all_orders(found):
    from itertools import permutations

    gains = []
    for order in permutations(found.experts):
        before = ("base", *order[: order.index("red")])
        gains.append(fused_loss(found, before) - fused_loss(found, (*before, "red")))
    worth = membership.worth(found)["red"]
    assert worth.shapley.value == pytest.approx(np.mean(gains), abs=1e-6)


def test_sampled_orders_come_close_to_the_exact_value_by_their_own_error(found, monkeypatch):
    exact = membership.worth(found)
    monkeypatch.setattr(membership, "EXACT_UP_TO", 2)
    sampled = membership.worth(found, orders=60)
    for name, value in sampled.items():
        assert value.sampling_error > 0
        off = abs(value.shapley.value - exact[name].shapley.value)
        assert off <= 4 * value.sampling_error + 1e-9


def forgetful(idle=0.0, twin=False):
    """Three contributors who each learned their domain and forgot the others; red learned least."""
    base = np.full(3, 4.0)
    learned = np.array([0.2, 1.0, 1.5])
    matrix = np.vstack([base, base + 1.5 - np.diag(1.5 + learned)])
    found = study.ledger_of(matrix, ("red", "green", "blue"))
    found = found.with_column("idle", found.column("base") + idle)
    found = found.with_column("twin", found.column("red"))
    return replace(found, experts=("red", "green", "blue", "idle", *(["twin"] if twin else [])))


def test_who_hands_in_the_base_is_worth_nothing_and_less_than_who_learned_least():
    """Every specialist alone is worse than the base here: the base must not be paid for that."""
    found = forgetful()
    worth = membership.worth(found)
    assert evaluation.losses(found).equal_weight("red") > 4.0
    assert abs(worth["idle"].shapley.value) < 0.01
    assert worth["idle"].free_rider
    assert [name for name, w in worth.items() if w.free_rider] == ["idle"]
    order = sorted(worth, key=lambda name: worth[name].shapley.value)
    assert order == ["idle", "red", "green", "blue"]


def test_a_copy_is_paid_like_its_original_and_both_share_what_one_was_worth():
    alone, both = membership.worth(forgetful()), membership.worth(forgetful(twin=True))
    red, twin = both["red"].shapley.value, both["twin"].shapley.value
    assert red == pytest.approx(twin, abs=1e-12)
    assert red + twin == pytest.approx(alone["red"].shapley.value, abs=0.01)
    assert both["red"].leave_one_out.value < alone["red"].leave_one_out.value / 2
    assert both["green"].shapley.value == pytest.approx(alone["green"].shapley.value, abs=0.01)


def test_a_duplicate_and_a_copy_of_the_base_are_flagged_and_nobody_else(found):
    twin = found.with_column("twin", found.column("red")).with_column("idle", found.column("base"))
    worth = membership.worth(replace(twin, experts=(*found.experts, "twin", "idle")))
    assert worth["twin"].same_as == ("red",)
    assert worth["red"].same_as == ("twin",)
    assert worth["idle"].same_as == ("base",)
    assert worth["blue"].same_as == ()
    assert [name for name, value in worth.items() if value.free_rider] == ["idle"]
    assert worth["blue"].leave_one_out.low > 0
