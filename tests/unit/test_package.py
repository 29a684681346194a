"""The package as a whole: quick to import, small files, plain errors on the command line."""

import os
import re
import shlex
import subprocess
import sys
import time

import pytest

from kalavai_helpers import __main__, artifacts

ROOT = artifacts.PACKAGE.parent
MODULES = sorted(artifacts.PACKAGE.glob("*.py"))


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_import_takes_at_most_a_second_and_leaves_torch_alone():
    began = time.perf_counter()
    done = python("-c", "import kalavai_helpers, sys; print('torch' in sys.modules)")
    assert time.perf_counter() - began < 1.0
    assert done.stdout.strip() == "False"


def test_command_line_starts_without_the_heavy_libraries():
    heavy = ["torch", "transformers", "papermill", "pandas", "plotly", "jupytext"]
    code = f"import kalavai_helpers.__main__, sys; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_module_outgrows_one_sitting(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_module_says_what_it_is(module):
    assert module.read_text(encoding="utf-8").startswith('"""')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["execute", "--tier", "tiny"], ["'tiny'", "ci", "laptop"]),
        (["execute", "--chapter", "99_none"], ["'99_none'", "chapters are"]),
        (["check", "--tier", "tiny"], ["'tiny'", "ci"]),
    ],
)
def test_bad_input_is_one_clear_line(arguments, words, capsys):
    assert __main__.main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="tiny"):
        __main__.main(["--debug", "execute", "--tier", "tiny"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["execute", "-p", "3=4"],
        *(["execute", "--cell-timeout", seconds] for seconds in ("-1", "0", "nan", "inf", "1 min")),
        *(["execute", "--seed", seed] for seed in ("x", "-1", "4294967296", "1.5", "")),
        *(["plan", "--steps", steps] for steps in ("0", "-5", "1e3")),
    ],
)
def test_usage_errors_exit_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2


def test_a_terminal_without_a_letter_shows_another_sign():
    code = "from kalavai_helpers import __main__ as m; m._check = lambda options: print('a → b'); "
    code += "raise SystemExit(m.main(['check']))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a \\u2192 b\n"


@pytest.mark.parametrize("target", ["book", "bench", "plan"])
def test_a_folder_of_text_may_have_a_space_in_its_name(target):
    said = subprocess.run(
        ["make", "-n", target, "CORPORA=folder:/a b"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    (line,) = [line for line in said.splitlines() if f"kalavai_helpers {_command(target)}" in line]
    assert shlex.split(line)[-2:] == ["--corpora", "folder:/a b"]


def _command(target):
    return {"book": "execute"}.get(target, target)


def test_parameters_become_python_values():
    options = __main__.parser().parse_args(
        ["execute", "-p", "steps=3", "-p", "name=fine", "--chapter", "a", "b", "--chapter", "c"]
    )
    assert dict(options.parameter) == {"steps": 3, "name": "fine"}
    assert options.chapter == ["a", "b", "c"]


def test_interrupt_is_reported_as_such(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "_check", interrupted)
    assert __main__.main(["check"]) == 130
    assert "kept" in capsys.readouterr().err


def test_readme_names_only_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`make ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
        assert named
        assert named <= targets, page


def test_the_gate_runs_in_another_environment_what_it_leaves_out_in_the_first():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    left_out = re.findall(r"--ignore (\S+)", makefile)
    assert left_out == ["tests/unit/test_harness.py"]
    assert f"$(EVAL_PY) -m pytest {left_out[0]}\n" in makefile


def test_the_map_of_the_package_names_every_module_once():
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Where things are")[1]
    named = re.findall(r"`(\w+)`", table.split("\n## ")[0].split("|---|---|")[1])
    modules = {path.stem for path in (ROOT / "kalavai_helpers").glob("[a-z]*.py")}
    assert sorted(named) == sorted(modules)
