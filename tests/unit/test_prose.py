"""No number in prose is typed: results come from records, published values by id."""

import re
from functools import cache
from pathlib import Path

import jupytext
import pytest

from kalavai_helpers import published

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("notebooks/[0-9][0-9]_*.md"), *ROOT.glob("book/*.md")])

# What is not prose: front matter, code, roles and directives' options, mathematics, addresses.
NOT_PROSE = (
    r"\A---\n.*?\n---\n",
    r"^```\{(?:code-cell|claims|consistency|bibliography).*?^```",
    r"^```(?:bash|text|python|json)?\n.*?^```",
    r"^```.*$|^:[a-z-]+:.*$|^\([a-z0-9_-]+\)=$",
    r"\{[a-z:]+\}`[^`]*`",
    r"`[^`\n]*`",
    r"\$[^$\n]+\$",
    r"\]\([^)]*\)|<https?:[^>]*>|https?://\S+",
)
# Numbers that are no results: names of models and steps, hardware, settings that define a term.
NAMES = (
    r"\b(?:Pythia|pythia|Qwen)[\w.-]*|\b\d+(?:\.\d+)?[MB]\b",
    r"^#+ Step \d|^\*\*\d\.\*\*|^ *\d+\. |\b[Cc]hapters? \d+(?:(?: to |, | and )\d+)*",
    r"\b\d+(?: to \d+)? GB\b|α = 0|\b0 to 1\b|UTF-8|\b95 %|\b80 %|\(19\d\d\)|\b20\d\d\b|\bseed 42\b|Python 3(?:\.\d+)?",
)
# A setting of a published run is part of the ids of its values: "2,000 steps", "four frozen blocks".
SETTING = (
    r"\b(\d[\d,]*) (?:steps|tokens|blocks|layers|chunks|windows|contributors|specialists|seeds)\b"
)
NUMBER = r"(?<![\w.])[-+−]?\d[\d,.]*(?:\s?%)?"


@cache
def settings() -> set[str]:
    """Whole numbers in the ids and protocols of the public record."""
    frame = published.load()
    words = [*frame["id"], *frame["eval_protocol"].astype(str)]
    return {number for word in words for number in re.findall(r"\d+", word)}


def typed_numbers(text: str) -> list[str]:
    """Numbers that stand in the prose of a page, with a few words of context."""
    for pattern in NOT_PROSE:
        text = re.sub(
            pattern, " ", text, flags=re.DOTALL | re.MULTILINE if ".*?" in pattern else re.MULTILINE
        )
    for pattern in NAMES:
        text = re.sub(pattern, " ", text, flags=re.MULTILINE)
    text = re.sub(SETTING, lambda m: " " if m[1].replace(",", "") in settings() else m[0], text)
    return [text[max(0, m.start() - 25) : m.end() + 15] for m in re.finditer(NUMBER, text)]


def prose(path: Path) -> str:
    if path.parent.name != "notebooks":
        return path.read_text("utf-8")
    cells = jupytext.read(path).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_numbers_in_prose_come_from_records_or_from_the_public_record(path):
    assert typed_numbers(prose(path)) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "It gains 7.7 % over the best.",
        "The loss is 2.218 nats.",
        "it wins after 5,123 steps",
        "−21.1 %",
    ],
)
def test_a_typed_result_is_found(sentence):
    assert len(typed_numbers(sentence)) >= 1


def test_a_number_by_role_is_none_that_was_typed():
    assert typed_numbers("It gains {rec}`01_protocol/gain_evidence|+.2f` at 410M.") == []
