"""The program in README runs as it stands, here with a base that trains in a second."""

import re
from dataclasses import replace

import pytest

from kalavai_helpers import artifacts, specialists, tiers

README = (artifacts.PACKAGE.parent / "README.md").read_text("utf-8")


@pytest.fixture
def texts(tmp_path, monkeypatch, tiny_tier):
    words = {"law": "the court held that a claim of", "recipes": "take two eggs and stir in"}
    for domain, start in words.items():
        (tmp_path / "texts" / domain).mkdir(parents=True)
        for i in range(30):
            text = " ".join(f"{start} {i + j}" for j in range(20))
            (tmp_path / "texts" / domain / f"{i}.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path / "store"))
    small = replace(tiny_tier, vocab_size=300)
    monkeypatch.setitem(tiers.TIERS, "smollm2-135m", small)
    monkeypatch.setattr(specialists.parallel, "side_by_side", lambda tasks: [t() for t in tasks])
    return tmp_path


def test_two_folders_of_text_are_fused_scored_and_generate(texts, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(program, "two_folders.py", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"^evidence +\d\.\d+", said, re.MULTILINE)
    assert "<|endoftext|>Take two eggs and" in said
    fused = AutoModelForCausalLM.from_pretrained(texts / "fused")
    ids = AutoTokenizer.from_pretrained(texts / "fused")("Take", return_tensors="pt")
    assert fused(**ids).logits.shape[-1] == fused.config.vocab_size
