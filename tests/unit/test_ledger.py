"""The token ledger: part of a cooperative, and a cooperative that went to another process."""

import pickle
from dataclasses import replace

import pytest
import torch

from kalavai_helpers import (
    evaluation,
    expert_states,
    ledger,
    packing,
    router_fit,
    routing,
    trunk_router,
)


def test_restricting_a_ledger_keeps_the_losses_of_what_is_left(tiny):
    whole = ledger.build(tiny)
    part = whole.restrict(("red", "blue"))
    assert part.experts == part.groups == ("red", "blue")
    before, after = (
        evaluation.losses(found).matrix(("base", "red", "blue")) for found in (whole, part)
    )
    assert before[["red", "blue"]].equals(after)


def test_a_restricted_ledger_numbers_its_documents_and_windows_anew(tiny):
    part = ledger.build(tiny).restrict(("red",))
    assert part.document.unique().tolist() == list(range(part.n_documents))
    assert part.window.unique().tolist() == list(range(int(part.window.max()) + 1))
    assert torch.equal(part.group, torch.zeros_like(part.group))
    assert len(part.n_bytes) == part.n_documents


def test_a_cooperative_that_loaded_its_base_can_be_scored_in_another_process(tiny):
    tiny.model("base")
    travelled = pickle.loads(pickle.dumps(tiny))
    assert travelled == tiny
    assert "_base" not in vars(travelled)
    ids = tiny.windows("heldout", "red")
    _, states = ledger.score(travelled.model("base"), ids, "test", states=True)
    assert states.shape == (ids.n_tokens, tiny.tier.hidden_size)


T = 11
"""A token in the middle of a window of the text below."""


def texts(tiny):
    """One held-out text, and the same with its token T replaced by another."""
    document = tiny.documents("red", "heldout")[0]
    end = tiny.tokenizer.token_to_id(packing.END)
    ids = tiny.tokenizer.encode(document.text, add_special_tokens=False).ids[: tiny.tier.seq_len]
    other = [*ids[:T], (ids[T] + 7) % tiny.tokenizer.get_vocab_size(), *ids[T + 1 :]]
    return [packing.windows_of_ids([x], [document], end, len(ids)) for x in (ids, other)], other


READS = {
    "base": lambda tiny, w: ledger.score(tiny.model("base"), w, "x", states=True)[1],
    "trunk": lambda tiny, w: trunk_router.read(tiny.model("base"), 1, w)[0],
    "trunk tokens": lambda tiny, w: trunk_router.read(tiny.model("base"), 1, w)[1],
    "experts": lambda tiny, w: (
        expert_states.read(
            ledger.of_windows(tiny, {"red": w}, "x"), [tiny.model(d) for d in tiny.domains], w
        ).features
    ),
}


@pytest.mark.parametrize("name", READS)
def test_what_a_router_reads_where_a_token_is_predicted_does_not_know_the_token(tiny, name):
    (windows, changed), _ = texts(tiny)
    one, other = (READS[name](tiny, w) for w in (windows, changed))
    assert torch.equal(one[: T + 1], other[: T + 1])
    assert (one[T + 1] != other[T + 1]).any()  # it does know the token before
    assert len(one) == windows.n_tokens


def test_a_score_is_the_log_probability_of_its_own_token(tiny):
    (windows, changed), ids = texts(tiny)
    found = [ledger.of_windows(tiny, {"red": w}, "x") for w in (windows, changed)]
    assert torch.equal(found[0].log_probs[:T], found[1].log_probs[:T])
    for name in ("base", *tiny.domains):
        logits = tiny.model(name)(torch.from_numpy(changed.input_ids)).logits[0].log_softmax(-1)
        expected = logits[torch.arange(len(ids)), torch.tensor(ids)]
        assert torch.allclose(found[1].column(name), expected, atol=1e-4)
    states = tiny.model("base").base_model(torch.from_numpy(changed.input_ids)).last_hidden_state[0]
    assert torch.allclose(found[1].features, states, atol=1e-5)


def test_gates_know_neither_the_token_they_weigh_nor_what_follows(tiny):
    fitting, found = ledger.build(tiny, "router"), ledger.build(tiny)
    start, end = (found.document == 3).nonzero()[[0, -1], 0].tolist()
    at = (start + end) // 2
    log_probs, features = found.log_probs.clone(), found.features.clone()
    # From here on another expert is right, and the states are those of another domain.
    log_probs[at : end + 1] = log_probs[at : end + 1].roll(1, 1) - torch.arange(log_probs.shape[1])
    features[at + 1 : end + 1] = -features[at + 1 : end + 1]
    later = replace(found, log_probs=log_probs, features=features)
    both = router_fit.fit_log_linear(fitting, (0.01,))
    both.log_powers.zero_()  # a fit to models that know nothing may believe in neither
    for router in (
        routing.EvidenceRouter(),
        routing.fit_linear(fitting),
        router_fit.fit_prefix_mean(fitting),
        both,
    ):
        before, after = (routing.ledger_gates(router, x) for x in (found, later))
        same = (before - after).abs().amax(1) < 1e-6
        # In logarithms, since fitted gates may be near 0 and 1 whatever they read.
        moved = (before.log() - after.log()).abs().amax(1) > 1e-3
        assert same[: at + 1].all(), router.name
        assert moved[at + 1 : end + 1].any(), router.name
        assert same[end + 1 :].all(), router.name  # the next document starts anew
