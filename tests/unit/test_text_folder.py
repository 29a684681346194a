"""A folder of text: every name and every line is used as meant, or refused with a way out."""

import bz2
import gzip
import json
import lzma
import re

import pytest

from kalavai_helpers import baselines, corpora, router_comparison, routing, text_folder
from kalavai_helpers.specialists import BASE
from kalavai_helpers.text_folder import CorpusError


def lines(texts, **more):
    return "".join(json.dumps({"text": text, **more}) + "\n" for text in texts)


def texts(word, count=24):
    return [f"{word} number {i} and some more words of it" for i in range(count)]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("red.jsonl", "red"),
        ("Legal.jsonl", "legal"),
        ("en-wiki.jsonl", "en_wiki"),
        ("en wiki 2.JSONL", "en_wiki_2"),
        ("Español.jsonl", "espanol"),
        ("20_news.jsonl", "20_news"),
    ],
)
def test_a_file_names_a_domain_that_records_can_bear(tmp_path, file, name):
    (tmp_path / file).write_text(lines(texts("apple")))
    assert corpora.domains(f"folder:{tmp_path}") == [name]
    assert len(corpora.load(f"folder:{tmp_path}", name)) == 24
    assert re.fullmatch("[a-z0-9_]+", name)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("தமிழ்.jsonl", "letters from a to z"),
        ("русский-en.jsonl", "letters from a to z"),
        ("2024.jsonl", "letters from a to z"),
        ("evidence.jsonl", "rename it, for example to evidence_text"),
        ("Weight-Average.jsonl", "weight_average_text"),
        ("red.jsonl.zst", r"ends in \.jsonl\.zst"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_a_way_out(tmp_path, file, message):
    (tmp_path / file).write_text(lines(texts("apple")))
    (tmp_path / "blue.jsonl").write_text(lines(texts("sea")))
    with pytest.raises(CorpusError, match=message) as caught:
        corpora.load(f"folder:{tmp_path}", "blue")
    assert file in str(caught.value)


def test_names_of_models_and_methods_are_no_domains():
    methods = {BASE, *routing.ROUTERS, *router_comparison.FITS, *baselines.KINDS}
    plain = {re.sub("[^a-z]+", "_", name) for name in methods if "," not in name}
    assert plain - text_folder.RESERVED == set()


@pytest.mark.parametrize(
    "left",
    ["._red.jsonl", ".red.jsonl", "red.jsonl~", "red.jsonl.bak", "#red.jsonl#", "x.jsonl.part"],
)
def test_what_editors_and_systems_leave_is_no_domain(tmp_path, left):
    (tmp_path / "red.jsonl").write_text(lines(texts("apple")))
    (tmp_path / left).write_bytes(b"\x00\x05\x16\x07")
    assert list(text_folder.files(tmp_path)) == ["red"]


def test_other_files_and_empty_folders_are_no_domains(tmp_path):
    (tmp_path / "red.jsonl").write_text(lines(texts("apple")))
    (tmp_path / "SOURCES.md").write_text("where it is from")
    (tmp_path / "figures").mkdir()
    assert list(text_folder.files(tmp_path)) == ["red"]


@pytest.mark.parametrize("second", ["Red.jsonl", "red.jsonl.gz", "red"])
def test_two_places_for_one_domain_are_refused(tmp_path, second):
    (tmp_path / "red.jsonl.xz").write_bytes(lzma.compress(lines(texts("apple")).encode()))
    if "." in second:
        (tmp_path / second).write_bytes(b"")
    else:
        (tmp_path / second).mkdir()
        (tmp_path / second / "one.txt").write_text("apple")
    with pytest.raises(CorpusError, match="both the domain 'red'") as caught:
        corpora.domains(f"folder:{tmp_path}")
    assert second in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "pack"),
    [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress), (".bz2", bz2.compress)],
)
def test_usual_compressions_are_read_and_a_cut_file_is_named(tmp_path, ending, pack):
    path = tmp_path / f"red.jsonl{ending}"
    path.write_bytes(pack(lines(texts("apple")).encode()))
    assert len(text_folder.read(path)) == 24
    if ending:
        text_folder.read.cache_clear()
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(CorpusError, match=r"red\.jsonl.* is not a readable .*copy it again"):
            text_folder.read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": null}', "'text' is null"),
        ('{"text": 7}', "'text' is int"),
        ('{"text": ["a"]}', "'text' is list"),
        ('{"text": "a \\ud800 b"}', "surrogate pair \\(character 3\\)"),
        ('{"text": "a", "source": {}}', "'source' must be a name"),
        ('["text"]', "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("{'text': 'a'}", "not a JSON object"),
    ],
)
def test_a_line_that_is_no_text_is_named_before_anything_is_trained(tmp_path, line, message):
    path = tmp_path / "red.jsonl"
    path.write_text(lines(["fine", "fine too"]) + line + "\n")
    with pytest.raises(CorpusError, match=message) as caught:
        corpora.load(f"folder:{tmp_path}", "red")
    assert f"{path} line 3" in str(caught.value)


def test_a_mark_at_the_beginning_and_other_line_ends_are_no_part_of_the_text(tmp_path):
    path = tmp_path / "red.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(["eins", "zwei"]).replace("\n", "\r\n").encode())
    assert [text for text, _ in text_folder.read(path)] == ["eins", "zwei"]
    folder = tmp_path / "blue"
    folder.mkdir()
    (folder / "one.txt").write_bytes("\ufeffdrei".encode())
    assert text_folder.read(folder) == [("drei", "one.txt")]


def test_utf_16_is_named_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "red.jsonl").write_bytes(lines(["eins"]).encode("utf-16"))
    with pytest.raises(CorpusError, match=r"UTF-16: convert it, e\.g\. iconv"):
        corpora.load(f"folder:{tmp_path}", "red")


def test_numbers_are_sources_and_none_is_the_line(tmp_path):
    path = tmp_path / "red.jsonl"
    path.write_text(lines(["a"], source=7) + lines(["b"], source=None) + lines(["c"]))
    assert text_folder.read(path) == [("a", "7"), ("b", "red.jsonl:2"), ("c", "red.jsonl:3")]


def test_home_is_where_it_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "red.jsonl").write_text(lines(texts("apple")))
    assert corpora.domains("folder:~/corpus") == ["red"]


def both(tmp_path, shared):
    """Two domains and general text that have some texts in common."""
    (tmp_path / "legal.jsonl").write_text(lines(shared + texts("court", 30)))
    wiki = [f" {text.replace(' ', '  ')}\n" for text in shared] + texts("river", 30)
    (tmp_path / "wiki.jsonl").write_text(lines(wiki))
    (tmp_path / "general.jsonl").write_text(lines(texts("word", 30) + shared + texts("court", 30)))
    return f"folder:{tmp_path}"


def test_no_text_is_on_two_sides_of_a_split(tmp_path):
    spec = both(tmp_path, texts("shared", 20))
    sides = {}
    for domain in ("legal", "wiki"):
        for role, documents in corpora.split(spec, domain).items():
            for document in documents:
                sides.setdefault(" ".join(document.text.split()), set()).add(role)
    for document in corpora.base_mix(spec, 10**7):
        sides.setdefault(" ".join(document.text.split()), set()).add("base")
    assert len(sides) == 20 + 30 + 30 + 30
    assert all(len(roles) == 1 for roles in sides.values())
    assert len(corpora.load(spec, "wiki")) == 30


def test_general_text_that_is_all_of_domains_leaves_the_traces(tmp_path):
    (tmp_path / "legal.jsonl").write_text(lines(texts("court", 40)))
    (tmp_path / "wiki.jsonl").write_text(lines(texts("river", 40)))
    (tmp_path / "general.jsonl").write_text(lines(texts("court", 40) + texts("river", 40)))
    spec = f"folder:{tmp_path}"
    held = {d.text for domain in ("legal", "wiki") for d in corpora.split(spec, domain)["heldout"]}
    mix = {document.text for document in corpora.base_mix(spec, 3_000_000)}
    assert mix
    assert not held & mix


def test_a_budget_holds_for_a_document_that_is_longer_than_it():
    long = corpora.Document("a", "red", "wörter " * 100_000, "s")
    for documents in ([long], [long] * 3, [corpora.Document("b", "red", "kurz", "s"), long]):
        chosen = corpora.capped(documents, 10_000)
        assert 4_000 < sum(len(d.text.encode()) for d in chosen) <= 12_500
        assert all(long.text.startswith(d.text) or d.text == "kurz" for d in chosen)
        assert all(d.id != "a" for d in chosen if d.text != long.text)
