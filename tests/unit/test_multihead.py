"""The multi-head model: one body, separate heads, trained on the text of all specialists."""

import decoders
import numpy as np
import pytest
import torch

from kalavai_helpers import artifacts, evaluation, ledger, multihead, packing, routing


@pytest.fixture(scope="module")
def parts(tiny):
    return {domain: tiny.windows("heldout", domain) for domain in tiny.domains}


@pytest.fixture(scope="module")
def scores(tiny, parts):
    return multihead.score(tiny, parts)


def batch_of(tiny):
    return torch.from_numpy(multihead.chunks(tiny)[0].input_ids[:4].astype(np.int64))[:, :-1]


@pytest.mark.parametrize("family", ["gpt_neox", "llama, tied"])
def test_every_head_starts_as_the_base(family):
    base, batch = decoders.base(family), decoders.texts(4)
    model = multihead.MultiHead(base, 3).eval()
    for head in range(3):
        logits = model(batch, torch.full((4,), head))
        assert torch.allclose(logits, base(batch).logits, atol=1e-5)


def test_a_sequence_meets_its_own_head_only(tiny):
    model, batch = multihead.MultiHead(tiny.model("base"), 3).eval(), batch_of(tiny)
    head = torch.tensor([0, 1, 2, 1])
    before = model(batch, head).detach()
    with torch.no_grad():
        model.heads[1].weight.add_(1.0)
    changed = (model(batch, head) != before).flatten(1).any(1)
    assert changed.tolist() == [False, True, False, True]


def test_heads_learn_apart_and_the_body_together(tiny):
    model, batch = multihead.MultiHead(tiny.model("base"), 3).train(), batch_of(tiny)
    model(batch, torch.tensor([0, 0, 2, 2])).logsumexp(-1).sum().backward()
    assert model.heads[1].weight.grad is None
    assert model.heads[2].weight.grad.abs().sum() > 0
    assert model.gpt_neox.layers[-1].mlp.dense_h_to_4h.weight.grad.abs().sum() > 0


def test_every_domain_gives_equally_many_chunks_and_none_is_lost(tiny):
    text, labels = multihead.chunks(tiny)
    counts = np.bincount(labels)
    assert len(set(counts)) == 1
    assert len(text) == len(labels)
    for index, domain in enumerate(tiny.domains):
        own = {row.tobytes() for row in text.input_ids[labels == index]}
        all_of_it = packing.pack(tiny.documents(domain, "train"), tiny.tokenizer, tiny.tier.seq_len)
        assert own == {row.tobytes() for row in all_of_it.input_ids}


def test_it_has_the_steps_of_all_specialists_and_their_frozen_layers(tiny, scores):
    _, metadata = artifacts.load_tensors(multihead.path(tiny))
    assert metadata["recipe"]["steps"] == 3 * tiny.tier.specialist_steps
    base, trained = tiny.model("base"), multihead.train(tiny)
    assert torch.equal(trained.gpt_neox.embed_in.weight, base.gpt_neox.embed_in.weight)
    assert not torch.equal(
        trained.gpt_neox.layers[-1].mlp.dense_h_to_4h.weight,
        base.gpt_neox.layers[-1].mlp.dense_h_to_4h.weight,
    )


def test_scores_are_the_model_s_own_in_ledger_order(tiny, parts, scores):
    found = ledger.build(tiny)
    windows = parts["green"]
    model = multihead.train(tiny)
    targets = torch.from_numpy(windows.targets)
    inputs = torch.from_numpy(windows.input_ids)
    logits = model(inputs, torch.full((len(inputs),), 2)).log_softmax(-1)
    real = targets >= 0
    expected = logits[real].gather(1, targets[real][:, None])[:, 0].double()
    assert torch.allclose(scores[found.token_group == 1][:, 2], expected, atol=1e-4)
    assert torch.equal(multihead.score(tiny, parts), scores)  # the second time from the store


def test_the_right_head_is_better_than_a_wrong_one_and_than_the_base(tiny, scores):
    found = multihead.as_ledger(ledger.build(tiny), scores)
    matrix = evaluation.losses(found).matrix(("base", *tiny.domains))
    for domain in tiny.domains:
        assert matrix[domain].idxmin() == domain


def test_routers_can_choose_among_heads(tiny, scores):
    found = multihead.as_ledger(ledger.build(tiny), scores)
    assert torch.allclose(found.expert_log_probs, scores, atol=1e-5)
    fused = evaluation.route(found, {"e": routing.EvidenceRouter(0.0)})["e"]
    assert evaluation.document_regret(found, fused.log_probs).max() <= np.log(3) + 1e-6
