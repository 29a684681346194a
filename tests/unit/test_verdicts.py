"""The rule: which word a kind of claim may have, at which level, from which interval."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kalavai_helpers import tiers, verdicts
from kalavai_helpers.verdicts import Kind, Level, Relation, Test, Word

TOY, SMALL, PRETRAINED, REPLICATED = Level
NUMBER, MECHANISM, EVERY, IDENTITY = Kind
INSIDE, ACROSS, OUTSIDE = Relation

RULE = {
    (MECHANISM, TOY): (Word.SEEN, Word.UNCLEAR, Word.NOT_AT_THIS_SIZE),
    (MECHANISM, SMALL): (Word.SEEN, Word.UNCLEAR, Word.NOT_SEEN),
    (MECHANISM, PRETRAINED): (Word.SEEN, Word.UNCLEAR, Word.NOT_SEEN),
    (MECHANISM, REPLICATED): (Word.SEEN, Word.UNCLEAR, Word.CONTRADICTED),
    (NUMBER, TOY): (None, None, None),
    (NUMBER, SMALL): (None, None, None),
    (NUMBER, PRETRAINED): (None, None, None),
    (NUMBER, REPLICATED): (Word.SEEN, Word.UNCLEAR, Word.CONTRADICTED),
    (EVERY, TOY): (Word.SEEN, Word.UNCLEAR, Word.NOT_SEEN),
    (EVERY, SMALL): (Word.SEEN, Word.UNCLEAR, Word.CONTRADICTED),
    (EVERY, PRETRAINED): (Word.SEEN, Word.UNCLEAR, Word.CONTRADICTED),
    (EVERY, REPLICATED): (Word.SEEN, Word.UNCLEAR, Word.CONTRADICTED),
    **{(IDENTITY, level): (None, None, None) for level in Level},
}


def test_the_levels_are_ordered_as_the_guide_orders_them():
    assert REPLICATED > PRETRAINED > SMALL > TOY


@pytest.mark.parametrize(
    ("kind", "level", "relation"), list(itertools.product(Kind, Level, Relation)), ids=str
)
def test_the_rule_is_the_table(kind, level, relation):
    assert verdicts.word(kind, level, relation) is RULE[kind, level][list(Relation).index(relation)]


def test_strong_words_need_strong_ground():
    said = {
        (kind, level): {verdicts.word(kind, level, relation) for relation in Relation}
        for kind, level in itertools.product(Kind, Level)
    }
    for (kind, level), words in said.items():
        if Word.CONTRADICTED in words:
            assert level is REPLICATED or (kind is EVERY and level is not TOY)
        if level is TOY:
            assert (Word.NOT_SEEN in words) == (kind is EVERY)
        assert not words & set(verdicts.RELEASED)


def test_both_questions_have_words_of_their_own_and_every_word_is_explained():
    assert set(verdicts.RELEASED) | set(verdicts.RUN) == set(Word)
    assert not set(verdicts.RELEASED) & set(verdicts.RUN)
    assert all(word.meaning and word.tone in ("good", "bad", "open", "none") for word in Word)
    assert {verdicts.released(relation) for relation in Relation} < set(verdicts.RELEASED)


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
tests = st.one_of(
    st.builds(Test, st.sampled_from("<>"), numbers),
    st.builds(Test, st.just("within"), numbers, st.floats(0, 1e3)),
)
STRENGTH = {
    Word.SEEN: 1,
    Word.UNCLEAR: 0,
    Word.NOT_AT_THIS_SIZE: 1,
    Word.NOT_SEEN: 1,
    Word.CONTRADICTED: 1,
    None: 0,
}


@given(tests, numbers, numbers, st.floats(0, 1e5), st.floats(0, 1e5))
def test_a_wider_interval_never_says_more(test, a, b, below, above):
    low, high = min(a, b), max(a, b)
    narrow, wide = test.relation(low, high), test.relation(low - below, high + above)
    for kind, level in itertools.product(Kind, Level):
        first, second = (verdicts.word(kind, level, relation) for relation in (narrow, wide))
        assert STRENGTH[second] <= STRENGTH[first]
        if STRENGTH[second]:
            assert second is first


@given(tests, numbers, numbers)
def test_a_relation_is_what_all_values_of_the_interval_share(test, a, b):
    low, high = min(a, b), max(a, b)
    relation = test.relation(low, high)
    ends = {test.holds(low), test.holds(high)}
    if relation is INSIDE:
        assert ends == {True}
        assert test.holds((low + high) / 2)
    if relation is OUTSIDE:
        assert ends == {False}
        assert not test.holds((low + high) / 2)
    if len(ends) == 2:
        assert relation is ACROSS


@given(numbers, st.floats(0.001, 1e3), st.floats(0.001, 1e3))
def test_containing_the_null_is_not_accepting_it(middle, margin, more):
    test = Test("within", middle, margin)
    wide = test.relation(middle - margin - more, middle + margin + more)
    assert wide is ACROSS
    assume(margin / 2 < margin)
    assert test.relation(middle - margin / 2, middle + margin / 2) is INSIDE


@pytest.mark.parametrize(
    ("test", "low", "high", "relation"),
    [
        (Test(">", 0), 0.1, 0.2, INSIDE),
        (Test(">", 0), 0.0, 0.2, ACROSS),
        (Test(">", 0), 0.0, 0.0, OUTSIDE),
        (Test(">", 0), -0.2, 0.0, OUTSIDE),
        (Test("<", 0), -0.2, -0.1, INSIDE),
        (Test("<", 0), 0.0, 0.1, OUTSIDE),
        (Test("<", 1), 0, 0, INSIDE),
        (Test("<", 1), 1, 1, OUTSIDE),
        (Test("within", 0, 0.2), -0.1, 0.2, INSIDE),
        (Test("within", 0, 0.2), -0.1, 0.3, ACROSS),
        (Test("within", 0, 0.2), -9, 9, ACROSS),
        (Test("within", 0, 0.2), 0.3, 0.4, OUTSIDE),
        (Test("within", 0, 0.0), 0.0, 31.0, ACROSS),
        (Test("within", 0, 0.0), 0.3, 31.0, OUTSIDE),
        (Test(">", 0), None, None, ACROSS),
    ],
    ids=str,
)
def test_how_an_interval_lies(test, low, high, relation):
    assert test.relation(low, high) is relation


@given(tests)
def test_a_test_is_read_as_it_is_written(test):
    text = str(test)
    again = verdicts.parse(f"01_x/gain {text.replace('+', '')}")
    assert again[:2] == ("01_x", "gain")
    assert str(again[2]) == text


@pytest.mark.parametrize(
    "text", ["01_x/gain", "gain > 0", "01_x/gain >= 0", "01_x/gain within 1", ""]
)
def test_a_malformed_test_is_refused(text):
    with pytest.raises(ValueError, match="not a test"):
        verdicts.parse(text)


@pytest.mark.parametrize(
    ("tier", "corpora", "level"),
    [
        ("ci", "builtin", TOY),
        ("ci", "folder:/text", TOY),
        ("laptop", "builtin", TOY),
        ("laptop", "folder", SMALL),
        ("laptop", "folder-open:/text", SMALL),
        ("pythia-410m", "hub", REPLICATED),
        ("pythia-6.9b", "hub", REPLICATED),
        ("pythia-410m", "folder", PRETRAINED),
        ("pythia-410m", "builtin", TOY),
    ],
)
def test_the_level_of_a_run(tier, corpora, level):
    assert verdicts.level_of(tier, corpora) is level


def test_another_model_that_others_trained_is_no_replication(monkeypatch):
    from dataclasses import replace

    other = replace(tiers.get("pythia-410m"), name="smollm2", hub_id="HuggingFaceTB/SmolLM2-135M")
    monkeypatch.setitem(tiers.TIERS, "smollm2", other)
    assert verdicts.level_of("smollm2", "hub") is PRETRAINED
    assert verdicts.level_of("smollm2", "folder:/text") is PRETRAINED


def test_an_unknown_tier_has_no_level():
    with pytest.raises(ValueError, match="Unknown tier"):
        verdicts.level_of("desktop", "folder")
