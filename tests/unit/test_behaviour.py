"""Behaviour of routers: shares, turns and delays are counted again by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kept_study import DOMAINS, PROMPTS, SEEDED, kept_study

from kalavai_helpers import artifacts, behaviour, evaluation, kept_ledger, kept_runs, tiers
from kalavai_helpers.evaluation import Fused
from kalavai_helpers.kept_runs import KeptRun
from kalavai_helpers.ledger import Ledger

PAIRS = ("x → y", "y → x")


def ledger_of(groups, lengths, group, experts=("x", "y"), seed=0):
    """A ledger of random scores with documents of given lengths and groups."""
    document = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    scores = np.random.default_rng(seed).gamma(2, 1, (len(document), len(experts) + 1))
    return Ledger(
        models=("base", *experts),
        experts=experts,
        groups=groups,
        log_probs=-torch.from_numpy(scores).float(),
        features=torch.zeros(len(document), 1),
        document=document,
        window=document,
        group=torch.tensor(group),
        n_bytes=torch.tensor(lengths) * 4,
        role="heldout",
        source=np.arange(len(lengths)).astype(str),
    )


def routed(ledger, gates):
    """A run with one router ``it`` that mixes probabilities."""
    gates = torch.as_tensor(gates, dtype=torch.float64)
    log_probs = (gates * ledger.expert_log_probs.exp()).sum(1).log()
    return SimpleNamespace(ledger=ledger, fused={"it": Fused(log_probs, gates)})


def tops(*first):
    """Gates of two experts from those of the first."""
    return np.stack([first, 1 - np.array(first)], 1)


TWO = ledger_of(("x", "y"), [4, 3], [0, 1])
RUN = routed(TWO, tops(0.99, 0.01, 0.6, 0.7, 0.2, 0.96, 0.97))


def test_a_top_gate_above_95_percent_counts_whoever_has_it():
    assert behaviour.confident([RUN], "it").value == pytest.approx(100 * 4 / 7)


def test_a_turn_is_within_a_document():
    # Down, up; the first document ends on x, the second begins on y: no turn; then up.
    assert behaviour.turns([RUN], "it").value == pytest.approx(100 * 3 / 7)


def test_several_runs_say_whether_their_base_is_one():
    own = behaviour.turns([RUN, RUN], "it")
    shared = behaviour.turns([RUN, RUN], "it", one_base=True)
    assert own.over.endswith("2 bases")
    assert shared.over.endswith("2 seeds")


def test_picking_lets_the_largest_gate_speak():
    table = behaviour.picked(RUN, ["it"])
    chosen = [0, 1, 0, 0, 1, 0, 0]
    spoken = TWO.expert_log_probs[torch.arange(7), chosen]
    hard = -(spoken[:4].mean() + spoken[4:].mean()) / 2
    assert table.equal_weight("it, hard") == pytest.approx(float(hard))
    fused = RUN.fused["it"].log_probs
    soft = -(fused[:4].mean() + fused[4:].mean()) / 2
    best = min(table.equal_weight(name) for name in ("x", "y"))
    added = behaviour.picking_adds([table], ("x", "y"), "it").value
    assert added == pytest.approx(float(100 * (soft - hard) / best))
    row = behaviour.summary([RUN], ["it"]).loc["it"]
    assert row.hard_minus_soft == pytest.approx(float(hard - soft))
    assert (row.soft, row.hard) == pytest.approx((float(soft), float(hard)))
    assert row.picking_adds == pytest.approx(added)
    assert row.confident == pytest.approx(100 * 4 / 7)


def test_gates_that_are_hard_already_lose_nothing_by_picking():
    hard = routed(TWO, np.eye(2)[[0, 1, 0, 0, 1, 0, 0]])
    row = behaviour.summary([hard], ["it"]).loc["it"]
    assert row.hard_minus_soft == pytest.approx(0, abs=1e-9)
    assert row.picking_adds == pytest.approx(0, abs=1e-9)


MIXED = ledger_of(PAIRS, [6, 6], [0, 1])


def test_the_gate_that_is_followed_is_of_the_second_half():
    first = np.linspace(0.05, 0.6, 12)
    own = behaviour.second_gates(MIXED, torch.from_numpy(tops(*first)))
    assert own == pytest.approx(np.stack([1 - first[:6], first[6:]]))


@given(st.integers(0, 4))
def test_the_delay_is_where_the_mean_gate_passes_one_half(late):
    """Both documents change hands together, ``late`` tokens after the switch, or never."""
    second = np.where(np.arange(6) >= 3 + late, 0.8, 0.3)
    found = behaviour.delay(MIXED, torch.from_numpy(tops(*(1 - second), *second)))
    assert (found.value, found.low, found.high) == (min(late, 3),) * 3


def test_the_delay_is_of_the_mean_and_its_interval_of_the_documents():
    early, never = np.array([0.3] * 3 + [0.9] * 3), np.full(6, 0.2)
    one = ledger_of(("x → y",), [6, 6], [0, 0])
    found = behaviour.delay(one, torch.from_numpy(tops(*(1 - early), *(1 - never))))
    assert (found.value, found.low, found.high) == (0, 0, 3)


def test_only_some_groups_are_left_with_their_own_gates():
    three = ledger_of(("a", "b", "c"), [2, 3, 2, 4], [2, 0, 1, 0])
    run = KeptRun(None, three, three, {}, routed(three, tops(*np.linspace(0, 1, 11))).fused)
    found = behaviour.only(run, ("c", "a"))
    kept = [0, 1, 2, 3, 4, 7, 8, 9, 10]
    assert found.ledger.groups == ("c", "a")
    assert found.ledger.group.tolist() == [0, 1, 1]
    assert torch.equal(found.ledger.log_probs, three.log_probs[kept])
    for field in ("log_probs", "gates"):
        whole, part = (getattr(r.fused["it"], field) for r in (run, found))
        assert torch.equal(part, whole[kept])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A made-up recorded ledger."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("kept")
        patch.setenv(artifacts.KEPT_VARIABLE, str(home))
        kept_ledger.write(home / tiers.PRETRAINED, **kept_study())
        yield kept_ledger.read()


def test_prompts_of_a_recorded_ledger_have_their_own_tokens_and_gates(kept):
    run = kept_runs.of(kept, kept_runs.team("english"), "prompts")
    drawn = behaviour.prompts(run, kept.tokens, ("evidence", "pooled"))
    assert [prompt["title"] for prompt in drawn] == list(PROMPTS)
    for prompt in drawn:
        assert "".join(prompt["tokens"]).split() == prompt["title"].split()
        for gates in prompt["gates"].values():
            assert gates.shape == (len(prompt["tokens"]), len(SEEDED))
            assert gates.sum(1) == pytest.approx(1)
        assert prompt["gates"]["evidence"][0] == pytest.approx(1 / 3), "nothing was seen so far"
        assert np.ptp(prompt["gates"]["pooled"], 0).max() < 1e-6, "one gate for the whole text"


def test_seeds_of_a_recorded_ledger_are_asked_together(kept):
    runs = kept_runs.seeds(kept)
    found = behaviour.summary(runs, ("evidence", "pooled"), one_base=True)
    shares = [float((r.fused["pooled"].gates.max(1).values > 0.95).double().mean()) for r in runs]
    assert len(runs) == 3
    assert found.confident["pooled"] == pytest.approx(100 * np.mean(shares))
    assert (found.confident_low <= found.confident).all()
    assert (found.confident <= found.confident_high).all()


def test_only_documents_that_switch_half_way_are_left(kept):
    team = kept_runs.team("english")
    whole = kept_runs.of(kept, team, "switching")
    halves = behaviour.only(whole, team.pairs)
    assert halves.ledger.groups == team.pairs
    assert len(halves.ledger) < len(whole.ledger)
    table = evaluation.losses(halves.ledger, {"it": halves.fused["evidence"].log_probs})
    among = evaluation.losses(whole.ledger, {"it": whole.fused["evidence"].log_probs})
    assert table.by_group("it") == pytest.approx(
        among.by_group("it")[[whole.ledger.groups.index(pair) for pair in team.pairs]]
    )
    assert set(SEEDED) < set(DOMAINS)
