"""Where the chapter tests find the project and its executed chapters."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).resolve().parent / "fixtures"


@pytest.fixture
def fixture_project(tmp_path: Path) -> Path:
    """A project folder whose chapters are the fixture chapters, and nothing else."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for source in FIXTURES.glob("*.md"):
        (notebooks / source.name).write_bytes(source.read_bytes())
    return tmp_path
