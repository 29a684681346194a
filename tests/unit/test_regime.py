"""Recipes are chosen on text that nobody evaluates on, and the table of what was tried is kept."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kalavai_helpers import artifacts, corpora, evaluation, ledger, published, regime, tiers

OURS = ("ci", "laptop", tiers.PRETRAINED)
CHOSEN = {name: tiers.get(name) for name in OURS} | {
    f"sweep of {name}": tiers.get(name).sweep() for name in ("ci", "laptop")
}
"""The recipes of which the tables speak."""


@pytest.mark.parametrize("which", CHOSEN)
def test_a_chosen_recipe_is_in_the_recorded_table(which):
    tier = CHOSEN[which]
    table = pd.read_csv(regime.path(tier.name))
    same = [np.isclose(table[field], getattr(tier, field)) for field in regime.FIELDS]
    assert np.all(same, axis=0).sum() == 1, f"run: python -m kalavai_helpers regime on {tier.name}"


@pytest.mark.parametrize("name", OURS)
def test_the_table_is_of_what_is_said_to_be_tried(name):
    recipes = regime.tried(tiers.get(name))
    said = [[getattr(recipe, field) for field in regime.FIELDS] for recipe in recipes]
    assert np.allclose(pd.read_csv(regime.path(name))[list(regime.FIELDS)], said)


def test_a_published_recipe_is_not_tried():
    with pytest.raises(ValueError, match="'pythia-410m' is the published one"):
        regime.tried(tiers.get("pythia-410m"))


def test_validation_text_is_training_text_in_whole_units_and_both_parts_have_some(tiny):
    documents = tiny.documents("red", "train")
    training, validation = regime.set_aside(documents)
    assert {d.unit for d in training} & {d.unit for d in validation} == set()
    assert sorted(d.id for d in training + validation) == sorted(d.id for d in documents)
    assert len(training) > len(validation) > 0
    assert {d.role for d in validation} == {"train"}


def test_a_recipe_is_scored_on_what_its_specialist_did_not_read(tiny, monkeypatch):
    read, scored = set(), set()
    pack, windows = regime.packing.pack, regime.packing.windows

    def seen_by(kept, function):
        def watched(documents, *arguments):
            kept.update(d.id for d in documents)
            return function(documents, *arguments)

        return watched

    monkeypatch.setattr(regime.packing, "pack", seen_by(read, pack))
    monkeypatch.setattr(regime.packing, "windows", seen_by(scored, windows))
    monkeypatch.setattr(regime.parallel, "leave_in_store", lambda tasks: [t() for t in tasks])
    recipe = replace(tiny.tier, specialist_steps=6)
    table = regime.measure([recipe], tiny.corpora, tiny.domains, 42)
    assert read
    assert scored
    assert read & scored == set()
    split = {d: corpora.split(tiny.corpora, d) for d in tiny.domains}
    held = {x.id for d in tiny.domains for role in ("router", "heldout") for x in split[d][role]}
    assert (read | scored) & held == set()
    assert table.specialist_steps.tolist() == [6]


def test_a_trial_that_was_stopped_does_not_train_again(tiny, monkeypatch):
    recipe = replace(tiny.tier, specialist_steps=5)
    arguments = [recipe], tiny.corpora, tiny.domains, 42
    path, job = list(regime.jobs(*arguments).items())[1]
    score = regime.ledger.score

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(regime.ledger, "score", stopped)
    with pytest.raises(KeyboardInterrupt):
        job()
    monkeypatch.setattr(regime.ledger, "score", score)
    monkeypatch.setattr(torch.optim, "AdamW", None)  # any training would now fail
    job()
    assert len(artifacts.read_json(path)) == len(tiny.domains)
    assert list(path.parent.glob(f"{path.stem}*")) == [path]


def test_a_published_base_is_tried_on_two_domains_with_recipes_of_its_specialists():
    tier = tiers.get(tiers.PRETRAINED)
    recipes = regime.tried(tier)
    assert tier in recipes
    assert {recipe.base_steps for recipe in recipes} == {tier.base_steps}
    assert len({(r.specialist_steps, r.specialist_lr) for r in recipes}) == len(recipes)


def test_the_standing_of_the_release_is_that_of_its_matrix():
    found = regime.standing(published.loss_matrix("main-410M"), corpora.MAIN_DOMAINS)
    assert found["divergence_code"] == pytest.approx(100 * (1 - 1.879066 / 2.087168), abs=1e-3)
    fiction = (2.101796 + 2.890426 + 2.219371) / 3
    base = (2.087168 + 2.892010 + 2.973911) / 3
    assert found["best_over_base"] == pytest.approx(100 * (1 - fiction / base), abs=1e-3)


def test_table_and_matrix_tell_the_same_standing(tiny):
    table = evaluation.losses(ledger.build(tiny))
    found = regime.standing(table.matrix(), tiny.domains)
    assert found["best_over_base"] == pytest.approx(float(regime.best_over_base(table)))
