"""lm-eval scores a fused model as any other, whatever the batch, and as our own ledger does."""

import copy
import importlib.util
import math
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from kalavai_helpers import evaluation, fusion, harness, hf_tokenizer, ledger, packing, routing
from kalavai_helpers.trunk_router import TrunkRouter

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed():
    """The harness; under CI its absence is a failure."""
    if importlib.util.find_spec("lm_eval") is None:
        reason = "lm-eval is not installed: make test brings it, in .venv/eval"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def trunk_router(tiny):
    """A router whose gates differ from token to token."""
    found = TrunkRouter(tiny.tier.hidden_size, tiny.tokenizer.get_vocab_size(), 3, alpha=0.01)
    with torch.no_grad():
        found.table.normal_(0, 2, generator=torch.Generator().manual_seed(0))
    return found.requires_grad_(False)


@pytest.fixture(scope="module")
def models(tiny):
    """A specialist, and fused models of all: dense, and one that skips experts."""
    base = tiny.model("base")
    specialists = {domain: tiny.model(domain) for domain in tiny.domains}
    return {
        "red": specialists["red"],
        "evidence": fusion.fuse(base, specialists, "evidence"),
        "skipping": fusion.fuse(base, specialists, trunk_router(tiny), epsilon=0.3),
    }


@pytest.fixture(scope="module")
def short(tiny):
    """Held-out texts of every domain, of different lengths, that fit in one window."""
    found = {}
    for domain in tiny.domains:
        documents = tiny.documents(domain, "heldout")[:5]
        found[domain] = [
            replace(document, text=" ".join(document.text.split()[: 5 + 2 * i]))
            for i, document in enumerate(documents)
        ]
    return found


def tasks(tiny, short):
    """The two kinds of task: whole texts, and choices between continuations."""
    long = [d for domain in tiny.domains for d in tiny.documents(domain, "heldout")[:4]]
    whole = [harness.perplexity(domain, documents) for domain, documents in short.items()]
    return [*whole, harness.completion("completion", long)]


def rolling(judged, documents):
    """Log-likelihood of whole texts, by the harness."""
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(d.text,), idx=0)
        for d in documents
    ]
    return np.array(judged.loglikelihood_rolling(requests, disable_tqdm=True))


def test_fused_model_and_specialist_score_as_in_the_ledger(tiny, models, short):
    parts = {
        domain: packing.windows(documents, tiny.tokenizer, tiny.tier.seq_len)
        for domain, documents in short.items()
    }
    assert all(len(part.input_ids) == len(part.documents) for part in parts.values())
    found = ledger.of_windows(tiny, parts, "short")
    fused = evaluation.route(found, {"evidence": routing.EvidenceRouter()})["evidence"]
    everything = [document for documents in short.values() for document in documents]
    for name, log_probs in (("red", found.column("red")), ("evidence", fused.log_probs)):
        expected = np.bincount(found.document, log_probs.double())
        judged = harness.language_model(models[name], tiny.tokenizer)
        assert np.allclose(rolling(judged, everything), expected, atol=1e-3, rtol=1e-5)
        scores = harness.evaluate(models[name], tiny.tokenizer, tasks(tiny, short)[:3])
        for index, domain in enumerate(tiny.domains):
            mine = (found.group == index).numpy()
            bits = -expected[mine].sum() / found.n_bytes[mine].sum().item() / math.log(2)
            assert scores[domain]["bits_per_byte"] == pytest.approx(bits, abs=1e-5)


@pytest.mark.parametrize("name", ["red", "evidence", "skipping"])
def test_no_score_depends_on_the_batch(tiny, models, short, name):
    everything = [document for documents in short.values() for document in documents]
    scores, likelihoods = [], []
    for batch_size in (1, 4, 64):
        judged = harness.language_model(models[name], tiny.tokenizer, batch_size=batch_size)
        likelihoods.append(rolling(judged, everything))
        scores.append(
            harness.evaluate(
                models[name], tiny.tokenizer, tasks(tiny, short), batch_size=batch_size
            )
        )
    assert set(scores[0]) == {*tiny.domains, "completion"}
    assert set(scores[0]["completion"]) == {"acc", "acc_mutual_info"}
    for other, likelihood in zip(scores[1:], likelihoods[1:], strict=True):
        assert np.abs(likelihood - likelihoods[0]).max() <= 1e-4
        for task, metrics in scores[0].items():
            assert other[task] == pytest.approx(metrics, abs=1e-4)


def test_a_choice_is_as_likely_as_the_model_says(tiny, models, short):
    from lm_eval.api.instance import Instance

    model, task = models["evidence"], tasks(tiny, short)[-1]
    rows = list(task["custom_dataset"]()["test"])
    assert {row["gold"] for row in rows} == {0, 1, 2, 3}
    pairs, expected = [], []
    texts = {document.text for d in tiny.domains for document in tiny.documents(d, "heldout")}
    for row in rows:
        right = row["beginning"] + row["choices"][row["gold"]]
        assert any(text.startswith(right) for text in texts)
        context = len(tiny.tokenizer.encode(row["beginning"]).ids)
        for choice in row["choices"]:
            ids = tiny.tokenizer.encode(row["beginning"] + choice).ids
            asked = len(ids) - context
            ids = torch.tensor([ids[-model.config.max_position_embeddings - 1 :]])
            with torch.no_grad():
                logits = model(ids[:, :-1]).logits[:, -asked:]
            pairs.append((row["beginning"], choice))
            expected.append(logits.gather(-1, ids[:, -asked:, None]).sum().item())
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs
    ]
    judged = harness.language_model(model, tiny.tokenizer)
    found = [likelihood for likelihood, _ in judged.loglikelihood(requests, disable_tqdm=True)]
    assert np.allclose(found, expected, atol=1e-3, rtol=1e-5)
    chosen = np.array(found).reshape(-1, 4).argmax(1)
    right = float((chosen == [row["gold"] for row in rows]).mean())
    scores = harness.evaluate(model, tiny.tokenizer, [task])
    assert scores["completion"]["acc"] == pytest.approx(right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_logits_are_log_probabilities_already(tiny, models, dtype):
    inputs = torch.from_numpy(tiny.windows("heldout", "red").input_ids[:4])
    for name in ("evidence", "skipping"):
        model = copy.deepcopy(models[name]).to(dtype)
        with torch.no_grad():
            logits = model(inputs).logits
        assert logits.dtype == torch.float32  # whatever the weights are in
        assert logits.logsumexp(-1).abs().max() <= 1e-6
        # No further than rounding: two units in the last place of a log-probability near −16.
        assert (logits.log_softmax(-1) - logits).abs().max() <= 4e-6


def test_text_is_generated_as_by_the_model_itself(tiny, models):
    from lm_eval.api.instance import Instance

    prompts = ["apple cherry", "sky sea ice slate ink sky", "moss"]
    settings = {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, settings), idx=0)
        for prompt in prompts
    ]
    for name in ("evidence", "skipping"):
        judged = harness.language_model(models[name], tiny.tokenizer)
        for prompt, found in zip(
            prompts, judged.generate_until(requests, disable_tqdm=True), strict=True
        ):
            ids = torch.tensor([tiny.tokenizer.encode(prompt).ids])
            made = models[name].generate(ids, max_new_tokens=6, do_sample=False)
            assert found == tiny.tokenizer.decode(made[0, ids.shape[1] :].tolist())


def test_a_saved_folder_is_all_that_the_harness_needs(tiny, models, short, tmp_path):
    from lm_eval.models.huggingface import HFLM

    models["evidence"].save_pretrained(tmp_path)
    hf_tokenizer.save(tiny.tokenizer, tmp_path)
    loaded = HFLM(pretrained=str(tmp_path), device="cpu", dtype="float32", batch_size=4)
    assert isinstance(loaded.model, fusion.FusedForCausalLM)
    assert loaded.max_length == 4 * tiny.tier.seq_len
    own = harness.language_model(models["evidence"], tiny.tokenizer)
    assert own.max_length == loaded.max_length
    assert np.allclose(rolling(loaded, short["red"]), rolling(own, short["red"]), atol=1e-4)


def test_a_router_that_reads_the_future_is_not_judged(tiny):
    model = fusion.fuse(tiny.model("base"), {"red": tiny.model("red")}, routing.PooledRouter(16, 1))
    with pytest.raises(ValueError, match="pooled router reads the tokens it is to predict"):
        harness.language_model(model, tiny.tokenizer)


def test_an_unknown_task_is_named(tiny, models, monkeypatch):
    from lm_eval import tasks

    empty = tasks.TaskManager(include_defaults=False)  # its own list takes seconds to read
    monkeypatch.setattr(tasks, "TaskManager", lambda **_: empty)
    with pytest.raises(ValueError, match=r"'nosuchtask' is not .* lm-eval ls tasks"):
        harness.evaluate(models["red"], tiny.tokenizer, ["nosuchtask"])


def test_texts_too_short_to_choose_from_are_refused(short):
    with pytest.raises(ValueError, match="0 of 5 documents have 360"):
        harness.completion("completion", short["red"])


def test_a_folder_is_scored_by_one_command(tiny, models, colour_folder, tmp_path, capsys):
    models["evidence"].save_pretrained(tmp_path / "fused")
    hf_tokenizer.save(tiny.tokenizer, tmp_path / "fused")
    text = ["--corpora", f"folder:{colour_folder}", "--limit", "2"]
    assert harness.main([str(tmp_path / "fused"), *text]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [*(f"perplexity_{d}" for d in tiny.domains)] + [
        "completion"
    ] * 2
    assert all(float(line[2]) >= 0 for line in lines)
    assert harness.main([str(tmp_path / "none"), *text]) == 1
    assert capsys.readouterr().err.endswith("is not a folder: give that of a saved model\n")


def test_without_the_harness_the_way_to_it_is_named(tiny, models, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.evaluator", None)
    with pytest.raises(ModuleNotFoundError, match=r"make evaluate .*\[eval\]"):
        harness.evaluate(models["red"], tiny.tokenizer, [])
