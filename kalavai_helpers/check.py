"""Checks this machine and installation before a run: one [OK], [--] or [FAIL] line each."""

import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from kalavai_helpers import artifacts, environment, tiers

MIN_DISK_GB = 3.0
MIN_MEMORY_GB = 2.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Line:
    """One finding: `status` is `OK`, `--` (optional, absent) or `FAIL`."""

    status: str
    text: str

    def __str__(self) -> str:
        return f"[{self.status}]".ljust(7) + self.text


def main(tier: str = "ci", corpora: str | None = None) -> int:
    """Print every finding and return 1 when any is a failure, else 0.

    Raises
    ------
    ValueError
        For an unknown tier.
    """
    spec = corpora or tiers.get(tier).corpora
    checks: list[Callable[[], Iterator[Line]]] = [
        python_version,
        packages,
        lambda: device(tier),
        machine,
        store,
        browser,
        lambda: text(spec),
    ]
    failures = 0
    for check in checks:
        for line in check():
            print(line, flush=True)
            failures += line.status == "FAIL"
    print(f"{failures} failed" if failures else "Everything that is needed is there.")
    return 1 if failures else 0


def python_version() -> Iterator[Line]:
    """Check the interpreter against the version the project asks for."""
    wanted, found = _required_python(), platform.python_version()
    if SpecifierSet(wanted).contains(found, prereleases=True):
        yield Line("OK", f"Python {found}")
    else:
        yield Line("FAIL", f"Python {found}: the book needs {wanted}; make book PYTHON=python3.12")


def packages() -> Iterator[Line]:
    """Check every dependency: installed, importable, at a version the project accepts."""
    hard = {item.name for item in environment.requirements(extras=False)}
    for item in environment.requirements():
        line = _package(item)
        if line.status == "FAIL" and item.name not in hard:
            line = Line("--", f"{line.text} (only to build or test the book)")
        yield line


def device(tier: str) -> Iterator[Line]:
    """Report where the tier will compute, in which number format, and why."""
    if importlib.util.find_spec("torch") is None:
        return  # `packages` has said so
    try:
        where, dtype, reason = tiers.get(tier).device()
        yield Line("OK", f"tier {tier}: {where}, {str(dtype).removeprefix('torch.')} ({reason})")
    except (RuntimeError, ImportError, OSError) as error:
        yield Line("FAIL", f"tier {tier}: {error}")


def machine() -> Iterator[Line]:
    """Check cores, memory and free disk."""
    cores = os.cpu_count() or 1
    yield Line("OK", f"{cores} CPU core{'s' * (cores > 1)}")
    memory_gb = psutil.virtual_memory().available / 1e9
    enough = memory_gb >= MIN_MEMORY_GB
    advice = "" if enough else f": at least {MIN_MEMORY_GB:g} GB needed, close other programs"
    yield Line("OK" if enough else "FAIL", f"{memory_gb:.1f} GB of memory available{advice}")
    disk_gb = shutil.disk_usage(artifacts.existing(artifacts.store())).free / 1e9
    enough = disk_gb >= MIN_DISK_GB
    advice = "" if enough else f": {MIN_DISK_GB:g} GB needed; free some or set KALAVAI_STORE"
    yield Line("OK" if enough else "FAIL", f"{disk_gb:.1f} GB of disk free{advice}")


def store() -> Iterator[Line]:
    """Check that the artifact store can be written."""
    folder = artifacts.store()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        yield Line("FAIL", f"store {folder} is not writable ({error}): set KALAVAI_STORE")
    else:
        yield Line("OK", f"store {folder} is writable")


def browser() -> Iterator[Line]:
    """Look for the browser that tests the pages: optional for readers, needed in CI."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        yield Line("OK", f"browser {found}")
    else:
        needed = os.environ.get("CI") == "true"
        advice = "no Chromium: install it to test the pages (apt-get install chromium)"
        yield Line("FAIL" if needed else "--", advice)


def text(spec: str) -> Iterator[Line]:
    """Check that the text source exists, by reading one of its domains."""
    from kalavai_helpers import corpora

    try:
        domains = corpora.domains(spec)
        if not domains:
            yield Line("FAIL", f"text source {spec} holds no domain")
        elif spec == "hub":
            yield Line("--", "text source hub: fetched at its first use, which needs the network")
        else:
            count = len(corpora.load(spec, domains[0]))
            yield Line("OK", f"text source {spec}: {len(domains)} domains, {count} {domains[0]}")
    except (ValueError, OSError) as error:
        yield Line("FAIL", f"text source {spec}: {error}")


def _package(item: Requirement) -> Line:
    try:
        version = metadata.version(item.name)
    except metadata.PackageNotFoundError:
        return Line("FAIL", f"{item.name} is not installed: make book installs it")
    if not any(map(importlib.util.find_spec, _modules().get(canonicalize_name(item.name), ()))):
        return Line("FAIL", f"{item.name} {version} cannot be imported: install it again")
    if not item.specifier.contains(version, prereleases=True):
        return Line("FAIL", f"{item.name} {version} found, {item.specifier} needed")
    tested = _constraints().get(canonicalize_name(item.name))
    same = tested is None or version.partition("+")[0] == tested
    return Line("OK", f"{item.name} {version}" + ("" if same else f" (tested with {tested})"))


@cache
def _modules() -> dict[str, list[str]]:
    """Modules by the package that brings them: scikit-learn's is called sklearn."""
    found: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            found.setdefault(canonicalize_name(package), []).append(module)
    return found


def _required_python() -> str:
    return environment.project()["requires-python"]


def _constraints() -> dict[str, str]:
    try:
        return environment.constraints()
    except FileNotFoundError:
        return {}
