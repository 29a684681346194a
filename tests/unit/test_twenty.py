"""The recording of the twenty, end to end on a tiny Llama: stopped anywhere, it ends the same."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kalavai_helpers import (
    artifacts,
    checkpoints,
    corpora,
    evaluation,
    kept_ledger,
    kept_runs,
    last_states,
    packing,
    parallel,
    progress,
    recording,
    routing,
    teams,
    tiers,
    twenty,
)
from kalavai_helpers.__main__ import LEFT, main
from kalavai_helpers.twenty import Study, Team

TEAMS = (
    Team("whole", ("red", "green"), chunks=5),
    Team("pair", ("blue", "red"), router_seeds=(0, 1), chunks=6, switches=True, interleaves=True),
    Team("pair 137", ("blue", "red"), 137, chunks=6),
)
PROMPTS = (("one", "apple cherry brick."), ("two", "sky sea, ink rose"))


@pytest.fixture(scope="module")
def llama(colour_folder):
    """Base and tokenizer in place of a published checkpoint."""
    documents = [
        d for name in ("red", "green") for d in corpora.load(f"folder:{colour_folder}", name)
    ]
    tokenizer = packing.train_tokenizer(documents, 300)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
        return LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture(scope="module")
def study(llama, colour_folder, tmp_path_factory):
    """A recorded study of three domains in a store of its own."""
    base, tokenizer = llama
    home = tmp_path_factory.mktemp("twenty")
    tier = replace(
        tiers.get(tiers.PRETRAINED),
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        n_layers=3,
        n_heads=2,
        seq_len=32,
        specialist_steps=4,
        specialist_lr=3e-2,
        frozen_layers=1,
        heldout_windows=4,
        router_windows=4,
        router_steps=5,
        cpu_bf16=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        # In this process: the workers of another would load the published checkpoint.
        patch.setattr(parallel, "as_done", lambda tasks: ((i, t()) for i, t in enumerate(tasks)))
        patch.setattr(checkpoints, "load", lambda tier: base)
        patch.setattr(twenty, "TOGETHER", 2)  # so that a reading has several pieces
        patch.setattr(checkpoints, "tokenizer", lambda tier: tokenizer)
        patch.setattr(checkpoints, "described", lambda tier: {"name": "a tiny Llama"})
        patch.setenv("KALAVAI_STORE", str(home / "store"))
        patch.setenv(artifacts.KEPT_VARIABLE, str(home / "kept"))
        made = Study(tier, f"folder:{colour_folder}", TEAMS, texts=PROMPTS)
        assert record(made) == []
        yield made


def record(study, minutes=None):
    return recording.run(study.steps, study.state, minutes, say=lambda line: None)


def ledger_bytes():
    return (kept_ledger.folder() / "ledger.safetensors").read_bytes()


@pytest.fixture
def elsewhere(study, tmp_path, monkeypatch):
    """The same study with nothing of it in the store, and the ledger that it should end in."""
    whole = ledger_bytes()
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path / "store"))
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(tmp_path / "kept"))
    return replace(study), whole


class Clock:
    """Time is up at the n-th look at it in a session."""

    def __init__(self, looks):
        self.looks, self.left = looks, looks

    def restart(self):
        self.left = self.looks

    def up(self):
        self.left -= 1
        return self.left < 0


def test_a_recording_that_is_stopped_time_and_again_ends_in_the_same_ledger(elsewhere, monkeypatch):
    study, whole = elsewhere
    clock = Clock(16)
    monkeypatch.setattr(progress, "stop_after", lambda seconds: None)
    monkeypatch.setattr(progress, "time_is_up", clock.up)
    left = [len(study.steps({}))]
    while left[-1]:
        clock.restart()
        left.append(len(record(study, minutes=1)))
    assert len(left) > 4
    assert left == sorted(left, reverse=True)
    assert ledger_bytes() == whole


def test_a_recording_that_is_killed_while_it_writes_ends_in_the_same_ledger(elsewhere, monkeypatch):
    study, whole = elsewhere
    save, writes = artifacts.save_tensors, []

    def killed(path, *arguments):
        writes.append(path)
        if len(writes) % 11 == 0:
            raise KeyboardInterrupt
        return save(path, *arguments)

    monkeypatch.setattr(artifacts, "save_tensors", killed)
    left = True
    while left:
        try:
            left = record(study)
        except KeyboardInterrupt:
            continue
    assert len(writes) > 33
    assert ledger_bytes() == whole


def test_logit_mixtures_are_those_of_the_experts_own_logits(study):
    for team in study.teams:
        for part in study.parts_of(team):
            found, tokens = study.view(part, team)
            columns = study.columns(team, part)
            windows = packing.concatenate(list(study.windows[part].values()))
            real = torch.from_numpy(windows.targets != packing.IGNORE)
            ids, targets = torch.from_numpy(windows.input_ids), torch.from_numpy(windows.targets)
            coop = study.of_team(team)
            logits = torch.stack([coop.model(d)(ids).logits[real] for d in team.domains], 1)[tokens]
            wanted = targets[real][tokens][:, None]
            gates = routing.ledger_gates(routing.EvidenceRouter(), found)
            for name, weights in {
                "uniform": torch.full_like(gates, 1 / gates.shape[1]),
                "evidence": gates,
                **{
                    name.split(": ")[1].removesuffix(", gates"): column[
                        study.kept[part].window[tokens]
                    ]
                    for name, column in columns.items()
                    if name.endswith(", gates")
                },
            }.items():
                direct = (weights[..., None] * logits).sum(1).log_softmax(-1).gather(1, wanted)
                ours = columns[f"{team.name}: {name}, logits"]
                assert torch.allclose(ours[tokens].double(), direct[:, 0].double(), atol=1e-5)
                assert int(ours.isnan().sum()) == len(ours) - len(tokens)


def test_a_pooled_router_reads_the_mean_of_what_the_experts_make_of_a_window(study):
    team = study.teams[1]
    coop = study.of_team(team)
    router = study.pooled(team, 0, lambda: study.pool(team))
    column = study.columns(team, "heldout")["pair: pooled 0, gates"]
    window = next(iter(study.windows["heldout"]["red"].input_ids))
    states = [
        coop.model(d).model(torch.tensor(window)[None]).last_hidden_state for d in team.domains
    ]
    expected = router.weigh(torch.stack(states).mean((0, 2)))
    assert torch.allclose(column[0], expected[0], atol=1e-4)


def test_the_weight_average_of_a_team_is_that_of_its_specialists(study):
    team = study.teams[1]
    assert "whole: weight_average" not in study.columns(study.teams[0], "heldout")
    column = study.columns(team, "heldout")["pair: weight_average"]
    windows = packing.concatenate(list(study.windows["heldout"].values()))
    ids, targets = torch.from_numpy(windows.input_ids), torch.from_numpy(windows.targets)
    logits = study.of_team(team).model("weight_average")(ids).logits.log_softmax(-1)
    direct = logits.gather(-1, targets[..., None]).flatten()
    _, tokens = study.view("heldout", team)
    assert torch.allclose(column[tokens], direct[tokens], atol=1e-5)


def test_the_divergence_is_that_of_the_own_specialist_from_the_base(study):
    team = study.teams[2]
    coop = study.of_team(team)
    column = study.columns(team, "heldout")["pair 137: kl"]
    found, tokens = study.view("heldout", team)
    ids = torch.from_numpy(study.windows["heldout"]["blue"].input_ids)
    log_p, log_q = (
        coop.model(m)(ids).logits.log_softmax(-1).flatten(0, 1) for m in ("blue", "base")
    )
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    own = found.token_group == found.groups.index("blue")
    assert torch.allclose(column[tokens][own], expected, atol=1e-5)
    assert (expected > 1e-4).all()


def test_what_is_read_back_is_what_plain_models_say(study):
    kept = kept_ledger.read()
    heldout = kept.parts["heldout"]
    seeded = [kept_ledger.of_seed(domain, 137) for domain in ("blue", "red")]
    assert heldout.models == ("base", "red", "green", "blue", *seeded, "weight_average")
    assert kept.parts["router"].models == heldout.models[:-1]
    windows = packing.concatenate(list(study.windows["heldout"].values()))
    assert len(heldout) == windows.n_tokens == 3 * 4 * 32
    ids, targets = torch.from_numpy(windows.input_ids), torch.from_numpy(windows.targets)
    whole = study.cooperative(study.domains)
    other = study.of_team(study.teams[2])
    for name, model in {
        "base": whole.model("base"),
        "green": whole.model("green"),
        seeded[0]: other.model("blue"),
        "weight_average": study.of_team(study.teams[0]).model("weight_average"),
    }.items():
        logits = model(ids).logits.log_softmax(-1)
        direct = logits.gather(-1, targets[..., None]).flatten()
        there = ~heldout.column(name).isnan()
        assert int(there.sum()) == (2 if name in seeded else 3) * 4 * 32
        assert torch.allclose(heldout.column(name)[there], direct[there], atol=5e-3), name
    pairs = ("blue → red", "red → blue")
    assert kept.parts["switching"].groups == (*pairs, "16", "32", "64", "128", "256", "whole")
    assert "".join(kept.tokens) == "".join(text for _, text in PROMPTS)
    assert kept.about["recipe"]["specialist_steps"] == 4
    assert kept.about["durations_s"]["specialist red, seed 42"] >= 0
    document = study.windows["heldout"]["red"].documents[0]
    assert kept.digests["heldout"][0] == kept_ledger.digest(document.text)


def test_a_reader_fits_the_routers_that_were_recorded(study):
    """Gates of a router that the reader fits belong to the recorded logit mixture."""
    kept, team = kept_ledger.read(), study.teams[1]
    fitting, found = (kept.parts[p].restrict(team.domains) for p in ("router", "heldout"))
    ours = evaluation.route(found, {"linear": routing.fit_linear(fitting)})["linear"].gates
    view, _ = study.view("heldout", team)
    theirs = routing.ledger_gates(kept_runs.routers(study.view("router", team)[0])["linear"], view)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_kept_run_has_what_was_recorded_of_its_team(study):
    kept = kept_ledger.read()
    for team in study.teams:
        run = kept_runs.of(kept, team)
        columns = study.columns(team, "heldout")
        _, tokens = study.view("heldout", team)
        pooled = [name for name in run.fused if name.startswith("pooled")]
        assert len(pooled) == len(team.router_seeds)
        for name, fused in run.fused.items():
            weights = fused.gates.sum(-1)
            assert torch.allclose(weights, torch.ones_like(weights), atol=1e-6)
            title = name if name.endswith(kept_runs.LOGITS) else f"{name}, logits"
            if name in pooled or name.endswith(kept_runs.LOGITS):
                recorded = columns[f"{team.name}: {title}"][tokens]
                assert torch.allclose(fused.log_probs, recorded, atol=1e-3)
        windows = study.kept["heldout"].window[tokens]
        recorded = columns[f"{team.name}: {pooled[0]}, gates"][windows]
        assert torch.equal(run.fused[pooled[0]].gates, recorded)
        expected = run.ledger.expert_log_probs.exp().mean(1).log()
        assert torch.allclose(run.fused["uniform"].log_probs.double(), expected, atol=1e-5)
        assert run.ledger.models[-1] == "weight_average"
        assert torch.allclose(
            kept_runs.kl(kept, team), columns[f"{team.name}: kl"][tokens], atol=1e-3
        )


def test_a_team_that_did_not_read_a_part_has_no_run_on_it(study):
    with pytest.raises(KeyError, match="'pair 137' did not read"):
        kept_runs.of(kept_ledger.read(), study.teams[2], "switching")


def test_specialists_are_trained_once_for_all_teams(study):
    names = [step.name for step in study.steps({}) if step.name.startswith("specialist")]
    assert names == [
        *(f"specialist {name}, seed 42" for name in ("red", "green", "blue")),
        "specialist blue, seed 137",
        "specialist red, seed 137",
    ]


def test_teams_that_cannot_share_specialists_are_refused(study):
    with pytest.raises(ValueError, match="probe_windows is 0"):
        replace(study, tier=replace(study.tier, probe_windows=2))


def test_states_that_were_not_kept_are_named(study, tmp_path, monkeypatch):
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path))
    reading = next(study.readings("router"))
    with pytest.raises(FileNotFoundError, match="router-base"):
        last_states.read(
            study.cooperative(reading.domains), study.windows["router"], "router", reading.models
        )


def test_a_text_source_without_all_domains_is_refused(colour_folder):
    with pytest.raises(corpora.CorpusError, match="has no text of arabic, chemistry"):
        Study.of(tiers.get(tiers.PRETRAINED), f"folder:{colour_folder}")


def test_the_published_twenty_are_twenty_and_science_is_read_beside_them():
    assert len(set(teams.TWENTY)) == 20
    study = Study(tiers.get(tiers.PRETRAINED), "builtin")
    assert study.domains == (*teams.TWENTY, "science")
    assert {team.seed for team in study.teams} == {42, 137, 2026}


def test_the_command_says_what_is_left_and_ends_with_its_own_code(
    study, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(Study, "of", lambda tier, spec: study)
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path))
    command = ["record", "--tier", tiers.PRETRAINED, "--corpora", study.corpora]
    assert main([*command, "--minutes", "1e-9"]) == LEFT
    said = capsys.readouterr().out
    assert "left: specialist" in said
    assert "Run the same command again" in said
    assert artifacts.read_json(study.state)["left_s"] > 0
    monkeypatch.undo()
    monkeypatch.setattr(Study, "of", lambda tier, spec: study)
    assert main(command) == 0
    assert "is complete" in capsys.readouterr().out
    assert artifacts.read_json(study.state)["left"] == []
