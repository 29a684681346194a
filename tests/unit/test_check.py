"""The environment checker reports what is missing, says what to do, and fails only then."""

import collections

import pytest
from packaging.requirements import Requirement

from kalavai_helpers import artifacts, check, corpora, environment, tiers


def statuses(lines) -> list[str]:
    return [line.status for line in lines]


def only(lines) -> check.Line:
    (line,) = lines
    return line


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A machine where all is well, with few packages so that the check is quick."""
    monkeypatch.setattr(
        environment, "requirements", lambda root=None, extras=True: [Requirement("numpy>=1")]
    )
    monkeypatch.setattr(artifacts, "store", lambda: tmp_path / "store")
    monkeypatch.setattr(corpora, "domains", lambda spec: ["code"])
    monkeypatch.setattr(corpora, "load", lambda spec, domain: ("a", "b"))
    monkeypatch.setattr(check.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(check, "device", lambda tier: iter([check.Line("OK", "cpu")]))


def test_all_well(small, capsys):
    assert check.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("[OK]") for line in lines[:-1])
    assert "Everything" in lines[-1]


def test_one_failure_fails_the_check(small, monkeypatch, capsys):
    monkeypatch.setattr(environment, "requirements", lambda *a, **k: [Requirement("nopackage")])
    assert check.main() == 1
    output = capsys.readouterr().out
    assert "[FAIL] nopackage is not installed" in output
    assert "1 failed" in output


def test_old_python(monkeypatch):
    monkeypatch.setattr(check.platform, "python_version", lambda: "3.10.4")
    line = only(check.python_version())
    assert line.status == "FAIL"
    assert ">=3.11" in line.text


def test_wrong_version_and_untested_version(monkeypatch):
    wanted = {"numpy": Requirement("numpy>=99")}
    monkeypatch.setattr(environment, "requirements", lambda *a, **k: list(wanted.values()))
    line = only(check.packages())
    assert line.status == "FAIL"
    assert ">=99 needed" in line.text
    wanted["numpy"] = Requirement("numpy")
    monkeypatch.setattr(environment, "constraints", lambda: {"numpy": "1.0"})
    line = only(check.packages())
    assert line.status == "OK"
    assert "tested with 1.0" in line.text


def test_installed_but_not_importable(monkeypatch):
    monkeypatch.setattr(environment, "requirements", lambda *a, **k: [Requirement("numpy")])
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    assert "cannot be imported" in only(check.packages()).text


def test_missing_extra_is_optional(monkeypatch):
    def requirements(root=None, extras=True):
        return [Requirement("numpy")] + [Requirement("nopackage")] * extras

    monkeypatch.setattr(environment, "requirements", requirements)
    assert statuses(check.packages()) == ["OK", "--"]


def test_device_names_number_format_and_reason():
    line = only(check.device("ci"))
    assert line.status == "OK"
    assert "(" in line.text
    assert "float" in line.text


def test_device_that_is_too_small(monkeypatch):
    class TooSmall:
        def device(self):
            raise RuntimeError("needs 80 GB of GPU memory: use --tier pythia-1b")

    monkeypatch.setattr(tiers, "get", lambda name: TooSmall())
    line = only(check.device("pythia-6.9b"))
    assert line.status == "FAIL"
    assert "--tier pythia-1b" in line.text


def test_little_memory_and_a_full_disk(monkeypatch):
    memory = collections.namedtuple("memory", "available")(0.5e9)
    disk = collections.namedtuple("disk", "free")(1e9)
    monkeypatch.setattr(check.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda path: disk)
    lines = list(check.machine())
    assert statuses(lines) == ["OK", "FAIL", "FAIL"]
    assert "KALAVAI_STORE" in lines[2].text


def test_store_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(artifacts, "store", lambda: tmp_path / "file" / "store")
    line = only(check.store())
    assert line.status == "FAIL"
    assert "KALAVAI_STORE" in line.text


def test_missing_browser_fails_only_in_ci(monkeypatch):
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    assert only(check.browser()).status == "--"
    monkeypatch.setenv("CI", "true")
    assert only(check.browser()).status == "FAIL"


def test_text_source(monkeypatch):
    monkeypatch.setattr(corpora, "domains", lambda spec: [])
    assert only(check.text("folder:x")).status == "FAIL"

    def broken(spec):
        raise ValueError("Unknown text source 'x'")

    monkeypatch.setattr(corpora, "domains", broken)
    line = only(check.text("x"))
    assert line.status == "FAIL"
    assert "Unknown text source" in line.text
