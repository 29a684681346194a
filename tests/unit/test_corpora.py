"""Text is split by document, packed with its boundaries kept, and bad input is named."""

import json
import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import corpora, packing, text_folder
from kalavai_helpers.corpora import CorpusError, Document


def write(folder, domain, texts, sources=None):
    lines = [
        json.dumps({"text": text, "source": (sources or {}).get(i, f"s{i}")})
        for i, text in enumerate(texts)
    ]
    (folder / f"{domain}.jsonl.xz").write_bytes(lzma.compress("\n".join(lines).encode()))


def test_no_document_and_no_source_in_two_roles(colour_folder):
    parts = corpora.split(f"folder:{colour_folder}", "red")
    assert set(parts) == set(corpora.SPLITS)
    for key in ("id", "source"):
        seen = [{getattr(d, key) for d in documents} for documents in parts.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))
    assert sum(map(len, parts.values())) == len(corpora.load(f"folder:{colour_folder}", "red"))


def test_a_source_that_is_most_of_a_domain_is_split_by_document(tmp_path):
    write(tmp_path, "red", [f"text {i} " * 20 for i in range(40)], dict.fromkeys(range(40), "one"))
    parts = corpora.split(f"folder:{tmp_path}", "red")
    assert all(parts.values())


def test_shares_are_near_their_targets(colour_folder):
    parts = corpora.split(f"folder:{colour_folder}", "red")
    size = {role: sum(len(d.text) for d in documents) for role, documents in parts.items()}
    for role, share in corpora.SPLITS.items():
        assert size[role] / sum(size.values()) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff{}", "not UTF-8"),
        (b"not json", "line 1 is not a JSON object"),
        (b'{"words": "x"}', "line 1 is not a JSON object with a 'text'"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, content, message):
    (tmp_path / "red.jsonl").write_bytes(content)
    with pytest.raises(CorpusError, match=message) as caught:
        corpora.load(f"folder:{tmp_path}", "red")
    assert "red.jsonl" in str(caught.value)


def test_a_truncated_xz_file_is_named(tmp_path):
    whole = lzma.compress(b'{"text": "x"}\n' * 200)
    (tmp_path / "red.jsonl.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match=r"red\.jsonl\.xz is not a readable xz file"):
        corpora.load(f"folder:{tmp_path}", "red")


def test_an_unknown_domain_lists_the_valid_ones(colour_folder):
    with pytest.raises(CorpusError, match="blue, green, red"):
        corpora.load(f"folder:{colour_folder}", "purple")


@pytest.mark.parametrize("spec", ["nowhere", "folder", "builtin:x", "folder:/does/not/exist"])
def test_an_unusable_source_says_so(spec):
    with pytest.raises(CorpusError, match=r"Unknown text source|does not exist"):
        corpora.load(spec, "code")


def test_too_few_documents_to_split_say_how_many_are_needed(tmp_path):
    write(tmp_path, "red", ["only one text"])
    with pytest.raises(CorpusError, match="too few"):
        corpora.split(f"folder:{tmp_path}", "red")


def test_chosen_domains_fall_back_to_what_a_folder_offers(colour_folder):
    spec = f"folder:{colour_folder}"
    assert corpora.choose(spec, ("red", "blue")) == ("red", "blue")
    assert corpora.choose(spec, ("code", "science", "fiction")) == ("blue", "green", "red")


def test_base_mix_without_general_text_is_a_trace_of_every_domain(colour_folder):
    mix = corpora.base_mix(f"folder:{colour_folder}", 100_000)
    assert {d.domain for d in mix} == {"blue", "green", "red"}
    held = {d.id for d in corpora.split(f"folder:{colour_folder}", "red")["heldout"]}
    assert not held & {d.id for d in mix}


def test_open_source_text_keeps_only_licensed_documents(tmp_path):
    texts = [f"words {i} " * 30 for i in range(24)]
    write(tmp_path, "code", texts, {i: f"networkx/networkx:{i}.py" for i in range(12)})
    documents = corpora.load(f"folder-open:{tmp_path}", "code")
    assert len(documents) == 12
    assert all(d.source.startswith("networkx/") for d in documents)


@pytest.fixture(scope="module")
def tokenizer(colour_folder):
    documents = corpora.base_mix(f"folder:{colour_folder}", 100_000)
    return packing.train_tokenizer(documents, 300)


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1))
def test_every_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def documents_of(texts):
    return [Document(f"d{i}", "red", text, f"s{i}") for i, text in enumerate(texts)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("abc ,", min_size=1, max_size=90), min_size=1, max_size=6), st.integers(3, 40)
)
def test_windows_predict_every_token_of_every_document_once(tokenizer, texts, seq_len):
    windows = packing.windows(documents_of(texts), tokenizer, seq_len)
    for index, text in enumerate(texts):
        rows = windows.targets[windows.document == index]
        flat = rows[rows != packing.IGNORE].tolist()
        assert flat == tokenizer.encode(text, add_special_tokens=False).ids
    inputs, targets = windows.input_ids, windows.targets
    both = (targets[:, :-1] != packing.IGNORE) & (targets[:, 1:] != packing.IGNORE)
    assert (inputs[:, 1:][both] == targets[:, :-1][both]).all()


def test_packing_keeps_document_boundaries(tokenizer):
    documents = documents_of([f"apple {'rose ' * n}" for n in range(5, 60)])
    chunks = packing.pack(documents, tokenizer, 16)
    assert chunks.input_ids.shape == chunks.document.shape == (len(chunks), 17)
    end = tokenizer.token_to_id(packing.END)
    flat, owner = chunks.input_ids.ravel(), chunks.document.ravel()
    assert ((np.diff(owner) != 0) == (flat[:-1] == end)).all()


def test_too_little_text_for_one_chunk_says_so(tokenizer):
    with pytest.raises(CorpusError, match="do not fill one chunk"):
        packing.pack(documents_of(["apple"]), tokenizer, 64)


def test_spread_takes_units_in_turn_in_a_fixed_order():
    made = [
        corpora.Document(f"{unit}{i}", "d", f"text {unit}{i}", unit, "heldout", unit)
        for unit, n in (("a", 5), ("b", 1), ("c", 2))
        for i in range(n)
    ]
    order = corpora.spread(made)
    assert order == corpora.spread(made[::-1])
    assert sorted(d.id for d in order) == sorted(d.id for d in made)
    units = [d.unit for d in order]
    assert {*units[:3]} == {"a", "b", "c"}
    assert {*units[3:5]} == {"a", "c"}
    assert units[5:] == ["a"] * 3


@given(st.lists(st.text(min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_an_opening_is_the_text_that_one_window_scores(tokenizer, texts):
    seq_len, n = 12, 5
    found = packing.openings(documents_of(texts), tokenizer, seq_len, n)
    assert len(found) == min(n, len(texts))
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    full = sum(length >= seq_len for length in lengths)
    for index, document in enumerate(found):
        whole = texts[int(document.id[1:])]
        filled = len(tokenizer.encode(whole).ids) >= seq_len
        assert filled == (index < full), "documents that fill a window come first"
        assert whole.startswith(document.text)
        assert document.text == whole or filled
        ids = tokenizer.encode(document.text).ids
        # A character of four bytes may be four tokens, and is not cut in two.
        assert min(seq_len - 3, len(tokenizer.encode(whole).ids)) <= len(ids) <= seq_len
    assert len(packing.windows(found, tokenizer, seq_len).input_ids) == len(found)


def test_a_character_of_several_tokens_is_not_cut(tokenizer):
    text = "தமிழ் மொழி " * 3
    (opening,) = packing.openings(documents_of([text]), tokenizer, 10, 1)
    assert len(tokenizer.encode(opening.text).ids) == 9
    assert opening.text == text[:3]


def test_a_folder_of_text_files_is_a_domain(tmp_path):
    for domain in ("law", "recipes"):
        (tmp_path / domain).mkdir()
        for i in range(12):
            (tmp_path / domain / f"{i:02}.txt").write_text(f"{domain} number {i}\n" * 20)
    (tmp_path / "pictures").mkdir()
    spec = f"folder:{tmp_path}"
    assert corpora.domains(spec) == ["law", "recipes"]
    assert [d.source for d in corpora.load(spec, "law")] == [f"{i:02}.txt" for i in range(12)]
    assert all(corpora.split(spec, "law").values())
    assert corpora.base_mix(spec, 10_000)
    (tmp_path / "law" / "12.txt").write_bytes(b"\xff")
    corpora.load.cache_clear()
    text_folder.read.cache_clear()
    with pytest.raises(CorpusError, match=r"12\.txt is not UTF-8 \(byte 0\)"):
        corpora.load(spec, "law")
