"""Claims joined with runs: levels in order, words from the rule, the same text everywhere."""

import html
import json
import re

import pytest

from kalavai_helpers import (
    artifacts,
    boxes,
    claims,
    findings,
    kept_ledger,
    records,
    tiers,
    verdicts,
)
from kalavai_helpers.verdicts import Kind, Level, Word

ROOT = artifacts.project_root()


def entry(value, low=None, high=None, unit="%", seeds=None):
    return {"value": value, "low": low, "high": high, "unit": unit, "seeds": seeds}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Write runs into a folder of their own: ``world(tier, chapter, {name: entry})``."""
    loaded, audit = claims.load(), findings.audit()
    monkeypatch.setattr(artifacts, "data", lambda: tmp_path / "data")
    monkeypatch.setattr(records, "_run", None)
    monkeypatch.setattr(claims, "load", lambda: loaded)
    monkeypatch.setattr(findings, "audit", lambda: audit)

    def write(tier, chapter, entries, corpora="folder", built=False, sides=()):
        folder = tmp_path / ("_build/records" if built else "data/recorded") / tier
        folder.mkdir(parents=True, exist_ok=True)
        run = {"chapter": chapter, "tier": tier, "corpora": corpora, "seed": 42}
        run |= {"date": "2026-01-01", "records": entries}
        run["sides"] = {
            side: run | {"tier": side, "corpora": "folder", "records": found}
            for side, found in dict(sides).items()
        }
        (folder / f"{chapter}.json").write_text(json.dumps(run))

    write.root = tmp_path
    return write


def test_every_level_that_ran_is_shown_and_the_highest_answers_for_a_mechanism(world):
    name = "01_protocol"
    world("ci", name, {"gain_evidence": entry(9, 8, 10, seeds=3)}, "builtin", built=True)
    world("laptop", name, {"gain_evidence": entry(-3, -4, -2)})
    found = findings.of("fused-beats-best", "ci", world.root)
    assert [(one.level, one.word) for one in found.evidence] == [
        (Level.SMALL, Word.NOT_SEEN),
        (Level.TOY, Word.SEEN),
    ]
    assert found.answer == "not seen (small models)"
    world("pythia-410m", name, {"gain_evidence": entry(7.7, 7.6, 7.8)}, "hub")
    found = findings.of("fused-beats-best", "ci", world.root)
    assert found.answer == "seen (replication)"
    assert [one.level for one in found.evidence] == [Level.REPLICATED, Level.SMALL, Level.TOY]


def test_a_published_number_is_judged_by_a_replication_alone(world):
    name = "01_protocol"
    world("laptop", name, {"gain_evidence": entry(16, 15, 17)})
    found = findings.of("hero-410m", None, world.root)
    assert found.run is None
    assert found.answer.startswith("no verdict")
    assert found.evidence[0].found == "16.0\u202f% [15.0, 17.0]"
    world("pythia-410m", name, {"gain_evidence": entry(9, 8.9, 9.1)}, "hub")
    assert findings.of("hero-410m", None, world.root).run is Word.CONTRADICTED


def test_a_counterexample_decides_below_a_higher_level_that_found_none(world):
    name, record = "07_cross_lingual", "misrouted_skewed_plain"
    share = "% of router seeds"
    world("laptop", name, {record: entry(0, 0, 31, share)})
    found = findings.of("abs-any-router", "ci", world.root)
    assert found.answer == "unclear (small models)"
    world("ci", name, {record: entry(40, 12, 74, share, 10)}, "builtin", built=True)
    found = findings.of("abs-any-router", "ci", world.root)
    assert found.answer == "not seen (toy models), by a counterexample"
    assert found.deciding.behind == "10 seeds, tier ci, builtin text"


def test_the_run_in_memory_stands_before_saved_ones(world, monkeypatch):
    name = "01_protocol"
    world("ci", name, {"gain_evidence": entry(9, 8, 10)}, "builtin", built=True)
    records.start(name, tier="ci", seed=7, corpora="builtin")
    records.record("gain_evidence", -1.0, "%", low=-2.0, high=-0.5)
    (one,) = findings.of("fused-beats-best", root=world.root).evidence
    assert (one.value, one.word, one.seed) == (-1.0, Word.NOT_AT_THIS_SIZE, 7)


PRETRAINED = tiers.PRETRAINED


def test_a_side_run_gives_the_same_claims_a_value_of_a_pretrained_model(world):
    name, sides = "01_protocol", {PRETRAINED: {"gain_evidence": entry(21, 20, 22)}}
    world("laptop", name, {"gain_evidence": entry(-3, -4, -2)})
    own = {"gain_evidence": entry(9, 8, 10)}
    world("ci", name, own, "builtin", built=True, sides=sides)
    found = findings.of("fused-beats-best", "ci", world.root)
    assert [(one.level, one.value) for one in found.evidence] == [
        (Level.PRETRAINED, 21),
        (Level.SMALL, -3),
        (Level.TOY, 9),
    ]
    assert found.answer == "seen (pretrained model)"
    assert found.evidence[0].behind == f"1 seed (42), tier {PRETRAINED}, real text"
    assert "pretrained model" in boxes.box(found)
    told = dict(boxes.summary(findings.front("ci", world.root)))
    assert "seen 1" in told["What was seen: pretrained model"]


def test_a_side_run_of_this_moment_stands_before_built_and_kept_ones(world, monkeypatch):
    name, record = "01_protocol", "gain_evidence"

    def pretrained():
        found = findings.of("fused-beats-best", "ci", world.root).evidence
        return [one.value for one in found if one.tier == PRETRAINED]

    world(PRETRAINED, name, {record: entry(1, 0.5, 2)})
    assert pretrained() == [1]
    sides = {PRETRAINED: {record: entry(2, 1, 3)}}
    world("ci", name, {record: entry(9, 8, 10)}, "builtin", built=True, sides=sides)
    assert pretrained() == [2]
    about = dict.fromkeys(kept_ledger.RUN, "folder") | {"tier": PRETRAINED, "seed": 42}
    monkeypatch.setattr(kept_ledger, "about", lambda tier: about)
    records.start(name, tier="ci", seed=7, corpora="builtin")
    assert pretrained() == [1], "a run that has not computed anything yet"
    with records.run_of(PRETRAINED):
        records.record(record, 3.0, "%", low=2.0, high=4.0)
    assert pretrained() == [3.0]


def test_builtin_text_is_toy_evidence_whatever_the_model(world):
    world(PRETRAINED, "01_protocol", {"gain_evidence": entry(9, 8, 10)}, "builtin")
    (one,) = findings.of("fused-beats-best", None, world.root).evidence
    assert one.level is Level.TOY


def test_a_record_of_released_values_answers_the_first_question(world):
    name = "06_prediction_formula"
    skill = entry(0.49, -0.45, 0.7, "Q²")
    world("laptop", name, {"released_inside_q2": skill})
    found = findings.of("law-unseen", None, world.root)
    assert (found.released, found.run, found.evidence) == (Word.CONTRADICTS, None, ())


def test_nothing_ran_nothing_is_said(world):
    found = findings.of("beats-oracle", "ci", world.root)
    assert (found.released, found.answer) == (None, "not run")
    assert findings.of("exact-accounting").answer.startswith("no finding")


def test_a_value_without_interval_decides_nothing(world):
    world("laptop", "01_protocol", {"gain_evidence": entry(16)})
    assert findings.of("fused-beats-best", None, world.root).run is Word.UNCLEAR


def test_a_run_that_repeats_recorded_timings_is_no_evidence_of_its_own(world):
    timing = entry(2.3, 2.2, 2.4, "x") | {"protocol": "recorded timings, half the blocks frozen"}
    for tier, text, built in (("ci", "builtin", True), ("laptop", "folder", False)):
        world(tier, "08_fused_model", {"time_dense": timing}, text, built=built)
    (one,) = findings.of("overhead", "ci", world.root).evidence
    assert one.tier == "laptop"


def test_an_unknown_claim_is_named():
    with pytest.raises(KeyError, match="no claim 'no-such'"):
        findings.of("no-such")


@pytest.mark.parametrize("claim", claims.load(), ids=lambda claim: claim.id)
def test_a_claim_says_how_it_is_tested(claim):
    kind = Kind(claim.evidence)
    if claim.tested:
        chapter, _, test = verdicts.parse(claim.tested)
        assert (ROOT / "notebooks" / f"{chapter}.md").is_file()
        assert kind is not Kind.IDENTITY
        if kind is Kind.NUMBER:
            assert test.holds(claim.number) != (claim.value[0] in "<>")
    if claim.measured:
        assert claim.tested, "further records stand beside the one that decides"
    if claim.where == findings.OWN:
        assert claim.section == findings.OWN
        assert not claim.published
        assert claim.tested or kind is Kind.IDENTITY


def test_the_front_page_has_findings_only_and_no_place_twice():
    front = [claim for claim in claims.load() if claim.front]
    places = [int(claim.front) for claim in front]
    assert sorted(places) == list(range(1, len(places) + 1))
    assert len(front) >= 12
    assert all(Kind(claim.evidence) is not Kind.IDENTITY for claim in front)


def test_chapters_show_claims_that_exist_and_test_there():
    shown = {}
    for path in sorted((ROOT / "notebooks").glob("*.md")):
        text = path.read_text("utf-8")
        assert "verdict_" not in text, path.name
        for call in re.findall(r"findings\.show\(([^)]*)\)", text):
            for id in re.findall(r'"([^"]+)"', call):
                shown[id] = path.stem
                tested = findings.get(id).tested
                assert not tested or tested.startswith(f"{path.stem}/"), id
    assert len(shown) >= 34
    own = {claim.id for claim in claims.load() if claim.where == findings.OWN}
    assert own <= set(shown)


def test_a_box_reads_as_text_and_as_html_alike(world, capsys):
    world("laptop", "01_protocol", {"gain_evidence": entry(16, 15, 17)})
    found = findings.of("fused-beats-best", None, world.root)
    page, text = boxes.box(found), boxes.plain(found)
    for said in (found.answer, found.claim.statement, found.evidence[0].found, Word.SEEN.value):
        assert said in re.sub("<[^>]+>", "", page)
        assert said in text
    assert found.released.value in page
    assert "style=" not in page


def test_a_box_says_where_a_statement_is_true_as_print_does(world):
    fits = entry(30, 7, 65, "% of router seeds")
    world("laptop", "01_protocol", {"pooled_above_oracle": entry(0.004, 0, 0.01, "nats/token")})
    world("laptop", "07_cross_lingual", {"misrouted_skewed_plain": fits})
    world("laptop", "06_prediction_formula", {"coverage": entry(79, 70, 90, "%")})
    for id, said in (
        ("abs-oracle", "< 1.0\u202f·\u202f10⁻⁵\u202fnats/token"),
        ("abs-any-router", "0\u202f% of router seeds"),
        ("coverage", "within 10 of 80\u202f%"),
    ):
        assert f"true if {said}:" in html.unescape(boxes.box(findings.of(id, None, world.root)))


def test_the_summary_counts_the_rows_by_word_and_level(world):
    world("laptop", "01_protocol", {"gain_evidence": entry(16, 15, 17)})
    found = findings.front(None, world.root)
    told = dict(boxes.summary(found))
    assert "1 statement" in told["What was seen: small models"]
    assert "seen 1" in told["What was seen: small models"]
    assert "Nothing ran as replication" in told["What is unknown"]
    assert f"{len(found) - 1} of the {len(found)} statements" in told["What is unknown"]


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (15.97333, 15.106, 16.821, "15.97\u202f% [15.11, 16.82]"),
        (0.0503, 0.0379, 0.0635, "0.050\u202f% [0.038, 0.064]"),
        (-0.5, -1.0, -0.25, "\u22120.50\u202f% [\u22121.00, \u22120.25]"),
        (10, 0.25, 44.5, "10.0\u202f% [0.2, 44.5]"),
        (3, 3, 3, "3\u202f%, exact"),
        (3.3e-6, None, None, "3.3\u202f·\u202f10⁻⁶\u202f%"),
    ],
)
def test_numbers_show_two_digits_of_their_interval(value, low, high, text):
    one = findings.Evidence(Level.TOY, "ci", "builtin", 1, "", value, low, high, "%", 1, None)
    assert one.found == text
