"""The offline corpora: text that every installation has, or that seeded generators write here.

Nothing is downloaded and nothing is imported to be read; the same machine gives the same list.

=========  ====================================================================================
general    English prose about software: Python's language reference (`pydoc_data.topics`) and
           the package descriptions of the project's dependencies
code       Python's own standard library, cut between definitions
science    prose paragraphs from docstrings of numerical packages, examples dropped
fiction    stories from a seeded grammar (`builtin_story`)
languages  almanacs assembled from Unicode CLDR words and patterns (`builtin_cldr`)
=========  ====================================================================================

They are stand-ins which differ from each other as real domains do; they are not samples of the
real domains. `describe` says so in one sentence per domain. Adding a language is one entry of
`LANGUAGES`; adding any other domain is one function under `@_domain`.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import sysconfig
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from kalavai_helpers import builtin_cldr, builtin_story

Documents = list[tuple[str, str]]

MIN_CHARS, MAX_CHARS = 400, 4000
_FLUSH_CHARS = 2000  # a document is closed once it is this long
_FILE_CHARS = 60_000  # most that one file gives, so that no file dominates a domain

DOMAINS: dict[str, Callable[[], Documents]] = {}
_DESCRIPTIONS: dict[str, str] = {}

LANGUAGES = {"tamil": "ta", "yoruba": "yo", "welsh": "cy"}  # domain -> Babel locale code


def describe(domain: str) -> str:
    """Return one honest sentence on what the builtin text of `domain` is.

    Raises
    ------
    ValueError
        If there is no builtin text for `domain`; the message lists the valid domains.
    """
    if domain not in _DESCRIPTIONS:
        raise ValueError(f"No builtin text for {domain!r}: choose one of {', '.join(DOMAINS)}.")
    return _DESCRIPTIONS[domain]


def _domain(name: str, description: str) -> Callable:
    """Register a function that returns (text, source) documents as the builtin text of `name`."""

    def register(function: Callable[[], Documents]) -> Callable[[], Documents]:
        DOMAINS[name], _DESCRIPTIONS[name] = function, description
        return function

    return register


# Where a text may be cut, best place first: before something not indented, before a method,
# between paragraphs, lines, words.
_CUTS = (r"\n\n+(?=\S)", r"\n\n+(?= {4}\S)", r"\n\n+", r"\n", r" ")


def _cut(text: str, level: int = 0) -> Iterator[str]:
    """Yield pieces of at most `MAX_CHARS` characters, cut at the best places there are."""
    if len(text) <= MAX_CHARS:
        yield text
    elif level == len(_CUTS):
        for start in range(0, len(text), MAX_CHARS):
            yield text[start : start + MAX_CHARS]
    else:
        for piece in re.split(_CUTS[level], text):
            yield from _cut(piece, level + 1)


def _pack(pieces: Iterable[str], source: str) -> Documents:
    """Join consecutive pieces of one source into documents; a short remainder is dropped."""
    found: Documents = []
    text = ""

    def close() -> None:
        if len(text) >= MIN_CHARS:
            found.append((text, source))

    for whole in pieces:
        for piece in _cut(unicodedata.normalize("NFC", whole)):
            piece = piece.strip("\n").rstrip()
            joined = f"{text}\n\n{piece}" if text else piece
            if len(joined) > MAX_CHARS or len(text) >= _FLUSH_CHARS:
                close()
                joined = piece
            text = joined
    close()
    return found


def _limited(documents: Iterable[tuple[str, str]], size: int) -> Documents:
    """Take documents until `size` bytes of UTF-8, each text once."""
    found: dict[str, str] = {}
    written = 0
    for text, source in documents:
        if text not in found:
            found[text] = source
            written += len(text.encode())
            if written >= size:
                break
    return list(found.items())


def _shuffled(paths: Iterable[str]) -> list[str]:
    """Order paths by their hash: a spread over all folders that no directory order can change."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())


def _read(path: Path) -> str:
    """Return a source file's text, or "" when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8").replace("\f", "").expandtabs(4)
    except UnicodeDecodeError:
        return ""


_MARKUP = re.compile(
    r"<!--.*?-->|<[^<>]*>|!\[[^\]]*\]\([^)]*\)|\[!\[.*?\]\([^)]*\)\]\([^)]*\)|\|[^\n]*\|", re.DOTALL
)
_TITLE = re.compile(r"^.*\n *[-=~*]{3,} *$", re.MULTILINE)
_NOT_PROSE = re.compile(
    r">>>|::=|```|In \[|^ *(Parameters|Returns|Yields|Raises|See Also|Attributes) *\n *---"
    r"|^ *((Keyword )?[Aa]rgs:|[\w*, ]+ : |[\w.]+ = |def |import |from \S+ import |class \w+[(:])",
    re.MULTILINE,
)
_WORD = re.compile(r"[A-Za-z][a-z]+")


def _prose(text: str) -> Iterator[str]:
    """Yield the paragraphs of `text` that read as prose, unindented and unwrapped.

    Code, grammar, tables, doctests and parameter lists are told by their marks, or because they
    have fewer than eight words, are not mostly words, or do not end like a sentence.
    """
    for block in re.split(r"\n\s*\n", text):
        if _NOT_PROSE.search(block):
            continue
        paragraph = " ".join(_TITLE.sub("", block).split())
        words = _WORD.findall(paragraph)
        mostly_words = sum(map(len, words)) >= 0.6 * len(paragraph)
        if len(words) >= 8 and mostly_words and paragraph.endswith(tuple(".:;!?)`")):
            yield paragraph


def _dependencies() -> list[str]:
    """Names of the distributions which every installation of the project has, sorted."""
    pending, found = ["kalavai-helpers", *_ROOTS], set()
    while pending:
        name = re.split(r"[^\w.-]", pending.pop(), maxsplit=1)[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another platform only
        found.add(name)
        pending += [line for line in needed if "extra ==" not in line]
    return sorted(found - {"kalavai-helpers"})


# What pyproject.toml requires; named because a checkout may be used without being installed.
_ROOTS = (
    "babel", "datasets", "ipykernel", "ipywidgets", "joblib", "jupytext", "nbclient", "nbformat",
    "numpy", "packaging", "pandas", "papermill", "plotly", "psutil", "safetensors", "scikit-learn",
    "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip


@_domain(
    "general",
    "English technical prose: the Python language reference and the descriptions of the packages"
    " this project needs, as installed on this machine.",
)
def general() -> Documents:
    """English prose: `pydoc_data.topics` and the descriptions in package metadata."""
    from pydoc_data import topics

    seen: set[str] = set()

    def fresh(text: str) -> Iterator[str]:
        for paragraph in _prose(text):
            if paragraph not in seen:
                seen.add(paragraph)
                yield paragraph

    def texts() -> Iterator[tuple[str, str]]:
        for name, text in sorted(topics.topics.items()):
            yield from _pack(fresh(text), f"python-reference/{name}")
        for name in _dependencies():
            metadata = importlib.metadata.metadata(name)
            text = metadata["Description"] or metadata.get_payload() or ""
            yield from _pack(fresh(_MARKUP.sub("", text)), f"package-description/{name}")

    return _limited(texts(), 2_000_000)


_NOT_LIBRARY = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "turtledemo",
                "dist-packages", "pydoc_data", "encodings", "ensurepip"}  # fmt: skip


@_domain("code", "Source code of the Python standard library, as installed on this machine.")
def code() -> Documents:
    """Python's standard-library modules, cut at top-level definitions, methods, blank lines."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if not _NOT_LIBRARY & set(path.relative_to(root).parts)
        and not path.name.startswith("_sysc")
    ]

    def texts() -> Iterator[tuple[str, str]]:
        for path in _shuffled(paths):
            pieces = re.split(_CUTS[0], _read(root / path)[:_FILE_CHARS])
            yield from _pack(pieces, f"stdlib/{path}")

    return _limited(texts(), 2_000_000)


# Packages that the project or torch itself requires, and the parts of the large ones to parse.
_SCIENCE = {
    "numpy": ("",),
    "pandas": ("core",),
    "torch": ("_torch_docs.py", "_tensor_docs.py", "functional.py", "nn", "distributions", "optim",
              "linalg", "special", "fft", "signal", "autograd"),
    "networkx": ("algorithms",),
    "sympy": ("physics", "stats", "functions", "integrals", "series", "diffgeom", "combinatorics"),
}  # fmt: skip


def _docstrings(source: str) -> Iterator[str]:
    """Yield the long string constants of a module: docstrings and texts attached as docstrings."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 200:
            yield node.value


@_domain(
    "science",
    "Technical English with formulas: prose paragraphs from the docstrings of numerical packages"
    " (NumPy, pandas, PyTorch, NetworkX, SymPy) installed on this machine.",
)
def science() -> Documents:
    """Docstring prose of numerical packages, parsed from source without importing them."""
    files: dict[str, Path] = {}
    for package, parts in _SCIENCE.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent
        for part in parts:
            for path in [root / part] if part.endswith(".py") else (root / part).rglob("*.py"):
                if "tests" not in path.parts and path.is_file():
                    files[f"{package}/{path.relative_to(root).as_posix()}"] = path
    seen: set[str] = set()

    def texts() -> Iterator[tuple[str, str]]:
        for name in _shuffled(files):
            found: list[str] = []
            for text in _docstrings(_read(files[name])):
                found += [p for p in _prose(text) if p not in seen]
                seen.update(found)
            yield from _pack(found, name)

    return _limited(texts(), 1_200_000)


@_domain(
    "fiction",
    "Short stories written by a seeded grammar: correct English with a persistent cast, invented"
    " here, not literature.",
)
def fiction() -> Documents:
    """Stories of `builtin_story`."""
    return builtin_story.documents()


for _name, _code in LANGUAGES.items():
    _domain(
        _name,
        f"Almanac entries in {_name.title()}, assembled from the words and patterns of Unicode CLDR"
        " with random dates and figures: real words and script, no running prose.",
    )(partial(builtin_cldr.documents, _code))
