"""Builtin text: deterministic, offline, large and varied enough, in the right script."""

import hashlib
import importlib.util
import lzma
import os
import random
import re
import socket
import subprocess
import sys
import tomllib
import unicodedata
from functools import cache
from pathlib import Path

import pytest

from kalavai_helpers import builtin_cldr, builtin_story, builtin_text
from kalavai_helpers.builtin_text import DOMAINS, LANGUAGES, MAX_CHARS, MIN_CHARS

LATER_LANGUAGES = ("es", "hi", "sw", "vi", "ar", "id", "th")
SCRIPTS = {"ta": "TAMIL", "hi": "DEVANAGARI", "ar": "ARABIC", "th": "THAI"}


@cache
def documents(domain: str) -> list[tuple[str, str]]:
    return DOMAINS[domain]()


def texts(domain: str) -> list[str]:
    return [text for text, _ in documents(domain)]


@cache
def almanacs(code: str) -> list[str]:
    return [text for text, _ in builtin_cldr.documents(code, size=120_000)]


@pytest.fixture(params=DOMAINS)
def domain(request: pytest.FixtureRequest) -> str:
    return request.param


def script_share(text: str, script: str) -> float:
    letters = [ch for ch in text if ch.isalpha()]
    return sum(script in unicodedata.name(ch, "") for ch in letters) / len(letters)


def test_the_promised_domains_exist() -> None:
    promised = {"general", "code", "science", "fiction", "tamil", "yoruba", "welsh"}
    assert promised <= set(DOMAINS)


def test_same_list_every_time_and_without_network(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("builtin text opened a socket")

    before = documents(domain)
    monkeypatch.setattr(socket, "socket", refuse)
    random.seed(1)  # the global state must not matter
    assert DOMAINS[domain]() == before


def test_same_list_in_another_process() -> None:
    """Set order changes from process to process and must not show."""
    names = ["general", "fiction", "yoruba"]
    program = (
        "import hashlib; from kalavai_helpers.builtin_text import DOMAINS;"
        f"print(hashlib.sha256(repr([DOMAINS[d]() for d in {names}]).encode()).hexdigest())"
    )
    root = Path(builtin_text.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256(repr([documents(d) for d in names]).encode()).hexdigest()
    assert done.stdout.strip() == here


def test_size_and_length_bounds(domain: str) -> None:
    size = sum(len(text.encode()) for text in texts(domain))
    assert 400_000 <= size <= 2_500_000
    assert all(MIN_CHARS <= len(text) <= MAX_CHARS for text in texts(domain))


def test_text_is_clean(domain: str) -> None:
    for text in texts(domain):
        assert unicodedata.is_normalized("NFC", text)
        assert text.strip("\n") == text
        assert not re.search("[\0\f\r\u200e\u200f\ufffe\ufeff]", text)


def test_enough_sources_to_split_by(domain: str) -> None:
    sources = {source for _, source in documents(domain)}
    assert len(sources) >= 50
    assert not any(source.startswith("/") for source in sources)


def test_no_document_twice_or_in_two_domains() -> None:
    everything = [text for name in DOMAINS for text in texts(name)]
    assert len(everything) == len(set(everything))


def test_not_degenerate(domain: str) -> None:
    """Repetitive text compresses to almost nothing; noise does not compress."""
    data = "\n".join(texts(domain)).encode()
    ratio = len(lzma.compress(data)) / len(data)
    assert (0.12 if domain == "fiction" else 0.08) < ratio < 0.4
    words = " ".join(texts(domain)).split()
    assert len(set(words)) > 1_000
    assert len(set(words)) / len(words) < 0.3


@pytest.mark.parametrize("code", [*LANGUAGES.values(), *LATER_LANGUAGES])
def test_language_is_in_its_own_script(code: str) -> None:
    share = script_share(" ".join(almanacs(code)), SCRIPTS.get(code, "LATIN"))
    assert share >= (0.95 if code in SCRIPTS else 0.98)


@pytest.mark.parametrize("code", ["yo", "cy", "es", "sw", "vi", "id"])
def test_no_english_leaks_into_a_latin_language(code: str) -> None:
    text = " ".join(almanacs(code)).lower()
    assert not re.search(r"\b(the|of|week|and|time|january|english|kilometers)\b", text)
    assert not re.search(r"\b(length|mass|duration|speed|volume)-[a-z]", text)


@pytest.mark.parametrize(
    ("code", "word"),
    [("ta", "மற்றும்"), ("yo", "Ọjọ́"), ("cy", "Ionawr"), ("es", "miércoles"), ("hi", "भारत")],
)
def test_language_uses_its_own_words(code: str, word: str) -> None:
    assert sum(word in text for text in almanacs(code)) >= 1


def test_code_is_python_and_science_is_not() -> None:
    def share(name: str, pattern: str) -> float:
        return sum(bool(re.search(pattern, t, re.MULTILINE)) for t in texts(name)) / len(
            texts(name)
        )

    assert share("code", r"^ *(def|class|return|import|from|if|self)\b") > 0.9
    assert share("science", r"^ *(def |class |import |>>>)") < 0.02
    assert share("general", r"^ *(def |import |>>>)|::=") < 0.02


def test_stories_keep_their_cast_and_leave_no_slot_unfilled() -> None:
    for seed in range(40):
        story = builtin_story.story(random.Random(seed))
        assert not re.search(r"[{}/~+^]|\d|  ", story)
        names = re.findall(r"\b[A-Z][a-z]+(?= [A-Z][a-z]+)", story)
        # Whoever is introduced by full name comes back, most of them more than once.
        assert max(story.count(name) for name in names) >= 5
        assert not re.search(
            r"\ba ([aeiou]|ho(ur|nest))|\ban (?![aeiou]|ho(ur|nest))", story.lower()
        )


def test_science_reads_sources_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("sympy", "networkx") else found(name),
    )
    size = sum(len(text.encode()) for text, _ in builtin_text.science())
    assert size >= 400_000  # enough even without torch's own dependencies


def test_pieces_are_cut_at_definitions_and_share_their_source() -> None:
    body = "\n".join(f"    value_{i} = {i}" for i in range(60))
    functions = [f"def function_{i}():\n{body}" for i in range(9)]
    documents = builtin_text._pack(re.split(r"\n\n+(?=\S)", "\n\n\n".join(functions)), "a.py")
    assert len(documents) > 1
    assert all(source == "a.py" and text.startswith("def function_") for text, source in documents)
    assert sum(text.count("def function_") for text, _ in documents) == 9


def test_text_without_any_break_is_still_cut() -> None:
    documents = builtin_text._pack(["x" * 9_000], "blob")
    assert [len(text) for text, _ in documents] == [4000, 4000, 1000]


def test_describe() -> None:
    for name in DOMAINS:
        assert builtin_text.describe(name).endswith(".")
    with pytest.raises(ValueError, match=r"'latin'.*tamil"):
        builtin_text.describe("latin")


def test_a_checkout_that_is_not_installed_reads_the_same_packages():
    root = Path(__file__).parents[2]
    wanted = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert sorted(builtin_text._ROOTS) == sorted(re.split(r"[<>=]", line)[0] for line in wanted)
