"""The fused model is causal where it says so, agrees with the ledger, and survives saving."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from kalavai_helpers import experiment, fusion, ledger, models, packing, routing, scoring

POOLED = ("pooled", "pooled, linear", "pooled, converged")


@pytest.fixture(scope="module")
def run(tiny):
    return experiment.run(tiny)


@pytest.fixture(scope="module")
def inputs(tiny):
    return torch.from_numpy(tiny.windows("heldout", "red").input_ids[:3])


def moved(model, inputs, t):
    """Largest change of log-probs up to t when the tokens after t change."""
    changed = inputs.clone()
    changed[:, t + 1 :] = (changed[:, t + 1 :] + 7) % model.config.vocab_size
    assert not torch.equal(changed, inputs)
    with torch.no_grad():
        return float((model(inputs).logits - model(changed).logits)[:, : t + 1].abs().max())


@pytest.mark.parametrize("name", ["uniform", "linear", "prefix-mean", "evidence"])
def test_later_tokens_move_no_earlier_prediction(run, inputs, name):
    for t in (0, 5, 20, inputs.shape[1] - 2):
        assert moved(run.model(name), inputs, t) <= 1e-5


def test_the_published_pooled_router_does_read_the_future(run, inputs):
    model = run.model("pooled")
    with torch.no_grad():  # a barely trained router hardly moves: make its weights matter
        model.router.linear.weight.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    assert moved(model, inputs, 5) > 1e-3


@pytest.mark.parametrize("mixing", fusion.MIXING)
@pytest.mark.parametrize("name", ["linear", "prefix-mean", "evidence", *POOLED])
def test_predictions_are_distributions(run, inputs, name, mixing):
    model = run.model(name)
    model.config.mixing = mixing
    output = model(inputs)
    assert torch.allclose(output.logits.exp().sum(-1), torch.ones(inputs.shape), atol=1e-4)
    assert torch.allclose(output.gates.sum(-1), torch.ones(inputs.shape), atol=1e-5)
    assert output.gates.shape == (*inputs.shape, 3)


def test_trunk_and_branches_equal_the_specialist_they_come_from(tiny, inputs):
    specialist = tiny.model("red")
    fused = fusion.fuse(tiny.model("base"), {"red": specialist}, "uniform", 1)
    with torch.no_grad():
        expected = specialist(inputs).logits.log_softmax(-1)
        assert torch.allclose(fused(inputs).logits, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["uniform", "linear", "prefix-mean", "evidence"])
def test_the_model_agrees_with_the_ledger_on_the_first_window_of_each_document(run, tiny, name):
    windows = tiny.windows("heldout", "blue")
    rows = np.unique(windows.document, return_index=True)[1]
    with torch.no_grad():
        inputs = torch.from_numpy(windows.input_ids[rows])
        targets = torch.from_numpy(windows.targets[rows])
        logits = run.model(name)(inputs).logits
    real = targets != packing.IGNORE
    expected = logits[real].gather(1, targets[real][:, None])[:, 0]
    token_rows = run.ledger.window
    in_first = torch.isin(token_rows, torch.from_numpy(rows))
    found = run.fused[name].log_probs[in_first & (run.ledger.token_group == 0)]
    assert torch.allclose(found.float(), expected, atol=1e-4)


@torch.no_grad()
def test_the_prefix_of_a_ledger_goes_over_all_windows_of_a_document(run, tiny):
    """A fused model that reads window after window with its memory gives the ledger's gates."""
    windows = tiny.windows("heldout", "blue")
    rows = np.flatnonzero(windows.document == windows.document[0])
    assert len(rows) > 1
    model, memory, found = run.model("prefix-mean"), {}, []
    for row in rows:
        real = torch.from_numpy(windows.targets[row] != packing.IGNORE)[None]
        ids = torch.from_numpy(windows.input_ids[row])[None]
        states = tiny.model("base").base_model(ids).last_hidden_state
        gates, memory = model.router.resume(states, states[..., :3], memory, real)
        found.append(gates[real])
        if row == rows[0]:
            assert torch.allclose(model(ids).gates[real], gates[real], atol=1e-5)
    expected = run.fused["prefix-mean"].gates[run.ledger.document == 0]
    assert torch.allclose(torch.cat(found).double(), expected, atol=1e-5)


def test_the_published_router_of_410m_has_two_layers_and_the_linear_one_stands_beside_it(run):
    widths = {name: run.routers[name].arguments()["width"] for name in POOLED}
    assert widths == {"pooled": 256, "pooled, linear": None, "pooled, converged": 256}
    assert all(run.fused[name].gates.shape == (len(run.ledger), 3) for name in POOLED)
    assert run.pooled_steps % 100 == 0


def test_what_is_read_from_the_store_is_what_was_fitted(run, tiny):
    again = experiment.run(tiny)
    assert (again.pooled_steps, again.capped) == (run.pooled_steps, run.capped)
    for name in run.fused:
        assert torch.equal(again.fused[name].log_probs, run.fused[name].log_probs)
        assert torch.equal(again.fused[name].gates, run.fused[name].gates)


def test_every_pooled_router_is_scored_with_gates_of_its_own(run, tiny):
    """Scored side by side they give what a model with that router alone gives."""
    windows = packing.concatenate([tiny.windows("heldout", d) for d in tiny.domains])
    for name in POOLED:
        alone, _ = scoring.score(run.model(name), windows, "test")
        assert torch.allclose(alone.gates, run.fused[name].gates, atol=1e-6)
        assert torch.allclose(alone.log_probs, run.fused[name].log_probs, atol=1e-5)


def test_loss_counts_the_tokens_that_follow(run, inputs):
    output = run.model("evidence")(inputs, labels=inputs)
    chosen = output.logits[:, :-1].gather(-1, inputs[:, 1:, None])
    assert output.loss.item() == pytest.approx(-chosen.mean().item(), rel=1e-5)


def test_saved_and_loaded_it_predicts_the_same(run, inputs, tmp_path):
    model = run.model("linear")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, fusion.FusedForCausalLM)
    assert torch.allclose(loaded(inputs).logits, model(inputs).logits, atol=1e-6)
    assert list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("*.bin"))


def test_a_causal_model_generates_and_the_pooled_one_refuses(run, inputs):
    out = run.model("evidence").generate(inputs[:1, :8], max_new_tokens=4, do_sample=False)
    assert out.shape == (1, 12)
    with pytest.raises(ValueError, match="cannot generate"):
        run.model("pooled").generate(inputs[:1, :8], max_new_tokens=4)


def test_a_specialist_with_another_trunk_is_refused_by_name(tiny):
    stranger = models.new_base(tiny.tier, tiny.tokenizer.get_vocab_size(), seed=9)
    with pytest.raises(ValueError, match="'odd' does not share the trunk"):
        fusion.fuse(tiny.model("base"), {"odd": stranger}, "uniform", 1)


def test_an_unknown_mixing_lists_the_valid_ones(tiny):
    with pytest.raises(ValueError, match="probability, logit"):
        fusion.fuse(tiny.model("base"), {"red": tiny.model("red")}, "uniform", 1, mixing="sum")


def test_prompt_gates_belong_to_the_token_they_predict(run, tiny):
    model = run.model("evidence")
    text = "apple cherry brick sky sea"
    tokens, gates = scoring.prompt_gates(model, run.routers, tiny.tokenizer, text)
    assert "".join(tokens) == text
    assert {g.shape for g in gates.values()} == {(len(tokens), 3)}
    assert np.allclose(gates["evidence"][0], 1 / 3)
    shorter = scoring.prompt_gates(model, run.routers, tiny.tokenizer, "apple cherry")[1]
    for name in ("evidence", "linear"):
        assert np.allclose(gates[name][: len(shorter[name])], shorter[name], atol=1e-5)


def test_weight_average_is_the_mean_of_all_weights(tiny):
    merged = tiny.model("weight_average").state_dict()
    parts = [tiny.model(domain).state_dict() for domain in tiny.domains]
    for name, value in merged.items():
        assert torch.allclose(value, torch.stack([p[name] for p in parts]).mean(0))


def test_logit_mixing_under_one_hot_gates_is_the_chosen_expert(run, tiny):
    windows = packing.concatenate([tiny.windows("heldout", d) for d in tiny.domains])
    gates = torch.nn.functional.one_hot(torch.ones(len(run.ledger), dtype=torch.long), 3).double()
    _, others = scoring.score(run.model("pooled"), windows, "test", {"one": gates})
    assert torch.allclose(
        others["one"].log_probs.float(), run.ledger.expert_log_probs[:, 1].float(), atol=1e-4
    )


def test_switching_documents_are_half_one_domain_and_half_another(tiny):
    parts = {d: tiny.windows("heldout", d) for d in tiny.domains}
    made = ledger.switching(parts, 32, per_pair=2)
    assert len(made) == 6
    windows = made["red → blue"]
    assert windows.targets.shape == (len(windows.documents), 32)
    starts = [tiny.windows("heldout", d).targets[:, :16].tolist() for d in ("red", "blue")]
    for row in windows.targets:
        assert row[:16].tolist() in starts[0]
        assert row[16:].tolist() in starts[1]


def test_bound_on_every_heldout_document(run):
    from kalavai_helpers import evaluation

    strict = evaluation.route(run.ledger, {"e": routing.EvidenceRouter(0.0)})["e"]
    assert evaluation.document_regret(run.ledger, strict.log_probs).max() <= math.log(3) + 1e-6
