"""Training resumes to the bit, stops at the first loss that is not finite, and forgets nothing."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import decoders
import numpy as np
import pytest
import torch

from kalavai_helpers import artifacts, models, packing, training
from kalavai_helpers.training import Recipe

RECIPE = Recipe(steps=60, batch_size=4, lr=3e-3, seed=1, frozen_layers=1)


def chunks(n=40, seq_len=24, vocab=50, seed=0):
    ids = np.random.default_rng(seed).integers(0, vocab, (n, seq_len + 1))
    return packing.Chunks(ids.astype(np.int32), np.zeros_like(ids), "train")


@pytest.fixture
def model(tiny_tier):
    return models.new_base(tiny_tier, 50, seed=0)


def run(model, path, recipe=RECIPE, checkpoint_s=0, **options):
    return training.train(
        model, chunks(), recipe, path, "test", checkpoint_s=checkpoint_s, **options
    )


def test_warm_up_then_cosine_to_zero():
    rates = [RECIPE.lr_at(step) for step in range(RECIPE.steps)]
    assert rates[:6] == pytest.approx([RECIPE.lr * (i + 1) / 6 for i in range(6)])
    assert max(rates) == pytest.approx(RECIPE.lr)
    assert all(b < a for a, b in itertools.pairwise(rates[6:]))
    assert rates[-1] < 0.01 * RECIPE.lr


def test_a_schedule_longer_than_the_training_ends_near_its_peak():
    long = replace(RECIPE, schedule=14.3)
    assert long.lr_at(0) == RECIPE.lr_at(0)
    assert 0.98 * RECIPE.lr < long.lr_at(RECIPE.steps - 1) < RECIPE.lr


def test_every_chunk_is_seen_once_an_epoch_in_fresh_order():
    epochs = [
        np.concatenate([RECIPE.rows(12, step) for step in range(3 * e, 3 * e + 3)]) for e in (0, 1)
    ]
    assert [sorted(rows) for rows in epochs] == [list(range(12))] * 2
    assert (epochs[0] != epochs[1]).any()


def test_frozen_parts_stay_as_in_the_base(model, tmp_path):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run(model, tmp_path / "m.safetensors")
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not [k for k in moved if "embed_in" in k or ".layers.0." in k]
    assert [k for k in moved if ".layers.1." in k]
    assert any("lm_head" in k or "embed_out" in k for k in moved)


@pytest.mark.parametrize("family", ["gpt_neox", "llama, tied"])
def test_only_what_trained_is_stored_and_it_fits_onto_the_base(family, tmp_path):
    path = tmp_path / "m.safetensors"
    trained = decoders.base(family)
    run(trained, path)
    tensors, metadata = artifacts.load_tensors(path)
    base = decoders.base(family)
    models.freeze(base, RECIPE.frozen_layers)
    assert set(tensors) == {name for name, p in base.named_parameters() if p.requires_grad}
    assert metadata["autocast"] == "float32"
    training.overlay(base, tensors)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, base.state_dict()[name]), name


def test_weights_of_another_model_are_refused(model):
    with pytest.raises(RuntimeError, match=r"GPTNeoXForCausalLM has no model\.norm\.weight"):
        training.overlay(model, {"model.norm.weight": torch.ones(16)})


@pytest.mark.parametrize("autocast", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt_neox", "llama, tied"])
def test_an_interrupted_run_resumes_to_identical_weights(family, autocast, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = decoders.base(family)
    run(model, tmp_path / "whole.safetensors", autocast=autocast)
    broken = decoders.base(family)
    save = training._checkpoint

    def save_then_die(*args):
        save(*args)
        if args[-1] == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        run(broken, path, autocast=autocast)
    monkeypatch.setattr(training, "_checkpoint", save)
    resumed = decoders.base(family)
    run(resumed, path, autocast=autocast)
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not path.with_suffix(".state").exists()


def test_autocast_computes_in_bfloat16_and_keeps_float32_weights(model, tiny_tier, tmp_path):
    seen = []

    def objective(model, batch, rows):
        seen.append(model(batch[:, :-1]).logits.dtype)
        return training.next_token_loss(model, batch, rows)

    half = models.new_base(tiny_tier, 50, seed=0)
    run(model, tmp_path / "whole.safetensors")
    run(half, tmp_path / "half.safetensors", autocast=torch.bfloat16, objective=objective)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert not torch.equal(half.lm_head.weight, model.lm_head.weight)
    assert torch.allclose(half.lm_head.weight, model.lm_head.weight, atol=0.02)
    assert artifacts.load_tensors(tmp_path / "half.safetensors")[1]["autocast"] == "bfloat16"


def test_a_run_resumes_wholly_on_the_device_of_its_weights(model, tmp_path):
    """The fused step fails where its counter is on the CPU and the weights are not."""
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(named.values(), fused=True)
    model(torch.arange(8)[None]).logits.sum().backward()
    optimizer.step()
    path = tmp_path / "m.state"
    training._checkpoint(path, named, optimizer, training.History(), 1)
    elsewhere = dict(model.to("meta").named_parameters())
    optimizer = torch.optim.AdamW(elsewhere.values(), fused=True)
    assert training._resume(path, elsewhere, optimizer)[1] == 1
    held = [tensor for p in elsewhere.values() for tensor in optimizer.state[p].values()]
    assert {tensor.device.type for tensor in held} == {"meta"}


def test_what_no_batch_has_reached_resumes_as_well(model, tmp_path):
    named = {**dict(model.named_parameters()), "unused": torch.nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.AdamW(named.values(), fused=True)
    model(torch.arange(8)[None]).logits.sum().backward()
    optimizer.step()
    path = tmp_path / "m.state"
    training._checkpoint(path, named, optimizer, training.History(), 1)
    optimizer = torch.optim.AdamW(named.values(), fused=True)
    training._resume(path, named, optimizer)
    assert not optimizer.state[named["unused"]]
    assert optimizer.state[model.lm_head.weight]


@pytest.mark.parametrize(("save_s", "pause_s"), [(0.01, 20), (2, 40), (30, 120)])
def test_checkpoints_cost_little_and_a_kill_costs_two_minutes_at_most(save_s, pause_s):
    assert training._pause_s(save_s) == pytest.approx(pause_s)


def test_a_dear_checkpoint_comes_less_often(model, tmp_path, monkeypatch):
    """Seconds that pass are pretended: two a step, eight a checkpoint."""
    now, steps = [0.0], []

    def objective(model, batch, rows):
        now[0] += 2
        return training.next_token_loss(model, batch, rows)

    def checkpoint(path, named, optimizer, history, step):
        now[0] += 8
        steps.append(step)

    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(training, "_checkpoint", checkpoint)
    recipe = replace(RECIPE, steps=160)
    run(model, tmp_path / "m.safetensors", recipe, None, objective=objective)
    assert steps == [10, 70, 130]


def test_kill_9_at_any_moment_leaves_identical_weights(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            import decoders, numpy as np, torch
            torch.set_num_threads(1)
            from kalavai_helpers import packing, training
            ids = np.random.default_rng(0).integers(0, 50, (40, 25)).astype(np.int32)
            model = decoders.base("llama, tied")
            print("ready", flush=True)
            training.train(
                model, packing.Chunks(ids, ids, "train"), training.Recipe(400, 4, 3e-3, 1, 1),
                Path(sys.argv[1]), "test", checkpoint_s=0,
            )
            """
        )
    )
    places = (artifacts.PACKAGE.parent, Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}

    def start(target):
        command = [sys.executable, str(script), str(target)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    assert start(whole).wait(120) == 0
    kills = 0
    for delay in (0.4, 0.9):
        process = start(killed)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        kills += process.wait(60) == -signal.SIGKILL
    assert kills, "the runs ended before they could be killed: train longer"
    assert start(killed).wait(120) == 0
    a, b = artifacts.load_tensors(whole)[0], artifacts.load_tensors(killed)[0]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_truncated_checkpoint_is_set_aside_and_training_starts_again(model, tiny_tier, tmp_path):
    path = tmp_path / "m.safetensors"
    path.with_suffix(".state").write_bytes(b"\x08\x00")
    with pytest.warns(artifacts.CorruptArtifactWarning, match=r"m\.state"):
        run(model, path)
    assert path.exists()
    assert (tmp_path / "m.state.corrupt").exists()


def test_a_finished_model_is_loaded_not_trained(model, tiny_tier, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    history = run(model, path, probes={})
    monkeypatch.setattr(torch.optim, "AdamW", None)  # any training would now fail
    path.with_suffix(".state").touch()  # as after a kill between the last two files
    again = models.new_base(tiny_tier, 50, seed=5)
    assert run(again, path).steps == history.steps
    assert not path.with_suffix(".state").exists()
    assert torch.equal(again.state_dict()["lm_head.weight"], model.state_dict()["lm_head.weight"])


def test_a_loss_that_is_not_finite_names_chapter_model_and_step(model, tmp_path, monkeypatch):
    monkeypatch.setenv("KALAVAI_CHAPTER", "09_test")
    path = tmp_path / "m.safetensors"
    calls = 0
    cross_entropy = torch.nn.functional.cross_entropy

    def poisoned(*args, **kwargs):
        nonlocal calls
        calls += 1
        return cross_entropy(*args, **kwargs) * (float("nan") if calls == 34 else 1.0)

    monkeypatch.setattr(training.functional, "cross_entropy", poisoned)
    with pytest.raises(
        training.TrainingDivergedError, match=r"09_test, test: loss nan.* step 33 of 60"
    ):
        run(model, path)
    assert not path.exists()
    saved = artifacts.load_tensors(path.with_suffix(".state"))
    assert saved[1]["step"] <= 33
    assert all(tensor.isfinite().all() for tensor in saved[0].values())


def test_probes_are_kept_in_order_with_their_steps(model, tmp_path):
    windows = packing.windows_of_ids([[1, 2, 3, 4]] * 3, [None] * 3, 0, 24)
    history = run(model, tmp_path / "m.safetensors", probes={"a": windows}, n_probes=4)
    assert history.steps == [0, 15, 30, 45, 60]
    assert [set(probe) for probe in history.probes] == [{"a"}] * 5
    assert history.tokens_per_s > 0
