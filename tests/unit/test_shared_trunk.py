"""A trunk that is read once says what each whole model says."""

import decoders
import pytest
import torch

from kalavai_helpers import ledger, shared_trunk
from kalavai_helpers.shared_trunk import SharedTrunk


@pytest.mark.parametrize("frozen_layers", [0, 1, 2])
@pytest.mark.parametrize("family", decoders.FAMILIES)
def test_a_branch_on_the_shared_trunk_gives_the_states_and_scores_of_the_whole_model(
    family, frozen_layers
):
    base, specialists = decoders.cooperative(family, 2, frozen_layers)
    ids = decoders.texts()
    trunk = SharedTrunk(base, frozen_layers)
    states = trunk.states(ids)
    for model in (base, *specialists.values()):
        branch = trunk.branch(model)
        last = branch.states(states)
        whole = model(ids, output_hidden_states=True)
        assert torch.allclose(last, whole.hidden_states[-1], atol=1e-5)
        ours = shared_trunk.token_log_probs(
            last[:, :-1].flatten(0, 1), branch.head, ids[:, 1:].flatten()
        )
        plain = whole.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
        assert torch.allclose(ours, plain.flatten(), atol=1e-5)


def test_few_logits_at_once_change_no_score(monkeypatch):
    states, head = torch.randn(7, 5), torch.randn(11, 5)
    targets = torch.arange(7)
    expected = (states @ head.T).log_softmax(-1)[torch.arange(7), targets]
    monkeypatch.setattr(shared_trunk, "MAX_LOGITS", 25)
    found = shared_trunk.token_log_probs(states, head, targets)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_ledger_is_that_of_models_which_read_alone(tiny):
    found = ledger.build(tiny)
    parts = [tiny.windows("heldout", domain) for domain in tiny.domains]
    for name in found.models:
        alone = [ledger.score(tiny.model(name), part, "alone")[0] for part in parts]
        assert torch.allclose(found.column(name), torch.cat(alone), atol=1e-5)
    states = [ledger.score(tiny.model("base"), p, "alone", states=True)[1] for p in parts]
    assert torch.allclose(found.features, torch.cat(states), atol=1e-5)


def test_a_ledger_that_was_stopped_reads_only_with_the_models_that_are_left(
    tiny, monkeypatch, tmp_path
):
    whole = ledger.build(tiny)
    parts = {domain: tiny.windows("heldout", domain) for domain in tiny.domains}
    read = []
    branch = shared_trunk.Reader.branch

    def dies_at_the_third(reader, name):
        read.append(name)
        if len(read) == 3:
            raise KeyboardInterrupt
        return branch(reader, name)

    monkeypatch.setattr(shared_trunk.Reader, "branch", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        ledger.of_windows(tiny, parts, "stopped")
    again = ledger.of_windows(tiny, parts, "stopped")
    assert read == ["base", "blue", "green", "green", "red", "weight_average"]
    assert torch.equal(again.log_probs, whole.log_probs)
    assert torch.equal(again.features, whole.features)
