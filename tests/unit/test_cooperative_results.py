"""Results over runs: what one run, a bootstrap by hand and the definitions say."""

from dataclasses import replace

import numpy as np
import pytest
from kept_study import kept_study

from kalavai_helpers import (
    cooperative_results,
    evaluation,
    kept_ledger,
    kept_runs,
    mixing_oracle,
    teams,
    tiers,
)

SEEDED = kept_study(("code", "science", "fiction"), 4, seq_len=48, n_columns=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / tiers.PRETRAINED
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KALAVAI_KEPT", str(folder.parent))
        kept_ledger.write(folder, **SEEDED)
        return kept_runs.seeds(kept_ledger.read())


@pytest.fixture(scope="module")
def results(runs):
    return cooperative_results.of_kept(runs)


def test_one_run_gives_what_evaluation_gives(runs):
    one = cooperative_results.of_kept(runs[:1])
    ledger, fused = runs[0].ledger, runs[0].fused
    wanted = evaluation.summary([(ledger, fused)])
    found = one.summary()
    assert set(found.index) - set(wanted.index) == {
        "mixing oracle",
        "mixing oracle, with the base",
    }
    assert list(found.columns) == list(wanted.columns)
    numbers = wanted.columns.drop("kind")
    np.testing.assert_allclose(
        found.loc[wanted.index, numbers].to_numpy(float), wanted[numbers].to_numpy(float), atol=1e-9
    )
    assert (found.loc[wanted.index, "kind"] == wanted["kind"]).all()
    for name in ("evidence", "uniform, logits", "pooled"):
        account = evaluation.account(ledger, name, fused[name].log_probs, fused[name].gates)
        for term in cooperative_results.TERMS:
            estimate = getattr(account, term)
            ends = one.accounting().loc[name, [term, f"{term}_low", f"{term}_high"]]
            assert list(ends) == pytest.approx([estimate.value, estimate.low, estimate.high])
    table = evaluation.losses(ledger)
    for domain, estimate in one.divergences().items():
        if domain != "mean":
            assert estimate == evaluation.divergence_pct(table, domain)
    assert one.spread("evidence") == 0


def test_several_seeds_are_averaged_and_their_gains_add_up(runs, results):
    assert len(runs) == len(teams.ENGLISH) == 3
    tables = [evaluation.losses(r.ledger, {"e": r.fused["evidence"].log_probs}) for r in runs]
    gains = [evaluation.gain_pct(t, "e", t.groups).value for t in tables]
    gain = results.gain("evidence")
    assert gain.value == pytest.approx(np.mean(gains))
    assert gain.low < gain.value < gain.high
    assert "3 seeds" in gain.over
    assert results.spread("evidence") == pytest.approx(np.std(gains, ddof=1))
    bases = [evaluation.gain_over_base_pct(t, "e").value for t in tables]
    assert results.over_base("evidence").value == pytest.approx(np.mean(bases))
    account = results.accounting()
    left = account.oracle_gain_pct - account.routing_regret_pct + account.mixing_bonus_pct
    assert np.abs(left - account.gain_pct).max() < 1e-9
    assert (account.mixing_bonus_pct > -1e-9).drop(_made_up(runs[0])).all()


def _made_up(run):
    """Logit mixtures of the study are made up, so that no inequality holds for them."""
    return [name for name in run.fused if "logits" in name or name.startswith("pooled")]


def test_the_seed_whose_specialists_differ_widens_the_interval(runs):
    same = cooperative_results.of_kept([runs[0]] * 3).gain("evidence")
    apart = cooperative_results.of_kept(runs).gain("evidence")
    one = cooperative_results.of_kept(runs[:1]).gain("evidence")
    assert (same.low, same.high) == pytest.approx((one.low, one.high))
    assert apart.value != same.value


def test_losses_at_home_and_abroad_are_those_of_the_matrix(runs, results):
    matrix = np.mean(
        [evaluation.losses(r.ledger).matrix(("base", *r.domains)).to_numpy() for r in runs], axis=0
    )
    np.testing.assert_allclose(results.matrix().to_numpy(), matrix)
    change = matrix[1:] - matrix[0]
    home = np.eye(3, dtype=bool)
    found = results.changes()
    assert found["home"].value == pytest.approx(change[home].mean())
    assert found["abroad"].value == pytest.approx(change[~home].mean())
    assert results.change("code", "science").value == pytest.approx(change[0, 1])
    below = matrix[1:] > np.diag(matrix[1:])
    assert results.pairs() == {
        "to_own": int(below[~home].sum()),
        "to_base": int((change[~home] > 0).sum()),
    }
    divergence = 100 * (matrix[0] - np.diag(matrix[1:])) / matrix[0]
    assert results.divergences()["mean"].value == pytest.approx(divergence.mean(), abs=0.5)


def test_differences_of_methods_are_taken_on_the_same_text(results):
    gap = results.above("evidence", "linear")
    assert gap.value == pytest.approx(results.loss("evidence").value - results.loss("linear").value)
    assert results.above("evidence", "evidence").high == 0
    ahead = results.ahead("evidence", "linear")
    gains = [results.gain(name).value for name in ("evidence", "linear")]
    assert ahead.value == pytest.approx(gains[0] - gains[1])
    assert (ahead.value > 0) == (gap.value < 0)


def test_an_oracle_that_mixes_has_weights_of_router_documents_and_may_have_the_base(runs):
    found = cooperative_results.mixing_oracles(runs[1].fitting, runs[1].ledger)
    plain = mixing_oracle.route(runs[1].fitting, runs[1].ledger).log_probs
    assert (found["mixing oracle"] - plain).abs().max() == 0
    with_base = [
        replace(part, experts=(*part.experts, "base")) for part in (runs[1].fitting, runs[1].ledger)
    ]
    wanted = mixing_oracle.route(*with_base).log_probs
    assert (found["mixing oracle, with the base"] - wanted).abs().max() == 0


def test_runs_of_several_bases_say_so(runs):
    pairs = [(run.ledger, run.fused) for run in runs]
    found = cooperative_results.of(pairs, bases=("a", "b", "c"))
    assert "mixing oracle" not in found.summary().index
    assert found.gain("evidence").over.endswith("and 3 bases")
    assert found.taken.endswith("and 3 bases")


def test_what_is_no_cooperative_of_its_domains_is_refused(runs):
    with pytest.raises(ValueError, match="at least one run"):
        cooperative_results.of([])
    ledger = replace(runs[0].ledger, groups=("a", "b", "c"))
    with pytest.raises(ValueError, match="one specialist a domain"):
        cooperative_results.of([(ledger, runs[0].fused)])
