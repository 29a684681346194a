"""Files appear whole or not at all; what cannot be read is named, set aside and rebuilt."""

import errno
import os
import tomllib

import pytest
import torch

from kalavai_helpers import artifacts


def test_tensors_and_metadata_come_back(tmp_path):
    path = artifacts.save_tensors(tmp_path / "a.safetensors", {"w": torch.arange(3)}, {"step": 7})
    tensors, metadata = artifacts.load_tensors(path)
    assert tensors["w"].tolist() == [0, 1, 2]
    assert metadata == {"step": 7}
    assert artifacts.load_tensors(tmp_path / "missing.safetensors") is None


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_file_is_named_and_set_aside(tmp_path, keep):
    path = artifacts.save_tensors(tmp_path / "a.safetensors", {"w": torch.ones(64)}, {})
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.warns(artifacts.CorruptArtifactWarning, match=r"a\.safetensors"):
        assert artifacts.load_tensors(path) is None
    assert not path.exists()
    assert path.with_name("a.safetensors.corrupt").exists()


def test_broken_json_is_set_aside(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"half": ')
    with pytest.warns(artifacts.CorruptArtifactWarning):
        assert artifacts.read_json(path) is None
    assert path.with_name("a.json.corrupt").exists()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path):
    path = artifacts.write_bytes(tmp_path / "a.bin", b"old")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        artifacts.write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_clear_error(tmp_path):
    def full(temporary):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left to write a\.bin.*KALAVAI_STORE"):
        artifacts.write_atomic(tmp_path / "a.bin", full)


def test_a_really_full_device_is_a_clear_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs Linux's /dev/full")

    def full(temporary):
        with open("/dev/full", "wb") as device:
            device.write(b"x" * 10_000)

    with pytest.raises(OSError, match="nothing that was there is lost"):
        artifacts.write_atomic(artifacts.store() / "probe.bin", full)


def test_code_digest_ignores_comments_and_docstrings(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "PACKAGE", tmp_path)
    module = tmp_path / "m.py"
    digests = []
    for source in ("def f():\n    return 1\n", 'def f():\n    """Doc."""\n    return 1  # why\n'):
        module.write_text(source)
        digests.append(artifacts.code_digest(["m"]))
    assert digests[0] == digests[1]
    module.write_text("def f():\n    return 2\n")
    assert artifacts.code_digest(["m"]) != digests[0]


def test_fingerprints_depend_on_content_not_on_key_order():
    assert artifacts.fingerprint({"a": 1, "b": 2}) == artifacts.fingerprint({"b": 2, "a": 1})
    assert artifacts.fingerprint({"a": 1}) != artifacts.fingerprint({"a": 2})


def test_files_are_moved_with_the_last_one_last_and_stale_ones_go(tmp_path):
    made, target = tmp_path / "made", tmp_path / "target"
    for folder, names in ((made, ("config", "w-1", "w-2")), (target, ("config", "w", "notes"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(folder.name)
    artifacts.replace_files(made, target, "config", "w*")
    assert sorted(path.name for path in target.iterdir()) == ["config", "notes", "w-1", "w-2"]
    assert (target / "config").read_text() == "made"
    assert (target / "notes").read_text() == "target"


@pytest.mark.parametrize("home", ["prefix", "user", "lib"])
def test_an_installed_package_finds_its_data_whatever_the_working_folder_holds(
    tmp_path, monkeypatch, home
):
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / home / "share" / "kalavai").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(artifacts, "PACKAGE", tmp_path / "lib" / "kalavai_helpers")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr("site.getuserbase", lambda: str(tmp_path / "user"))
    assert artifacts.data() == tmp_path / home / "share" / "kalavai"


def test_every_file_of_the_data_is_installed_but_what_ci_expects():
    root = artifacts.PACKAGE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    installed = {
        path
        for place, patterns in project["tool"]["setuptools"]["data-files"].items()
        for pattern in patterns
        for path in root.glob(pattern)
        if place == f"share/kalavai{str(path.parent.relative_to(root)).removeprefix('data')}"
    }
    files = {path for path in (root / "data").rglob("*") if path.is_file()}
    assert files - installed == set((root / "data" / "expected").glob("*"))
