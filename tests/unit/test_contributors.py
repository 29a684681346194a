"""What contributors bring and get back: the definitions, and the released twenty as released."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kept_study import ALL, kept_study

from kalavai_helpers import (
    contributors,
    cooperative_results,
    evaluation,
    kept_about,
    kept_ledger,
    kept_runs,
    published,
    teams,
    tiers,
)

RELEASED = "20-contributor/pythia-1b_step10000/"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / tiers.PRETRAINED
    study = kept_study(ALL, 2, router_windows=2, seq_len=12, width=32, n_columns=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KALAVAI_KEPT", str(folder.parent))
        kept_ledger.write(folder, **study)
        return kept_runs.of(kept_ledger.read(), kept_runs.team("twenty"))


@pytest.fixture(scope="module")
def results(run):
    return cooperative_results.of([(run.ledger, run.fused)])


def test_an_own_gate_is_the_mean_over_a_domains_tokens(run):
    n = len(run.domains)
    gates = torch.full((len(run.ledger), n), 0.5 / (n - 1))
    gates[:, 3] = 0.5
    fused = {"pooled": replace(run.fused["pooled"], gates=gates)}
    found = contributors.own_gates(replace(run, fused=fused))
    assert list(found.index) == list(teams.TWENTY)
    assert found[teams.TWENTY[3]] == pytest.approx(0.5)
    assert found.drop(teams.TWENTY[3]).to_numpy() == pytest.approx(0.5 / (n - 1))


def test_a_contributor_has_its_losses_at_home_before_and_after(run, results):
    found = contributors.table(results, run, "evidence")
    log_probs = run.fused["evidence"].log_probs
    for k, domain in enumerate(run.domains):
        here = run.ledger.token_group == k
        base = -float(run.ledger.column("base")[here].double().mean())
        own = -float(run.ledger.column(domain)[here].double().mean())
        row = found.loc[domain]
        assert (row.base, row.own) == pytest.approx((base, own))
        assert row.divergence == pytest.approx(100 * (1 - own / base))
        assert row.divergence_low <= row.divergence <= row.divergence_high
        fused = -float(log_probs[here].double().mean())
        assert row.fused_over_base == pytest.approx(100 * (1 - fused / base))


def test_the_released_twenty_are_as_released(run, results):
    theirs = contributors.released(teams.TWENTY)
    assert (theirs.own_gate > 0.5).sum() == 19  # the page states 18
    assert (theirs.fused_over_base < 0).sum() == 2
    found = contributors.table(results, run)
    column = contributors.beside(results, found)["released, 1B"]
    for row, name in (
        ("gain over the best specialist", "improvement_vs_spec"),
        ("gain over the base", "improvement_vs_base"),
    ):
        assert column[row] == pytest.approx(
            published.value(f"{RELEASED}/{name}/s42/corr"), abs=0.01
        )
    assert column["mean divergence"] == pytest.approx(
        published.value(f"{RELEASED}/mean_divergence/s42/corr"), abs=0.01
    )


def test_the_terms_beside_the_released_ones_are_those_of_this_cooperative(run, results):
    found = contributors.table(results, run)
    here = contributors.beside(results, found)["here"]
    table = evaluation.losses(run.ledger, {"pooled": run.fused["pooled"].log_probs})
    gain = evaluation.gain_pct(table, "pooled", run.domains).value
    assert here["gain over the best specialist"] == pytest.approx(gain)
    base = table.equal_weight("base")
    best = min(table.equal_weight(name) for name in run.domains)
    assert here["best specialist over the base"] == pytest.approx(100 * (1 - best / base))
    own = np.mean([table.by_group(d)[k] for k, d in enumerate(run.domains)])
    assert here["own specialists, over the best one"] == pytest.approx(100 * (1 - own / best))
    degraded = int((table.by_group("pooled") > table.by_group("base")).sum())
    assert here["domains that the fused model makes worse"] == degraded


def test_a_ledger_tells_what_was_run_and_for_how_long():
    about = {
        "tier": tiers.PRETRAINED,
        "recipe": {"specialist_steps": 7},
        "checkpoint": {"name": "A model", "where": "a place", "revision": "abc"},
        "durations_s": {
            "specialist tamil, seed 42": 60,
            "specialist code, seed 137": 30,
            "pool, english": 6,
            "pooled router, english, seed 42": 6,
            "ledger": 3,
        },
    }
    told = kept_about.recipe(about)
    tier = tiers.get(tiers.PRETRAINED)
    assert told["tokens"] == 7 * tier.batch_size * tier.seq_len
    assert told["frozen_layers"] == tier.frozen_layers
    assert kept_about.base(about) == "A model (a place)"
    assert kept_about.base({**about, "checkpoint": "made up"}) == "made up"
    assert kept_about.durations(about).to_dict() == pytest.approx(
        {"training specialists": 1.5, "published routers": 0.2, "all else": 0.05}
    )
