"""A budget counts what is left, weighs it by a probe, and says what no probe can tell here."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kalavai_helpers import __main__ as command_line
from kalavai_helpers import artifacts, budget, ledger, recording, tiers, twenty


@pytest.fixture
def fresh(tiny, tmp_path, monkeypatch):
    """The tiny cooperative, of which a store of its own has nothing yet; no worker processes."""
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    return replace(tiny)


@pytest.fixture
def fixed(monkeypatch):
    """Probes of known outcome."""
    found = budget.Probe(2.0, 0.5, 0.0, 1000, 5000, shared=0.25)
    monkeypatch.setattr(budget, "probe", lambda cooperative, name: found)
    return found


def test_steps_and_seconds_add_up(fresh, fixed):
    tier = fresh.tier
    told = budget.of(fresh)
    base, specialists, ledgers = told.parts
    assert (base.steps, base.seconds) == (tier.base_steps, 2 * tier.base_steps)
    assert specialists.steps == 3 * tier.specialist_steps
    curves = 9 * tier.probe_windows * 3 * 0.5
    assert specialists.seconds == pytest.approx(
        3 * (2 * tier.specialist_steps + curves), abs=0.5
    )  # and what the call itself took
    n_windows = {
        role: sum(len(fresh.windows(role, d).input_ids) for d in fresh.domains)
        for role in ("heldout", "router")
    }
    passes = n_windows["heldout"] * (0.25 + 5 * 0.75) + n_windows["router"] * (0.25 + 4 * 0.75)
    assert ledgers.seconds == pytest.approx(0.5 * passes)
    assert told.steps == base.steps + specialists.steps
    assert told.seconds == pytest.approx(sum(part.seconds for part in told.parts))
    assert told.memory_bytes == 5000


def test_what_the_store_has_costs_nothing(tiny, fixed):
    told = budget.of(tiny)
    assert (told.steps, told.seconds, told.disk_bytes) == (0, 0, 0)
    assert "everything is trained" in told.where
    one = replace(tiny, seed=1)
    one.train("red")
    (specialists, _) = budget.of(one).parts
    assert specialists.number == 2


def test_the_disk_is_what_training_and_scoring_leave(fresh):
    told = budget.of(fresh)
    for domain in fresh.domains:
        fresh.train(domain)
    for role in ("heldout", "router"):
        ledger.build(fresh, role)
    folders = [artifacts.store() / name for name in ("models", "ledgers")]
    used = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    # A state is told with them, since it is there until its model is finished.
    state = 3 * fresh.path("red").stat().st_size
    assert told.disk_bytes == pytest.approx(used + state, rel=0.3)


def test_a_probe_measures_and_leaves_nothing(fresh):
    fresh.train("base")
    before = sorted(artifacts.store().rglob("*"))
    found = budget.probe(fresh, "red")
    assert 0 < found.step_s < found.busy_s
    assert 0 < found.window_s < found.busy_s
    assert 0 < found.shared < 1
    assert found.memory_bytes > 1e7
    assert sorted(artifacts.store().rglob("*")) == before


def test_without_the_gpu_the_plan_says_so_and_what_it_can(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command_line.main(["plan", "--tier", "pythia-1b", "--steps", "100"]) == 0
    said = capsys.readouterr().out
    assert "needs 40 GB of GPU memory, found none" in said
    assert " 300 " in said
    assert "not known here" in said
    assert "memory" not in said.splitlines()[-1]


def test_the_size_of_a_published_model_is_known_without_it():
    """Pythia's own parameter counts: 405.3M, 1,011.8M and 6,857.3M."""
    from kalavai_helpers import baselines

    counts = {"pythia-410m": 405_334_016, "pythia-1b": 1_011_781_632, "pythia-6.9b": 6_857_302_016}
    for name, count in counts.items():
        assert baselines.n_parameters(tiers.get(name)) == count


def test_a_recording_goes_at_the_pace_of_this_machine(tiny, fixed):
    steps = [
        recording.Step("validation 1 of 1", 10 * twenty.STEP_S, lambda: True, print),
        recording.Step("red", 10 * twenty.STEP_S, lambda: False, print, "specialist"),
        recording.Step("blue", 20 * twenty.STEP_S, lambda: False, print, "specialist"),
        recording.Step("heldout", 29.0, lambda: False, print, "reading"),
        recording.Step("ledger", 7.0, lambda: False, print),
    ]
    windows = {"red": tiny.windows("heldout", "red")}
    study = SimpleNamespace(
        tier=tiny.tier,
        domains=tiny.domains,
        windows={"heldout": windows},
        cooperative=lambda domains: tiny,
        steps=lambda durations_s: steps,
        readings=lambda part: [twenty.Reading(("red",), 42, ("base", "red"))],
    )
    told = budget.of_recording(study)
    workers = recording.workers()
    assert [(part.name, part.number, part.steps) for part in told.parts] == [
        ("specialist", 2, 30),
        ("reading", 1, 0),
        ("ledger", 1, 0),
    ]
    expected = ((30 * twenty.STEP_S + 29) / workers + 7) * fixed.step_s / twenty.STEP_S
    assert told.seconds == pytest.approx(expected)
    states = 4 * windows["red"].n_tokens * 2 * (1 + tiny.tier.hidden_size)
    assert told.disk_bytes == (2 + 3 * workers) * fixed.model_bytes + states


def test_a_plan_is_a_table(fresh, fixed):
    lines = list(budget.of(fresh).lines())
    assert lines[0].startswith("tier tiny on cpu")
    assert any(line.startswith("specialists") and " 90 " in line for line in lines)
    assert lines[-2].startswith("disk ")
    assert lines[-1].startswith("memory ")
