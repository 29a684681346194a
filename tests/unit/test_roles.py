"""Who may read which split: every fit and every evaluation refuses text that is not for it."""

from dataclasses import fields, replace

import pytest
import torch

from kalavai_helpers import (
    collapse,
    contract,
    corpora,
    dispatch,
    durations,
    evaluation,
    experiment,
    expert_states,
    forecast_runs,
    fusion,
    harness,
    languages,
    ledger,
    membership,
    mixing_oracle,
    multihead,
    packing,
    pooled_fit,
    protocols,
    router_fit,
    routing,
    scoring,
    switching,
    training,
    trunk_router,
)
from kalavai_helpers.corpora import RoleError
from kalavai_helpers.specialists import Cooperative


@pytest.fixture(scope="module")
def ledgers(tiny):
    return {role: ledger.build(tiny, role) for role in ("train", "router", "heldout")}


def test_split_says_on_every_document_what_it_is_for(colour_folder):
    for domain in ("red", "blue"):
        for role, documents in corpora.split(f"folder:{colour_folder}", domain).items():
            assert {document.role for document in documents} == {role}
    assert {d.role for d in corpora.load(f"folder:{colour_folder}", "red")} == {""}


def test_a_base_reads_text_of_role_base_alone(tmp_path, colour_folder):
    for name in ("red", "blue"):
        source = colour_folder / f"{name}.jsonl.xz"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    # General text that is a domain's text as well: half of it would be held out.
    (tmp_path / "general.jsonl.xz").write_bytes((colour_folder / "red.jsonl.xz").read_bytes())
    mix = corpora.base_mix(f"folder:{tmp_path}", 100_000)
    assert corpora.role_of(mix) == "base"
    kept = {document.text for document in mix}
    for role in ("train", "router", "heldout"):
        assert not kept & {d.text for d in corpora.split(f"folder:{tmp_path}", "red")[role]}


def test_text_of_several_roles_or_of_none_is_refused(tiny):
    parts = corpora.split(tiny.corpora, "red")
    mixed = [parts["router"][0], parts["heldout"][0]]
    for documents in (mixed, []):
        with pytest.raises(RoleError, match="take all of them from one list"):
            corpora.role_of(documents)
    with pytest.raises(RoleError, match="'heldout', 'router'"):
        packing.pack(mixed, tiny.tokenizer, 16)
    with pytest.raises(RoleError, match="'heldout', 'router'"):
        corpora.joined(*mixed, "both")
    text = {d: tiny.windows(r, d) for d, r in (("red", "router"), ("blue", "heldout"))}
    with pytest.raises(RoleError, match="'heldout', 'router'"):
        ledger.of_windows(tiny, text, "heldout")


def test_the_role_of_a_ledger_is_that_of_its_documents_whatever_it_is_called(tiny, ledgers):
    assert {role: found.role for role, found in ledgers.items()} == {r: r for r in ledgers}
    text = {d: tiny.windows("router", d) for d in tiny.domains}
    assert ledger.of_windows(tiny, text, "heldout").role == "router"
    assert expert_states.build(tiny, "router").role == "router"
    assert ledgers["router"].restrict(("red",)).role == "router"


def test_made_documents_have_the_role_of_their_parts(tiny):
    for role in ("train", "heldout"):
        text = {d: tiny.windows(role, d) for d in tiny.domains}
        made = ledger.switching(text, tiny.tier.seq_len)
        assert {windows.role for windows in made.values()} == {role}
    assert {w.role for w in switching.interleaved(tiny, 6, half=64).values()} == {"heldout"}


def test_switching_documents_of_an_experiment_are_made_of_heldout_ones(tiny, monkeypatch):
    made = []
    monkeypatch.setattr(
        experiment, "_evaluate", lambda coop, parts, *rest: made.append(parts) or (None, None)
    )
    whole = ledger.build(tiny)
    missing = dict.fromkeys(f.name for f in fields(experiment.Experiment))
    experiment.Experiment(**missing | {"cooperative": tiny, "ledger": whole}).switching()
    assert {windows.role for windows in made[0].values()} == {"heldout"}
    assert len(made[0]) == 6


def states_of(found):
    return torch.zeros(len(found), 4), torch.zeros(len(found), dtype=torch.long)


FITS = {
    "linear": routing.fit_linear,
    "em": router_fit.fit_em,
    "sgd": lambda found: router_fit.fit_sgd(found, steps=1),
    "mlp": lambda found: router_fit.fit_mlp(found, steps=1),
    "prefix": router_fit.fit_prefix_mean,
    "alpha": router_fit.fit_alpha,
    "log-linear": lambda found: router_fit.fit_log_linear(found, (0.1,)),
    "trunk": lambda found: trunk_router.fit(found, *states_of(found), 3),
    "classifier": dispatch.fit,
    "mixing oracle": lambda found: mixing_oracle.route(found, found),
    "skewed": collapse.skewed,
}


@pytest.mark.parametrize("role", ["train", "heldout", ""])
@pytest.mark.parametrize("name", FITS)
def test_a_router_is_fitted_on_router_documents_only(ledgers, name, role):
    found = replace(ledgers[role or "heldout"], role=role)
    with pytest.raises(RoleError, match=f"role 'router', not '{role}'"):
        FITS[name](found)


@pytest.mark.parametrize("name", FITS)
def test_router_documents_are_accepted(ledgers, name):
    FITS[name](ledgers["router"])


def gates_of(found):
    return torch.full((len(found), len(found.experts)), 1 / len(found.experts)).double()


EVALUATIONS = {
    "losses": evaluation.losses,
    "account": lambda f: evaluation.account(f, "base", f.column("base"), gates_of(f)),
    "summary": lambda f: evaluation.summary([(f, {})]),
    "bits": lambda f: evaluation.bits_per_byte(f, f.column("base")),
    "share": lambda f: evaluation.token_share([(f, f.column("base") < 0)]),
    "regret": lambda f: evaluation.document_regret(f, f.column("base")),
    "protocol": lambda f: protocols.loss(f, f.column("base"), protocols.Protocol()),
    "improvements": lambda f: protocols.improvements(f, {}, protocols.Protocol()),
    "accuracy": lambda f: dispatch.accuracy(f, None),
    "join": lambda f: membership.join(f, "new", f.column("base")),
    "worth": membership.worth,
    "costs": lambda f: languages.costs(f, {}),
    "factor": lambda f: languages.perplexity_factor(f, "red", f.column("base")),
    "contributions": lambda f: languages.contributions(f, f.column("base")),
    "captured": lambda f: collapse.captured(f, f.column("base")),
    "collapse": lambda f: collapse.study(None, f),
}


@pytest.mark.parametrize("role", ["train", "router", ""])
@pytest.mark.parametrize("name", EVALUATIONS)
def test_methods_are_compared_on_heldout_documents_only(ledgers, name, role):
    found = replace(ledgers["heldout"], role=role)
    with pytest.raises(RoleError, match=f"role 'heldout', not '{role}'"):
        EVALUATIONS[name](found)


def test_models_are_run_for_their_loss_on_heldout_windows_only(tiny):
    windows = tiny.windows("router", "red")
    experts = {domain: tiny.model(domain) for domain in tiny.domains}
    model = fusion.fuse(tiny.model("base"), experts, "uniform", 1)
    with pytest.raises(RoleError, match="not 'router'"):
        scoring.score(model, windows, "test")
    with pytest.raises(RoleError, match="not 'router'"):
        contract.measure(model, windows, (0.1,))


@pytest.fixture
def other_role(monkeypatch, request):
    """Every cooperative hands out documents of another role than it is asked for."""
    documents = Cooperative.documents
    role = request.param
    monkeypatch.setattr(
        Cooperative, "documents", lambda self, domain, _: documents(self, domain, role)
    )
    return role


ENDS = {
    "specialist": lambda tiny, _: tiny.train("red"),
    "pooled model": lambda tiny, _: multihead.train(tiny),
    "published router": lambda tiny, _: pooled_fit.build(tiny),
    "dispatcher": lambda tiny, _: dispatch.Dispatcher.of(tiny),
    "experiment": lambda tiny, _: experiment.run(tiny),
    "forecast": lambda tiny, folder: forecast_runs._keep(
        folder / "red-0.safetensors",
        tiny,
        None,
        None,
        ([tiny.windows("heldout", d) for d in tiny.domains], forecast_runs._probe_text(tiny)),
        {},
    ),
}


@pytest.mark.parametrize("other_role", ["heldout"], indirect=True)
@pytest.mark.parametrize("name", ENDS)
def test_nothing_is_trained_or_fitted_where_heldout_documents_are_handed_out(
    tiny, other_role, name, tmp_path
):
    with pytest.raises(RoleError, match="not 'heldout'"):
        ENDS[name](tiny, tmp_path)


SCORED = {
    "durations": lambda tiny: durations.measure({durations.Condition(30, 1, 42): tiny}),
    "pooled routers": lambda tiny: pooled_fit.fit_all(tiny, [(0, None, 0)]),
}


@pytest.mark.parametrize("other_role", ["router"], indirect=True)
@pytest.mark.parametrize("name", SCORED)
def test_nothing_is_scored_where_router_documents_are_handed_out(
    tiny, other_role, name, monkeypatch
):
    monkeypatch.setattr(durations, "train_all", lambda cooperatives: None)
    with pytest.raises(RoleError, match="'heldout', not 'router'"):
        SCORED[name](tiny)


@pytest.mark.parametrize("role", ["router", "heldout"])
def test_models_train_on_base_and_training_text_only(role, tiny, tmp_path):
    chunks = packing.pack(tiny.documents("red", role), tiny.tokenizer, 16)
    assert chunks.role == role
    recipe = training.Recipe(1, 4, 1e-3, 1)
    with pytest.raises(
        RoleError, match=f"red takes documents of role 'base' or 'train', not '{role}"
    ):
        training.train(tiny.model("base"), chunks, recipe, tmp_path / "m", "red")
    with pytest.raises(RoleError, match=f"'train', not '{role}"):
        scoring.fit_pooled(tiny.model("base"), {}, 1, chunks, 1, 0)


def test_tasks_of_the_harness_hold_heldout_text(tiny, monkeypatch):
    harness.local_tasks(tiny.corpora, tiny.domains, per_domain=4)
    parts = corpora.split
    monkeypatch.setattr(corpora, "split", lambda *given: {"heldout": parts(*given)["router"]})
    with pytest.raises(RoleError, match="not 'router'"):
        harness.local_tasks(tiny.corpora, tiny.domains, per_domain=4)


def test_probes_on_the_way_decide_nothing(tiny, tmp_path):
    """Training with other held-out probes, or none, ends in the same weights."""
    chunks = packing.pack(tiny.documents("red", "train"), tiny.tokenizer, tiny.tier.seq_len)
    recipe = training.Recipe(8, 4, 1e-3, 1)
    ends = []
    for index, probes in enumerate(({}, {"red": tiny.windows("heldout", "red")})):
        model = tiny.model("base")
        training.train(model, chunks, recipe, tmp_path / f"{index}.safetensors", "x", probes=probes)
        ends.append(torch.cat([p.flatten() for p in model.state_dict().values()]))
    assert torch.equal(*ends)
