"""The software environment as files: `constraints.txt` and `environment.yml` from pyproject."""

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kalavai_helpers import artifacts

# Every environment brings its own; pinning them would fight the build tools.
INSTALLERS = {"pip", "setuptools", "wheel"}

# Extras with an environment of their own beside the book's: see the Makefile.
BESIDE = {"eval", "pretrained"}


def project(root: Path | None = None) -> dict:
    """Return the `[project]` table of pyproject.toml."""
    path = (root or artifacts.project_root()) / "pyproject.toml"
    if not path.exists():
        raise FileNotFoundError(f"{path} not found: run this in a checkout of the book")
    return tomllib.loads(path.read_text(encoding="utf-8"))["project"]


def requirements(
    root: Path | None = None, extras: bool = True, beside: bool = False
) -> list[Requirement]:
    """Return what the project declares, with the optional groups unless `extras` is false.

    Groups that are installed beside the book's environment count only if `beside` is set.
    """
    table = project(root)
    lines = list(table["dependencies"])
    for name, group in table.get("optional-dependencies", {}).items():
        if beside if name in BESIDE else extras:
            lines += group
    return sorted((Requirement(line) for line in lines), key=lambda item: item.name.lower())


def extra(name: str, root: Path | None = None) -> list[str]:
    """Return the requirements of one optional group, as pip takes them."""
    return list(project(root)["optional-dependencies"][name])


def constraints(root: Path | None = None) -> dict[str, str]:
    """Return the exact versions in constraints.txt by canonical package name."""
    text = ((root or artifacts.project_root()) / "constraints.txt").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def environment_yml(root: Path | None = None) -> str:
    """Return the text of environment.yml: the same environment for users of conda."""
    listed = "\n".join(f"      - {_plain(item)}" for item in requirements(root))
    return f"""\
# Derived from pyproject.toml by: python -m kalavai_helpers environment
name: kalavai-book
channels:
  - conda-forge
dependencies:
  - python{project(root)["requires-python"]}
  - make
  - pip
  - pip:
      - --constraint constraints.txt
{listed}
      - --editable .
"""


def freeze(root: Path | None = None) -> str:
    """Return the text of constraints.txt: what is installed here, of all that the project needs.

    What lies in another environment beside the book's keeps its pin.

    Raises
    ------
    RuntimeError
        When a declared requirement is neither installed nor pinned from elsewhere.
    """
    elsewhere = _pinned_beside(root)
    pinned: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    pending = requirements(root, beside=True)
    while pending:
        wanted = pending.pop()
        visit = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if visit in done:
            continue
        done.add(visit)
        try:
            distribution = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            if visit[0] not in elsewhere:
                raise RuntimeError(f"{wanted.name} is not installed: run make test first") from None
            pinned[visit[0]] = elsewhere[visit[0]]
            continue
        # The local part (2.13.0+cpu) names a build; the pin must accept every build.
        pinned[visit[0]] = distribution.version.partition("+")[0]
        for line in distribution.requires or []:
            item = Requirement(line)
            extras = [*wanted.extras, ""]
            if not item.marker or any(item.marker.evaluate({"extra": name}) for name in extras):
                pending.append(item)
    lines = [f"{name}=={version}" for name, version in sorted(pinned.items())]
    wanted_lines = [line for line in lines if line.split("==")[0] not in INSTALLERS]
    return "\n".join(
        [
            "# The exact versions the book was tested with (pip install -c constraints.txt).",
            "# Written by: python -m kalavai_helpers environment --freeze",
            *wanted_lines,
            "",
        ]
    )


def _pinned_beside(root: Path | None) -> dict[str, str]:
    """Pins of the requirements that only groups beside the book's environment have."""
    ours = {canonicalize_name(item.name) for item in requirements(root)}
    all_of_them = {canonicalize_name(item.name) for item in requirements(root, beside=True)}
    path = (root or artifacts.project_root()) / "constraints.txt"
    known = constraints(root) if path.exists() else {}
    return {name: known[name] for name in all_of_them - ours if name in known}


def write(root: Path | None = None, refreeze: bool = False) -> list[Path]:
    """Write environment.yml, and constraints.txt when `refreeze` is set; return the files."""
    folder = root or artifacts.project_root()
    files = {"environment.yml": environment_yml(root)}
    if refreeze:
        files["constraints.txt"] = freeze(root)
    return [artifacts.write_bytes(folder / name, text.encode()) for name, text in files.items()]


def drift(root: Path | None = None) -> list[str]:
    """Return, one line each, where the files and pyproject.toml disagree."""
    folder = root or artifacts.project_root()
    problems = []
    derived = folder / "environment.yml"
    if not derived.exists() or derived.read_text(encoding="utf-8") != environment_yml(root):
        problems.append("environment.yml differs from pyproject.toml: run make environment")
    pinned = constraints(root)
    for item in requirements(root, beside=True):
        version = pinned.get(canonicalize_name(item.name))
        if version is None:
            problems.append(f"constraints.txt does not pin {item.name}: freeze it again")
        elif not item.specifier.contains(version, prereleases=True):
            problems.append(f"constraints.txt pins {item.name} {version}, pyproject asks {item}")
    return problems


def _plain(item: Requirement) -> str:
    # Specifiers are a set; sorting them keeps the file the same on every machine.
    specifier = ",".join(sorted(map(str, item.specifier), reverse=True))
    return f"{item.name}{specifier}"
