"""The token ledger restricted to part of a cooperative."""

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
