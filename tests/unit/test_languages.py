"""Costs of a language in three units, and tokens that can be read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import evaluation, languages, ledger, packing
from kalavai_helpers.corpora import Document


@pytest.fixture(scope="module")
def found(tiny):
    return ledger.build(tiny)


def test_three_units_tell_the_same_bits(found):
    best = evaluation.oracles(found)["domain_oracle"]
    table = languages.costs(found, {"oracle": best})
    size = languages.bytes_per_token(found)
    for (domain, _), row in table.iterrows():
        assert math.log(row.perplexity) == pytest.approx(row.loss)
        assert row.loss / math.log(2) == pytest.approx(row.bits_per_byte * size[domain])
    mean = table.xs("oracle", level="method").bits_per_byte.mean()
    assert mean == pytest.approx(evaluation.bits_per_byte(found, best))


def test_a_contributor_saves_nothing_with_what_they_had(found):
    domain = found.experts[0]
    saved = languages.contributions(found, found.column(domain).double()).loc[domain]
    assert saved.own_vs_specialist == pytest.approx(0)
    assert saved.others == pytest.approx(0)
    assert saved.own_vs_base > 0
    better = languages.contributions(found, evaluation.oracles(found)["domain_oracle"])
    assert (better.others > 0).all()


def test_the_factor_of_the_base_is_one(found):
    same = languages.perplexity_factor(found, found.groups[0], found.column("base"))
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    halved = languages.perplexity_factor(
        found, found.groups[0], found.column("base") + torch.tensor(2.0).log()
    )
    assert halved.value == pytest.approx(2, rel=1e-5)


TOKENIZER = packing.train_tokenizer(
    [Document("d", "d", "ஒன்று இரண்டு மூன்று one two three " * 4, "d")], 280
)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="·"), max_size=20))
def test_token_labels_spell_the_text(text):
    labels = languages.token_labels(TOKENIZER, text)
    assert len(labels) == len(TOKENIZER.encode(text, add_special_tokens=False).ids)
    assert "".join(label for label in labels if label != "·") == text


def test_code_switched_sentences_mix_scripts_or_languages():
    assert len(languages.SENTENCES) >= 5
    for title, text in languages.SENTENCES.items():
        assert 20 < len(text) < 90, title


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Mae Cymru yn wlad fach.", "Latin"),
        ("Ọjọ́ Ajé ni òní, oṣù Kẹta.", "Latin"),
        ("இன்று திங்கள், மார்ச் 3. (Wales)", "Tamil"),
        ("def f(x): return 2 * x", "Latin"),
        ("12 + 30 = 42", ""),
    ],
)
def test_a_text_is_in_the_script_of_most_of_its_letters(text, script):
    assert languages.script(text) == script
