"""The pages of the book and a reader of their HTML."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

from kalavai_helpers import artifacts, book

ROOT = artifacts.project_root()
PAGES = book.toc_pages(ROOT)


class Page(HTMLParser):
    """Start tags of a page with their attributes, in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def words(self) -> str:
        """Return the text that a reader sees, one line a piece; source code is left out."""
        text = re.sub(r"(?s)<(script|style|pre|head)\b.*?</\1>", "", self.text)
        text = re.sub(r"</?(?:a|abbr|b|code|em|i|small|span|strong)\b[^>]*>", "", text)
        lines = html.unescape(re.sub(r"<[^>]+>", "\n", text)).splitlines()
        return "\n".join(filter(None, map(str.strip, lines)))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Return the attributes of every such tag; ``class_`` matches one of its classes."""
        wanted = attributes.pop("class_", None)
        return [
            found
            for name, found in self.tags
            if name == tag
            and (wanted is None or wanted in found.get("class", "").split())
            and all(found.get(key) == value for key, value in attributes.items())
        ]
