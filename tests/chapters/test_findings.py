"""What the chapters found holds together, and claims that name a finding find it."""

from pathlib import Path

import pytest

from kalavai_helpers import (
    chapters,
    claims,
    expected,
    kept_ledger,
    recorded,
    records,
    routing,
    switching,
    tiers,
    verdicts,
)

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = chapters.names(ROOT)
EXPECTED = expected.load("ci")["chapters"]


def found(chapter: str) -> dict:
    return {name: entry["value"] for name, entry in records.load(chapter)["records"].items()}


# Records that a run need not have: another language, or nothing that broke.
SOMETIMES = ("perplexity_yoruba_", "perplexity_welsh_", "mended_share", "denominators_log2_ratio")


def test_every_record_that_decides_a_claim_was_recorded_with_an_interval():
    missing = []
    for claim in claims.load():
        names = [*claim.measured, *filter(None, [claim.tested.partition(" ")[0]])]
        for name in names:
            chapter, _, record = name.partition("/")
            entry = records.load(chapter)["records"].get(record)
            if record.startswith(SOMETIMES) and entry is None:
                continue
            judged = claim.tested.startswith(f"{name} ") and claim.evidence != "number"
            if entry is None or (judged and entry["low"] is None):
                missing.append((claim.id, name))
    assert missing == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_chapter_stores_a_verdict(chapter):
    words = {word.value for word in verdicts.Word} | {"reproduced"}
    assert not words & {v for v in found(chapter).values() if isinstance(v, str)}


def test_every_chapter_has_expected_records():
    assert list(EXPECTED) == CHAPTERS


@pytest.mark.parametrize("chapter", EXPECTED)
def test_a_run_is_within_the_measured_spread_of_repeated_runs(chapter):
    assert expected.differences(records.load(chapter), EXPECTED[chapter]) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_figures_of_a_recorded_ledger_are_computed_again_to_the_last_printed_digit(chapter):
    built = records.load(chapter).get("sides", {})
    kept = recorded.folder(tiers.PRETRAINED) / f"{chapter}.json"
    assert kept.is_file() == (tiers.PRETRAINED in built)
    for tier, side in built.items():
        assert recorded.differences(side, recorded.load(chapter, tier)) == []
        told = kept_ledger.about(tier)
        assert {name: side[name] for name in kept_ledger.RUN} == {
            name: told[name] for name in kept_ledger.RUN
        }


@pytest.mark.parametrize("chapter", [name for name in CHAPTERS if name != "02_router_in_action"])
def test_every_gain_is_accounted_for_exactly(chapter):
    assert abs(found(chapter)["accounting_residual"]) < 1e-6


def test_released_gains_are_accounted_for_and_the_collapse_shows_as_a_loss_above_the_oracle():
    prediction = found("06_prediction_formula")
    assert prediction["exact_conditions"] >= 41
    assert prediction["exact_error"] <= 0.35
    assert prediction["collapse_above_oracle"] > 10


def test_the_forecast_is_judged_by_every_rival_family_and_cost():
    """That coverage and errors are there, with intervals over recipes; not what they are."""
    run = records.load("06_prediction_formula")
    prediction = run["records"]
    assert prediction["cooperatives"]["value"] >= 30
    assert prediction["probe_share"]["value"] <= 5
    judged = ["coverage", "forecast_error", "refitted_error", "law_error", "error_ratio"]
    judged += ["forecast_to_refitted_ratio", "coverage_families", "coverage_lowest_family"]
    for name in judged:
        entry = prediction[name]
        assert entry["low"] <= entry["value"] <= entry["high"], name
        assert "recipes" in entry["protocol"], name
    families = [n for n in prediction if n.startswith("coverage_family_")]
    assert len(families) == len(run["tables"]["families"]["rows"]) >= 4
    lowest = min(prediction[name]["value"] for name in families)
    assert prediction["coverage_lowest_family"]["value"] == lowest
    assert prediction["family_refused"]["value"] <= prediction["family_forecasts"]["value"]
    assert prediction["bank_used_pays_after"]["value"] > prediction["bank_used"]["value"]


def test_the_artefact_is_arithmetic_on_the_release_and_every_choice_of_text_is_told():
    dispatch = found("05_dispatch_failure")
    assert dispatch["released_different_text"] < -21 < 16 < dispatch["released_same_text"]
    assert dispatch["last_domain_read"] == 0
    rows = records.load("05_dispatch_failure")["tables"]["artefact"]
    choices = dict(zip((r[0] for r in rows["rows"]), rows["rows"], strict=True))
    place = rows["columns"].index("dispatch")
    assert dispatch["artefact_choices"] == len(choices) >= 2 + dispatch["n_domains"]
    told = [dispatch[f"artefact_{name}"] for name in ("lowest", "published_choice", "highest")]
    assert told[0] == min(row[place] for row in choices.values())
    assert told == sorted(told)
    assert dispatch["artefact_same_text"] == choices["same text"][place]


def test_the_loss_of_the_base_alone_decides_the_sign_of_the_artefact():
    dispatch = records.load("05_dispatch_failure")
    threshold = dispatch["records"]["artefact_threshold"]["value"]
    frame = records.frame_of(dispatch, "artefact").drop("published choice")
    assert ((frame.dispatch < 0) == (frame.base_loss < threshold)).all()


def test_evidence_never_loses_more_to_the_best_choice_a_document_than_its_bound():
    dispatch = found("05_dispatch_failure")
    tokens, alpha = int(dispatch["half_tokens"]), routing.EvidenceRouter().alpha
    bound = routing.fixed_share_bound(1, tokens, int(dispatch["n_domains"]), alpha) / tokens
    for kind in (*switching.PIECES, switching.WHOLE):
        assert dispatch[f"oracle_minus_evidence_{kind}"] >= -bound - 1e-6


def test_the_ladder_climbs_three_sizes_and_its_lowest_gain_is_told_with_an_interval():
    ladder = records.load("03_scale_ladder")
    terms = records.frame_of(ladder, "terms")
    lowest = ladder["records"]["gain_lowest"]
    assert len(terms) >= 3
    assert lowest["low"] <= lowest["value"] <= lowest["high"]
    assert lowest["value"] <= terms.gain.min() + 1e-9


def test_durations_span_two_orders_of_magnitude_and_text_is_read_often():
    crossover = found("04_crossover")
    assert crossover["longest"] >= 100 * crossover["shortest"]
    assert crossover["passes"] > 30
    assert crossover["published_over_spec_from"] == 5000
    assert crossover["published_over_base_from"] == 10_000


def test_the_evidence_router_keeps_its_bound_on_every_document_of_every_script():
    languages = found("07_cross_lingual")
    assert languages["bound_excess"] <= languages["bound"] + 1e-6
    assert languages["captured_evidence_lowest"] >= languages["captured_evidence_bound"] - 1e-6
    assert languages["n_scripts"] == len(languages["scripts"].split(", "))


def test_the_contract_holds_and_the_fused_model_is_what_it_says():
    fused = found("08_fused_model")
    assert fused["exactness"] <= 1e-5
    assert fused["cache_agrees"] == fused["loads_bit_equal"] == "yes"
    assert fused["promise_excess"] <= 1e-5
    assert fused["contract_excess"] <= 1e-5
    assert 1 <= fused["experts_one_domain"] <= fused["n_experts"]


def test_free_riders_and_copies_are_caught():
    fused = found("08_fused_model")
    assert {"idle", "copy"} <= set(fused["caught"].split(", "))
    assert fused["worth_copy"] == pytest.approx(fused["worth_copied"])
    assert fused["worth_idle"] < fused["worth_least"]
