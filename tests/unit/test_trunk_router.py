"""The trunk router knows the domain from the trunk alone, and is the same in ledger and model."""

import pytest
import torch

from kalavai_helpers import evaluation, fusion, ledger, packing, routing, trunk_router


@pytest.fixture(scope="module")
def fitted(tiny):
    """Router fitted on the router documents, with ledger, states and tokens of the held-out."""

    def read(role):
        windows = packing.concatenate([tiny.windows(role, d) for d in tiny.domains])
        found = trunk_router.read(tiny.model("base"), tiny.tier.frozen_layers, windows)
        return ledger.build(tiny, role), *found

    router = trunk_router.fit(*read("router"), tiny.tokenizer.get_vocab_size())
    return router, *read("heldout")


def test_it_finds_the_domain_and_beats_equal_weights(fitted):
    router, *heldout = fitted
    gates = trunk_router.gates(router, *heldout)
    found = heldout[0]
    assert torch.allclose(gates.sum(1), torch.ones(len(found), dtype=torch.float64), atol=1e-6)
    assert (gates.argmax(1) == found.token_group).float().mean() > 0.8
    fused = routing.fuse_log_probs(gates, found.expert_log_probs)
    uniform = routing.fuse_log_probs(torch.full_like(gates, 1 / 3), found.expert_log_probs)
    table = evaluation.losses(found, {"trunk": fused, "uniform": uniform})
    assert table.equal_weight("trunk") < table.equal_weight("uniform")


def test_fitting_twice_gives_the_same_router(tiny, fitted):
    router = fitted[0]
    windows = packing.concatenate([tiny.windows("router", d) for d in tiny.domains])
    read = trunk_router.read(tiny.model("base"), tiny.tier.frozen_layers, windows)
    again = trunk_router.fit(ledger.build(tiny, "router"), *read, router.table.shape[0])
    assert all(
        torch.equal(a, b) for a, b in zip(router.parameters(), again.parameters(), strict=True)
    )


@torch.no_grad()
def test_the_model_gives_the_gates_of_the_ledger(tiny, fitted):
    router, found, states, tokens = fitted
    specialists = {domain: tiny.model(domain) for domain in tiny.domains}
    model = fusion.fuse(tiny.model("base"), specialists, router, tiny.tier.frozen_layers)
    windows = tiny.windows("heldout", "blue")
    inputs = torch.from_numpy(windows.input_ids[:1])
    real = torch.from_numpy(windows.targets[:1] != packing.IGNORE)
    expected = trunk_router.gates(router, found, states, tokens)[: int(real.sum())]
    output = model(inputs, epsilon=0.05)
    assert torch.allclose(output.gates[real].double(), expected, atol=1e-5)
    assert not output.ran.all()


def test_alpha_is_a_chance():
    with pytest.raises(ValueError, match=r"\[0, 1\), not 1"):
        trunk_router.TrunkRouter(4, 10, 2, alpha=1.0)
