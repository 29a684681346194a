"""What the chapters found holds together, and claims that name a finding find it."""

from pathlib import Path

import pytest

from kalavai_helpers import chapters, claims, expected, records, verdicts

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


@pytest.mark.parametrize("chapter", [name for name in CHAPTERS if name != "02_router_in_action"])
def test_every_gain_is_accounted_for_exactly(chapter):
    assert abs(found(chapter)["accounting_residual"]) < 1e-6


def test_released_gains_are_accounted_for_and_the_collapse_shows_as_a_loss_above_the_oracle():
    prediction = found("06_prediction_formula")
    assert prediction["exact_conditions"] >= 41
    assert prediction["exact_error"] <= 0.35
    assert prediction["collapse_above_oracle"] > 10


def test_the_forecast_holds_on_cooperatives_it_has_not_seen():
    prediction = found("06_prediction_formula")
    assert prediction["cooperatives"] >= 30
    assert prediction["probe_share"] <= 5
    assert 70 <= prediction["coverage"] <= 90
    assert prediction["error_ratio"] <= 0.5


def test_the_artefact_appears_on_different_text_and_disappears_on_the_same():
    dispatch = found("05_dispatch_failure")
    assert dispatch["artefact_different_text"] < 0 < dispatch["artefact_same_text"]
    assert dispatch["last_domain_read"] == 0
    assert dispatch["released_different_text"] < -21 < 16 < dispatch["released_same_text"]


def test_dispatch_fails_where_documents_switch_and_only_there():
    dispatch = found("05_dispatch_failure")
    assert dispatch["switching_advantage_evidence"] > 0.1
    assert abs(dispatch["oracle_minus_evidence_whole"]) < 0.05


def test_the_ladder_climbs_three_sizes_and_every_one_gains():
    ladder = records.load("03_scale_ladder")
    sizes = {row[0] for row in ladder["tables"]["terms"]["rows"]}
    assert len(sizes) >= 3
    assert ladder["records"]["gain_lowest"]["low"] > 0


def test_durations_span_two_orders_of_magnitude_and_text_is_read_often():
    crossover = found("04_crossover")
    assert crossover["longest"] >= 100 * crossover["shortest"]
    assert crossover["passes"] > 30
    assert crossover["published_over_spec_from"] == 5000
    assert crossover["published_over_base_from"] == 10_000


def test_the_evidence_router_keeps_its_bound_on_every_document_of_every_script():
    languages = found("07_cross_lingual")
    assert languages["bound_excess"] <= languages["bound"] + 1e-6
    assert languages["collapsed_evidence"] == 0


def test_the_contract_holds_and_the_fused_model_is_what_it_says():
    fused = found("08_fused_model")
    assert fused["exactness"] <= 1e-5
    assert fused["cache_agrees"] == fused["loads_bit_equal"] == "yes"
    assert fused["promise_excess"] <= 1e-5
    assert fused["contract_excess"] <= 1e-5
    assert abs(fused["loss_change_one_domain"]) <= 0.1
    assert fused["experts_one_domain"] < fused["n_experts"]


def test_free_riders_and_copies_are_caught():
    assert {"idle", "copy"} <= set(found("08_fused_model")["caught"].split(", "))
