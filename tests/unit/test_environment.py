"""The environment files say the same as pyproject.toml."""

from pathlib import Path

import pytest

from kalavai_helpers import artifacts, environment

PYPROJECT = """\
[project]
name = "small"
requires-python = ">=3.11"
dependencies = ["packaging>=23,<100", "numpy>=1"]
[project.optional-dependencies]
test = ["pytest>=8"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    environment.write(tmp_path, refreeze=True)
    return tmp_path


def test_no_drift_in_the_repository():
    assert environment.drift(artifacts.PACKAGE.parent) == []


def test_environment_lists_every_requirement_once(project):
    text = (project / "environment.yml").read_text()
    for line in ("numpy>=1", "packaging>=23,<100", "pytest>=8", "--constraint constraints.txt"):
        assert text.count(f"      - {line}\n") == 1
    assert "name: kalavai-book" in text
    assert "  - python>=3.11\n" in text


def test_freezing_follows_requirements_and_drops_build_tags(project):
    pins = environment.constraints(project)
    assert {"packaging", "numpy", "pytest", "pluggy"} <= set(pins)
    assert not environment.INSTALLERS & set(pins)
    assert not any("+" in version for version in pins.values())


def test_what_is_installed_beside_the_environment_is_pinned_and_not_listed(project):
    path = project / "pyproject.toml"
    path.write_text(path.read_text() + 'eval = ["pluggy>=1", "tox"]\n')
    assert environment.extra("eval", project) == ["pluggy>=1", "tox"]
    problems = environment.drift(project)
    assert problems == ["constraints.txt does not pin tox: freeze it again"]
    assert "pluggy" not in environment.environment_yml(project)
    assert "lm-eval" in environment.constraints(artifacts.PACKAGE.parent)


def test_freezing_keeps_the_pin_of_what_lies_in_another_environment(project):
    path = project / "pyproject.toml"
    path.write_text(path.read_text() + 'pretrained = ["no-such-package>=1"]\n')
    with pytest.raises(RuntimeError, match="no-such-package is not installed"):
        environment.freeze(project)
    pins = project / "constraints.txt"
    pins.write_text(pins.read_text() + "no-such-package==1.5\n")
    assert "no-such-package==1.5\n" in environment.freeze(project)
    path.write_text(path.read_text().replace("pretrained", "extra"))
    with pytest.raises(RuntimeError, match="no-such-package is not installed"):
        environment.freeze(project)


def test_drift_is_named(project):
    assert environment.drift(project) == []
    changed = PYPROJECT.replace("numpy>=1", "numpy>=99").replace('"pytest>=8"', '"tox"')
    (project / "pyproject.toml").write_text(changed)
    problems = "\n".join(environment.drift(project))
    assert "environment.yml" in problems
    assert "pins numpy" in problems
    assert "does not pin tox" in problems


def test_torch_pin_leaves_the_build_to_the_user():
    assert environment.constraints(artifacts.PACKAGE.parent)["torch"] == "2.13.0"
