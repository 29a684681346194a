"""Intervals: they rest on what varies, bases and sources of text, and not on documents or tokens."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import corpora, evaluation, ledger, losses
from kalavai_helpers.losses import Estimate, Losses, over_runs


def table_of(values, source, group=None):
    """Losses of one method, one token a document."""
    group = np.zeros(len(values), int) if group is None else np.asarray(group)
    names = tuple(f"g{index}" for index in range(group.max() + 1))
    tokens = np.ones(len(values))
    return Losses({"m": np.asarray(values, float)}, tokens, group, names, np.asarray(source))


def mean(table):
    return table.interval(lambda w: table.equal_weight("m", w))


def width(estimate):
    return estimate.high - estimate.low


def sample(rng, n_sources, size, correlation):
    """Documents of sources around a mean of 0: what a source shares, and what is their own."""
    source = np.repeat(np.arange(n_sources), size)
    shared = np.sqrt(correlation) * rng.normal(size=n_sources)[source]
    return shared + np.sqrt(1 - correlation) * rng.normal(size=len(source)), source


def test_an_interval_over_sources_covers_where_one_over_documents_does_not():
    hits = {"sources": 0, "documents": 0}
    for seed in range(100):
        values, source = sample(np.random.default_rng(seed), 20, 6, 0.5)
        for over, unit in (("sources", source), ("documents", np.arange(len(values)))):
            found = mean(table_of(values, unit))
            assert found.over == over
            hits[over] += found.low <= 0 <= found.high
    assert hits["sources"] >= 85
    assert hits["documents"] <= 75


def test_independent_documents_that_share_a_source_cost_no_more_than_a_wider_interval():
    """Where sources do not matter, naming them errs on the safe side."""
    hits = 0
    for seed in range(60):
        values, source = sample(np.random.default_rng(seed), 12, 4, 0.0)
        found = mean(table_of(values, source))
        hits += found.low <= 0 <= found.high
    assert hits >= 55


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=25),
)
def test_resamples_keep_groups_and_draw_sources(pairs):
    group = np.unique([g for g, _ in pairs], return_inverse=True)[1]
    source = np.array([s for _, s in pairs])
    weights = table_of(np.zeros(len(pairs)), source, group).resamples()
    assert weights.shape == (losses.N_RESAMPLES, len(pairs))
    assert (weights >= 0).all()
    assert (weights == weights.round()).all()
    for g in range(group.max() + 1):
        names = np.unique(source[group == g])
        # Whole multiples of the size of each source, and as many draws as there are sources.
        draws = np.stack(
            [
                weights[:, (group == g) & (source == s)].sum(1)
                / np.sum((group == g) & (source == s))
                for s in names
            ]
        )
        assert np.allclose(draws, draws.round())
        assert np.allclose(draws.sum(0), len(names))


def test_every_document_counts_alike_on_average():
    source = np.array([0, 0, 0, 0, 1, 1, 2])
    assert table_of(np.zeros(7), source).resamples().mean(0) == pytest.approx(np.ones(7), abs=0.12)


def test_a_source_of_one_document_is_drawn_as_a_document_would_be():
    values = np.random.default_rng(0).normal(size=30)
    alone, named = table_of(values, np.arange(30)), table_of(values, [f"s{i}" for i in range(30)])
    assert mean(alone) == mean(named)
    spread = values.std() / 30**0.5
    assert width(mean(alone)) == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_one_source_still_varies_by_its_documents():
    values = np.random.default_rng(0).normal(size=30)
    assert width(mean(table_of(values, np.zeros(30)))) == pytest.approx(
        width(mean(table_of(values, np.arange(30)))), rel=0.2
    )


def test_documents_that_repeat_within_a_source_add_nothing():
    """A hundred copies of ten documents tell no more than ten: a bootstrap over them would."""
    values = np.random.default_rng(1).normal(size=10)
    few = mean(table_of(values, np.arange(10)))
    many = mean(table_of(values.repeat(100), np.arange(10).repeat(100)))
    naive = mean(table_of(values.repeat(100), np.arange(1000)))
    assert width(many) == pytest.approx(width(few), rel=0.1)
    assert width(naive) < 0.2 * width(few)


def test_the_same_name_in_two_domains_is_two_sources():
    group = np.arange(8) % 2
    table = table_of(np.arange(8.0), np.arange(8) // 2, group)
    assert table.units() == {"g0": 4, "g1": 4}
    weights = table.resamples()
    assert (weights[:, 0] != weights[:, 1]).any()


def test_an_estimate_says_over_what_it_was_taken():
    values = np.arange(8.0)
    assert mean(table_of(values, np.arange(8) // 2)).taken == "95 % interval over 4 sources"
    assert mean(table_of(values, np.arange(8))).taken == "95 % interval over 8 documents"
    assert Estimate(1.0, 0.0, 2.0).taken == "95 % interval"
    assert Estimate(1.0, 0.0, 2.0, "recipes", 9).row() == {"value": 1.0, "low": 0.0, "high": 2.0}


def test_a_table_says_over_what_its_intervals_are_taken_and_what_each_group_has():
    table = table_of(np.arange(9.0), [0, 0, 1, 1, 0, 0, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1, 1, 1])
    said = "95 % interval over 5 sources (2 of g0, 3 of g1)"
    assert table.taken() == said
    assert table.taken([1, 1, 2]) == f"{said} and 2 bases of 3 runs"
    assert table.taken([7, 7, 7]) == f"{said} and 3 seeds"
    assert (
        replace(table, source=np.arange(9)).taken().startswith("95 % interval over 9 documents (")
    )


def test_one_entry_a_document_and_nothing_finer():
    with pytest.raises(ValueError, match="one entry a document"):
        Losses({"m": np.zeros(6)}, np.ones(3), np.zeros(3, int), ("g",), np.arange(3))
    with pytest.raises(ValueError, match="one entry a document"):
        Losses({"m": np.zeros(3)}, np.ones(3), np.zeros(3, int), ("g",), np.arange(6))


def test_sources_of_a_ledger_are_what_was_split_as_one(tiny, tmp_path):
    found = ledger.build(tiny)
    documents = [d for name in tiny.domains for d in tiny.documents(name, "heldout")]
    assert found.source.tolist() == [d.unit for d in documents] == [d.source for d in documents]
    assert sum(evaluation.losses(found).units().values()) < found.n_documents
    part = found.restrict(("red",))
    kept = [d.unit for d in tiny.documents("red", "heldout")]
    assert part.source.tolist() == kept
    # A source with much of a domain is a list of independent documents.
    lines = [f'{{"text": "{"word " * 30}{i}", "source": "one"}}' for i in range(40)]
    (tmp_path / "red.jsonl").write_text("\n".join(lines))
    listed = corpora.split(f"folder:{tmp_path}", "red")["heldout"]
    assert [d.unit for d in listed] == [d.id for d in listed]


def runs_of(levels, documents=40, noise=0.0):
    rng = np.random.default_rng(3)
    common = rng.normal(0, 0.05, documents)
    return [
        table_of(level + common + noise * rng.normal(size=documents), np.arange(documents))
        for level in levels
    ]


def over(tables, bases=None):
    return over_runs(tables, lambda run, w: tables[run].equal_weight("m", w), bases)


def test_runs_that_differ_widen_the_interval_and_equal_ones_do_not():
    same, apart = over(runs_of([3.0] * 5)), over(runs_of([2.0, 2.5, 3.0, 3.5, 4.0]))
    assert apart.value == pytest.approx(same.value)
    assert width(apart) > 10 * width(same)
    assert width(same) == pytest.approx(width(mean(runs_of([3.0])[0])))
    assert same.over == "documents and 5 seeds"


def test_runs_of_one_base_are_not_so_many_bases():
    tables = runs_of([2.0, 2.0, 2.0, 4.0, 4.0, 4.0])
    apart, shared = over(tables), over(tables, [1, 1, 1, 2, 2, 2])
    assert shared.value == pytest.approx(apart.value)
    assert width(shared) > 1.2 * width(apart)
    assert shared.over == "documents and 2 bases of 6 runs"
    assert over(tables, range(6)).over == "documents and 6 bases"


def test_shares_of_runs_add_up_and_are_fair():
    shares = losses.run_weights([1, 1, 2])
    assert shares.sum(1) == pytest.approx(np.ones(losses.N_RESAMPLES))
    assert shares.mean(0) == pytest.approx([0.25, 0.25, 0.5], abs=0.05)


def test_runs_on_different_documents_are_not_drawn_together():
    tables = runs_of([1.0, 2.0])
    other = replace(tables[1], source=tables[1].source + 1)
    with pytest.raises(ValueError, match="different documents"):
        over([tables[0], other])
    with pytest.raises(ValueError, match="bases of 3"):
        over(tables, [1, 2, 3])
