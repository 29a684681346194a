"""The ε-contract measured on text: what is found never exceeds what was promised."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from kalavai_helpers import contract, corpora, figure_cost, fusion, ledger, packing, trunk_router

EPSILONS = (0.003, 0.03, 0.3)


@pytest.fixture(scope="module")
def measured(tiny):
    windows = packing.concatenate([tiny.windows("router", d) for d in tiny.domains])
    base = tiny.model("base")
    features = trunk_router.read(base, tiny.tier.frozen_layers, windows)
    router = trunk_router.fit(
        ledger.build(tiny, "router"), *features, base.config.vocab_size, alpha=1e-3
    )
    experts = {d: tiny.model(d) for d in tiny.domains}
    text = {d: tiny.windows("heldout", d) for d in tiny.domains}
    end = tiny.tokenizer.token_to_id(packing.END)
    mixed = packing.concatenate(list(ledger.switching(text, tiny.tier.seq_len, end=end).values()))
    return contract.measure(fusion.fuse(base, experts, router), mixed, EPSILONS)


def test_no_prediction_changes_by_more_than_the_bound_nor_the_bound_exceeds_epsilon(measured):
    assert list(measured.index) == [0.0, *EPSILONS]
    assert (measured.change <= measured.bound + 1e-5).all()
    assert (measured.bound <= measured.index.to_numpy() + 1e-9).all()
    assert (measured.mean_change <= measured.change).all()


class TwoWords:
    """Predicts two words, 50 : 50, and 90 : 10 where it may skip experts."""

    device = "cpu"

    def __call__(self, inputs, attention_mask, epsilon):
        said = torch.tensor([0.9, 0.1] if epsilon else [0.5, 0.5]).log()
        return SimpleNamespace(
            logits=said.expand(*inputs.shape, 2),
            bound=torch.full(inputs.shape, epsilon),
            branch_tokens=torch.tensor([inputs.numel(), 0 if epsilon else inputs.numel()]),
        )


def test_a_change_is_the_total_variation_and_the_loss_that_of_the_text():
    text = corpora.Document("d", "red", "", "d", "heldout")
    table = contract.measure(TwoWords(), packing.windows_of_ids([[0, 0, 1]], [text], 1, 4), [0.5])
    assert table.change.tolist() == pytest.approx([0, 0.4])
    assert table.mean_change.tolist() == pytest.approx([0, 0.4])
    assert table.experts.tolist() == [2, 1]
    skipping = -np.log([0.9, 0.9, 0.1]).mean()
    assert table.loss.tolist() == pytest.approx([np.log(2), skipping])
    assert table.loss_change[0.5] == pytest.approx(100 * (skipping / np.log(2) - 1))


def test_dense_runs_everybody_and_changes_nothing(measured):
    dense = measured.loc[0.0]
    assert (dense.experts, dense.change, dense.loss_change) == (3, 0, 0)


def test_a_larger_epsilon_needs_fewer_experts(measured):
    assert (measured.experts.diff().dropna() <= 0).all()
    assert measured.experts[0.3] < 3


def test_a_router_that_must_hear_everybody_is_refused(tiny):
    experts = {d: tiny.model(d) for d in tiny.domains}
    model = fusion.fuse(tiny.model("base"), experts, "evidence")
    with pytest.raises(fusion.FusionError, match="evidence"):
        contract.measure(model, tiny.windows("heldout", "red"), EPSILONS)


def test_each_slider_of_the_cost_figure_redraws_its_half_from_what_was_measured():
    rows = [
        {"experts": n, "epsilon": e, "documents": kind, "ratio": n / (1 + 100 * e),
         "low": 1, "high": 2, "bound_max": e, "loss_change_pct": 0.0}
        for n in (2, 3, 20) for e in (0.0, 0.01, 0.1) for kind in ("one domain", "switching")
        if e or kind == "one domain"
    ]  # fmt: skip
    figure = figure_cost.cost(pd.DataFrame(rows))
    epsilon, experts = figure.layout.sliders
    assert [step.label for step in epsilon.steps] == ["0.01", "0.1"]
    assert [step.label for step in experts.steps] == ["2", "3", "20"]
    data, _, traces = epsilon.steps[1].args
    assert [figure.data[i].xaxis for i in traces] == ["x", "x"]
    assert np.allclose(data["y"], [[2 / 11, 3 / 11, 20 / 11]] * 2)
    data, layout, traces = experts.steps[2].args
    assert [figure.data[i].xaxis for i in traces] == ["x2"] * 3
    assert np.allclose(data["x"], [[0.01, 0.1]] * 3)
    assert np.allclose(data["y"], [[10, 20 / 11]] * 2 + [[20, 20]])
    low, high = layout["yaxis2.range"]
    assert low < 20 / 11
    assert high > 20
