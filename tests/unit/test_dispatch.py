"""Dispatch: what the classifier may read, and documents that switch as they claim to."""

import itertools
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kalavai_helpers import (
    corpora,
    dispatch,
    evaluation,
    figure_dispatch,
    ledger,
    packing,
    published,
    released_dispatch,
    switching,
)
from kalavai_helpers.losses import Losses
from kalavai_helpers.packing import IGNORE


@pytest.fixture(scope="module")
def found(tiny):
    return ledger.build(tiny)


@pytest.fixture(scope="module")
def dispatcher(tiny):
    return dispatch.Dispatcher.of(tiny)


def rank_of(found):
    counts = torch.bincount(found.document)
    return torch.arange(len(found)) - (counts.cumsum(0) - counts)[found.document]


def test_pooling_is_the_mean_of_the_tokens_read(found):
    states, document = dispatch.pooled(found, found.document, 5)
    second = (found.document == 1).nonzero().flatten()[:5]
    assert np.allclose(states[1], found.features[second].double().mean(0))
    assert document.tolist() == list(range(found.n_documents))
    of_windows, owner = dispatch.pooled(found, found.window)
    assert len(of_windows) == len(owner) == int(found.window.max()) + 1


def test_the_classifier_tells_domains_apart_and_needs_their_labels(found, tiny, dispatcher):
    table = dispatch.accuracy(found, dispatcher.classifier)
    assert table.accuracy["document"] == 1.0
    assert list(table.index)[-2:] == ["chunk", "document"]
    fitting = ledger.build(tiny, "router")
    turned = replace(fitting, group=(fitting.group + 1) % 3)
    assert dispatch.accuracy(found, dispatch.fit(turned)).accuracy["document"] == 0.0


def test_gates_are_one_vector_a_document_and_sum_to_one(found, dispatcher):
    gates = dispatch.gates(found, dispatcher.classifier)
    assert torch.allclose(gates.sum(1), torch.ones(len(found), dtype=torch.float64))
    for index in range(3):
        assert len(gates[found.document == index].unique(dim=0)) == 1


def test_a_perfect_label_dispatches_to_the_specialist_of_the_domain(found, dispatcher):
    fused = dispatcher.fuse(found)
    table = evaluation.losses(found, {"label": fused["label"].log_probs})
    expected = [table.matrix().loc[d, d] for d in found.groups]
    assert table.by_group("label") == pytest.approx(expected)


def test_documents_of_other_kinds_have_no_owner(found):
    with pytest.raises(ValueError, match="have no owner"):
        dispatch.own_gates(replace(found, groups=("x", "y", "z")))


def test_early_dispatch_reads_nothing_behind_its_decision(found, dispatcher):
    first = 8
    log_probs = dispatch.early(found, dispatcher.classifier, first)
    opening = rank_of(found) < first
    assert torch.equal(log_probs[opening], found.column("base")[opening].double())
    owner = dispatch.gates(found, dispatcher.classifier, first=first).argmax(1)
    chosen = found.expert_log_probs[torch.arange(len(found)), owner]
    assert torch.equal(log_probs[~opening], chosen[~opening])
    noise = torch.randn(found.features.shape, generator=torch.Generator().manual_seed(0))
    later = replace(found, features=torch.where(opening[:, None], found.features, noise))
    assert torch.equal(dispatch.early(later, dispatcher.classifier, first), log_probs)


def test_gains_of_dispatch_and_routing_are_accounted_for_exactly(found, dispatcher):
    assert dispatch.accounting_residual(found, dispatcher.fuse(found)) < 1e-9


def test_a_difference_is_of_the_same_documents():
    table = Losses(
        {"a": np.array([2.0, 4.0]), "b": np.array([1.0, 3.0])},
        np.ones(2),
        np.array([0, 1]),
        ("x", "y"),
        np.array(["s", "t"]),
    )
    expected = evaluation.Estimate(1.0, 1.0, 1.0, "documents", 2)
    assert dispatch.difference([table], "a", "b") == expected
    other = {"a": np.zeros(2), "b": np.ones(2)}
    twice = [
        replace(t, sums={**t.sums, "base": np.ones(2)}) for t in (table, replace(table, sums=other))
    ]
    assert dispatch.compare(twice, {"a": "a"}).loss["a"] == pytest.approx(1.5)
    gap = dispatch.difference(twice, "a", "b", "y")
    assert gap.value == pytest.approx(0.0)
    assert (gap.low, gap.high) == (-1.0, 1.0)  # two bases that disagree by two
    assert gap.over == "documents and 2 bases"


def test_the_text_of_the_base_alone_decides_whether_dispatch_seems_to_lose(tiny, found, dispatcher):
    """Same models, same text: only what the base is measured on differs from row to row."""
    fused = dispatcher.fuse(found)
    models = fused["classifier"].log_probs, fused["evidence"].log_probs
    table = dispatch.references(found, *models, tiny.domains)
    assert list(table.index[:2]) == ["same text", "published choice"]
    assert len(table) == 2 + len(found.groups)
    spoken = table.base_loss * (1 - table.dispatch / 100)  # loss of dispatch
    whole = spoken.drop("published choice")
    assert whole.to_numpy() == pytest.approx(whole["same text"])
    lost = table.base_loss < spoken
    assert ((table.dispatch < 0) == lost).all()


def test_the_same_text_and_the_same_model_improve_on_nothing(tiny, found):
    base = found.column("base")
    table = dispatch.references(found, base, base, tiny.domains)
    assert table.loc["same text", ["dispatch", "fused", "dispatch_low", "fused_high"]].tolist() == (
        [0.0] * 4
    )
    assert table.loc["published choice", "dispatch"] != 0.0


def test_the_published_choice_reads_the_head_of_the_first_domain_for_the_base(tiny, found):
    first = found.token_group == 0
    _, order = found.window[first].unique(return_inverse=True)
    head = round(200 / 316 * (int(order.max()) + 1) / 4) * 4
    behind = torch.zeros(len(found), dtype=torch.bool)
    behind[first.nonzero().flatten()[order >= head]] = True
    spoiled = torch.where(behind | ~first, torch.tensor(-99.0), found.column("base"))
    other = replace(found, log_probs=torch.cat([spoiled[:, None], found.log_probs[:, 1:]], 1))
    tables = [
        dispatch.references(f, found.column("red"), found.column("red"), tiny.domains)
        for f in (found, other)
    ]
    losses = [table.base_loss["published choice"] for table in tables]
    assert behind.any()
    assert losses[0] == losses[1]


@given(st.integers(1, 6), st.integers(1, 40))
def test_interleaving_keeps_every_token_and_the_order_of_each_text(piece, length):
    first, second = list(range(length)), list(range(100, 100 + length))
    woven = switching.interleave(first, second, piece)
    assert [t for t in woven if t < 100] == first
    assert [t for t in woven if t >= 100] == second
    runs = [len(list(run)) for _, run in itertools.groupby(woven, lambda t: t < 100)]
    assert max(runs) == min(piece, length)


def test_interleaved_documents_hold_the_same_tokens_at_every_rate(tiny):
    made = switching.interleaved(tiny, 6, half=64)
    assert list(made) == [*map(str, switching.PIECES), "whole"]
    counts = [Counter(w.targets[w.targets != IGNORE].tolist()) for w in made.values()]
    assert all(count == counts[0] for count in counts)
    used = [d.id for d in made["whole"].documents]
    assert len(set(used)) == len(used) == 2 * len(made["16"].documents)
    pairs = Counter(d.domain for d in made["16"].documents)
    assert len({frozenset(pair.split(" + ")) for pair in pairs}) == 3
    held_out = {d.id for name in tiny.domains for d in corpora.split(tiny.corpora, name)["heldout"]}
    assert set(used) <= held_out


def test_too_short_documents_are_refused_by_name(tiny):
    with pytest.raises(corpora.CorpusError, match="100000 tokens in 'red'"):
        switching.long_documents(tiny, "red", 100_000, 4)


def test_dispatch_loses_where_documents_switch_and_evidence_does_not(tiny, dispatcher):
    mixed = ledger.of_windows(tiny, switching.interleaved(tiny, 6, half=64), "interleaved")
    table = dispatcher.losses(mixed)
    frame = switching.rates(
        [table], {"base": "base", "dispatch": "document_oracle", "e": "evidence"}
    )
    assert (frame[frame.method == "base"].against_base == 0).all()
    at = frame.set_index("method", append=True).loss
    assert at["64", "dispatch"] > at["whole", "dispatch"] + 0.1
    assert at["64", "e"] < at["64", "dispatch"] - 0.1
    views, ticks = switching.views(frame)
    assert ticks == list(table.groups)
    assert all(len(s["y"]) == len(ticks) for view in views.values() for s in view)


@pytest.mark.parametrize(
    ("program", "prose"),
    [
        ('def f():\n    """Say so."""\n    return 1\n', '"""Say so."""'),
        ("x = 1  # one\ny = 2\n", "# one"),
        ("'''Never\nclosed", "'''Never\nclosed"),
        ("x = 1\n", ""),
    ],
)
def test_prose_is_docstrings_and_comments(program, prose):
    mask = switching.is_prose(program)
    assert "".join(c for c, is_prose in zip(program, mask, strict=True) if is_prose) == prose


def test_programs_are_sorted_by_prose_and_the_last_character_of_a_token_decides(monkeypatch):
    """A token that begins with the space before a comment is prose all the same."""
    lines = [f"x = 1 #{' a b c' * (1 + i % 4)}\n" for i in range(12)]
    documents = [corpora.Document(str(i), "code", text, "s") for i, text in enumerate(lines)]
    tokenizer = packing.train_tokenizer(documents, 300)
    read = [tokenizer.encode(text, add_special_tokens=False) for text in lines]
    found = [(encoded.ids, d) for encoded, d in zip(read, documents, strict=True)]
    monkeypatch.setattr(switching, "long_documents", lambda *_: found)
    tier = SimpleNamespace(seq_len=64)
    one = SimpleNamespace(domains=("code",), tokenizer=tokenizer, tier=tier)
    parts, mask = switching.natural(one, 12)
    order = [int(d.id) for part in parts.values() for d in part.documents]
    assert [i % 4 < 2 for i in order] == [True] * 6 + [False] * 6
    pieces = [lines[i][start:end] for i in order for start, end in read[i].offsets]
    said = dict(zip(pieces, mask.tolist(), strict=True))
    assert (said[" #"], said[" b"]) == (True, True)
    assert (said["x"], said[" ="], said["\n"]) == (False, False, False)


def test_natural_switching_is_not_testable_without_programs(tiny):
    assert switching.natural(tiny, 8) is None
    assert switching.natural(tiny, 8, n_tokens=64, domain="red") is None  # no docstrings there


def test_released_values_give_the_stated_artefact_and_it_vanishes_on_one_text():
    table = released_dispatch.artefact()
    stated = published.select(
        experiment="classifier-dispatch-v1", metric="classifier_improvement_pct"
    ).value.item()
    assert table.dispatch["as published"] == pytest.approx(stated, abs=1e-3)
    assert table.dispatch["same text"] > 10
    assert abs(table.dispatch["same text"] - table.fused["same text"]) < 1e-3
    assert released_dispatch.error_cost() < 0.01


def test_released_faults_recompute_the_two_released_gains():
    gains = released_dispatch.faults()["released gain, %"]
    both = "main-410M/pythia-410m_step10000/MoE_vs_best_specialist/improvement_vs_spec/s42/orig"
    fair = "main-410M/pythia-410m_step10000/corrected_metrics/improvement_vs_spec/s42/corr"
    assert gains["both, as first published"] == pytest.approx(published.value(both), abs=1e-3)
    assert gains["neither"] == pytest.approx(published.value(fair), abs=1e-3)
    assert gains["stream cut short only"] < gains["neither"]


def test_a_changed_release_would_change_the_recomputed_artefact(monkeypatch):
    true = published.value
    monkeypatch.setattr(
        published,
        "value",
        lambda id: true(id) * (1.01 if id == released_dispatch.BASE_ID else 1),
    )
    assert released_dispatch.artefact().dispatch["as published"] > -20.5


def test_a_menu_shows_one_way_of_measuring_at_a_time():
    options = [
        {"name": "fair", "values": [1, 2]},
        {"name": "unfair", "values": [-20, 3], "note": "n"},
    ]
    fig = figure_dispatch.choices(["x", "y"], options, "gain, %")
    assert [trace.visible for trace in fig.data] == [True, False]
    entry = fig.layout.updatemenus[0].buttons[1]
    assert list(entry.args[0]["visible"]) == [False, True]
    assert entry.args[1]["xaxis.title.text"] == "gain, %<br>n"
    low, high = fig.layout.xaxis.range
    assert low < -20
    assert high > 3
    with pytest.raises(ValueError, match="2 finite values"):
        figure_dispatch.choices(["x", "y"], [{"name": "bad", "values": [1]}], "gain")


def test_views_of_switch_curves_share_their_lines():
    series = [{"name": "base", "y": [1.0, 2.0], "low": [0.5, 1.0], "high": [2.0, 3.0]}]
    fig = figure_dispatch.switch_curves({"loss": series, "gap": series}, ["16", "whole"], "tokens")
    assert [trace.visible for trace in fig.data] == [True, True, False, False]
    assert list(fig.layout.updatemenus[0].buttons[1].args[0]["visible"]) == [
        False,
        False,
        True,
        True,
    ]
    assert list(fig.layout.xaxis.ticktext) == ["16", "whole"]
