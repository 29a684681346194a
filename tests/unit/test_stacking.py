"""Stacked experts: the same predictions, weights in memory once, never out of date."""

import copy

import decoders
import pytest
import torch

from kalavai_helpers import fusion, stacking

CLOSE = 1e-5


def fused(family="gpt_neox", router="evidence", embedding=True, n=3):
    base, specialists = decoders.cooperative(family, n=n, embedding=embedding)
    return fusion.fuse(base, specialists, router)


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls in which experts were stacked."""
    seen = []
    together = stacking.Stack.__init__
    monkeypatch.setattr(
        stacking.Stack,
        "__init__",
        lambda self, branches: (seen.append(len(branches)), together(self, branches))[1],
    )
    return seen


def sequential(monkeypatch):
    monkeypatch.setattr(stacking, "MOST_TOKENS", 0)


def padded():
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    return decoders.texts(2, 9), mask


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("family", decoders.FAMILIES)
@torch.no_grad()
def test_stacked_experts_predict_what_they_predict_in_turn(family, embedding, monkeypatch, calls):
    model = fused(family, embedding=embedding)
    ids, mask = padded()

    def read():
        past, found = None, []
        for start, end in ((0, 5), (5, 8), (8, 9)):
            output = model(
                ids[:, start:end],
                attention_mask=mask[:, :end],
                past_key_values=past,
                use_cache=True,
            )
            past = output.past_key_values
            found.append(output.logits)
            assert output.branch_tokens.tolist() == [2 * (end - start)] * 3
        return torch.cat(found, 1)[mask.bool()]

    together = read()
    assert calls == [3]
    sequential(monkeypatch)
    torch.testing.assert_close(together, read(), atol=CLOSE, rtol=0)
    assert len(calls) == 1


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"do_sample": False}])
def test_generation_is_the_same_and_long_prompts_go_in_turn(options, monkeypatch, calls):
    model = fused(router="uniform")
    ids = decoders.texts(1, stacking.MOST_TOKENS + 1)
    with torch.no_grad():
        model(ids)
    assert not calls
    found = model.generate(ids, max_new_tokens=6, **options)
    assert calls == [3]
    sequential(monkeypatch)
    assert torch.equal(found, model.generate(ids, max_new_tokens=6, **options))


@torch.no_grad()
def test_weights_are_in_memory_once_and_what_changes_them_is_seen(monkeypatch):
    model = fused(router="uniform")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = decoders.texts(2, 6)
    model(ids)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    weight = model.branches["s1"]["layers"][0].mlp.dense_h_to_4h.weight
    assert weight.untyped_storage().nbytes() == 3 * weight.nbytes  # part of the stacked one
    twin = copy.deepcopy(model)
    for changed in (model, twin.double(), twin.float()):
        for name in ("s0", "s2"):
            changed.branches[name]["layers"][1].mlp.dense_4h_to_h.weight.mul_(-1.5)
        together = changed(ids).logits
        with monkeypatch.context() as patch:
            sequential(patch)
            torch.testing.assert_close(together, changed(ids).logits, atol=CLOSE, rtol=0)


@torch.no_grad()
def test_a_stacked_model_is_saved_as_any_other(tmp_path):
    model = fused(router="uniform")
    ids = decoders.texts(2, 6)
    expected = model(ids).logits
    model.save_pretrained(tmp_path / "after")
    fused(router="uniform").save_pretrained(tmp_path / "before")
    sizes = [(tmp_path / f / "model.safetensors").stat().st_size for f in ("before", "after")]
    assert sizes[0] == sizes[1]
    again = fusion.FusedForCausalLM.from_pretrained(tmp_path / "after").eval()
    assert torch.equal(again(ids).logits, expected)


def test_gradients_still_reach_the_experts():
    model = fused(router="uniform")
    ids = decoders.texts(2, 6)
    with torch.no_grad():
        model(ids)
    model(ids, labels=ids).loss.backward()
    weight = model.branches["s2"]["layers"][0].mlp.dense_h_to_4h.weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_what_cannot_be_stacked_goes_in_turn():
    class Odd(torch.nn.Linear):
        pass

    model = fused(router="uniform")
    ids = decoders.texts(2, 6)
    with torch.no_grad():
        expected = model(ids).logits
        other = fused(router="uniform")
        for branch in other.branches.values():
            for layer in branch["layers"]:
                layer.mlp.dense_h_to_4h.__class__ = Odd
        torch.testing.assert_close(other(ids).logits, expected, atol=CLOSE, rtol=0)
    assert stacking.of(list(other.branches.values())) is False
    assert stacking.of(list(model.branches.values())[:1]) is False
