"""The token ledger: part of a cooperative, and a cooperative that went to another process."""

import pickle

import torch

from kalavai_helpers import evaluation, ledger


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
