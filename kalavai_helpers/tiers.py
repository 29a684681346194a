"""Tiers: one dial that sets model, text, training length and hardware for a whole run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PUBLISHED_SEEDS = (42, 137, 2026)
MID_TRAINING = 14.3
"""Schedule of the published base in multiples of its steps: 10,000 of 143,000 (Pythia)."""


@dataclass(frozen=True)
class Tier:
    """Everything that distinguishes one size of run from another.

    Parameters
    ----------
    name, purpose
        How the tier is called and whom it serves.
    hub_id, revision
        Checkpoint to start from (see :mod:`kalavai_helpers.checkpoints`); ``None`` means that the
        base is trained in the run.
    corpora
        Default text source (see :mod:`kalavai_helpers.corpora`).
    vocab_size, hidden_size, n_layers, n_heads
        Shape of the base; one that is trained in the run is GPT-NeoX, the Pythia architecture.
    seq_len
        Tokens in a training or evaluation window (T).
    batch_size
        Windows in one optimiser step.
    base_steps, base_lr, specialist_steps, specialist_lr
        Optimiser steps and peak learning rate.
    base_schedule
        Length of the base's learning-rate schedule in multiples of ``base_steps``: 1 ends with a
        rate of zero, more leaves the base in the middle of its training.
    frozen_layers
        k: embedding and first k blocks stay as in the base.
    base_bytes, train_bytes, heldout_bytes
        Upper bound of UTF-8 bytes: of the base mix; a domain, for training and for evaluation.
    heldout_windows, router_windows
        Where a forward pass is dear: windows a domain to evaluate on and to fit routers on, each
        the opening of another document; 0 takes whole documents up to ``heldout_bytes``.
    probe_windows
        Held-out windows a domain behind the training curves; 0 draws none.
    router_steps
        Steps of the published SGD router (500 in the paper).
    n_seeds
        Seeds a chapter repeats its main result over.
    min_gpu_gb
        GPU memory the tier needs; 0 runs on a CPU.
    cpu_bf16
        Whether training computes in bfloat16 on a CPU that can, as it does on any GPU.
    """

    name: str
    purpose: str
    corpora: str = "builtin"
    hub_id: str | None = None
    revision: str | None = None
    vocab_size: int = 1024
    hidden_size: int = 64
    n_layers: int = 4
    n_heads: int = 4
    seq_len: int = 128
    batch_size: int = 16
    base_steps: int = 600
    base_lr: float = 3e-3
    base_schedule: float = 1.0
    specialist_steps: int = 200
    specialist_lr: float = 1.5e-3
    frozen_layers: int = 1
    base_bytes: int = 3_000_000
    train_bytes: int = 1_500_000
    heldout_bytes: int = 90_000
    heldout_windows: int = 0
    router_windows: int = 0
    probe_windows: int = 16
    router_steps: int = 500
    n_seeds: int = 3
    min_gpu_gb: int = 0
    cpu_bf16: bool = False

    def recipe(self) -> dict[str, Any]:
        """Fields that change a cooperative, for fingerprints and recorded runs."""
        aside = ("name", "purpose", "corpora", "n_seeds", "min_gpu_gb")
        return {key: value for key, value in asdict(self).items() if key not in aside}

    def seeds(self, first: int) -> tuple[int, ...]:
        """Seeds of a run: ``first``, then the published ones that are left."""
        return (first, *(seed for seed in PUBLISHED_SEEDS if seed != first))[: self.n_seeds]

    def sweep(self) -> Tier:
        """The recipe for chapters that train dozens of models: smaller where the base is ours."""
        return replace(self, **_SWEEPS.get(self.name, {}))

    def device(self) -> tuple[torch.device, torch.dtype, str]:
        """Device of this machine for this tier, dtype in which it trains, and the reason.

        Weights are float32 always, and so is every score.

        Raises
        ------
        RuntimeError
            If the tier needs more GPU memory than the machine has.
        """
        import torch

        if torch.cuda.is_available():
            # As cards are sold: one of 24 GB has 25.8e9 bytes, of which a little is kept back.
            found_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
            if found_gb < self.min_gpu_gb:
                raise RuntimeError(self._too_small(found_gb))
            if torch.cuda.is_bf16_supported():
                return torch.device("cuda"), torch.bfloat16, "GPU with bf16: autocast, fp32 weights"
            return torch.device("cuda"), torch.float32, "GPU without bf16: float32"
        if self.min_gpu_gb:
            raise RuntimeError(self._too_small(0))
        if self.cpu_bf16 and _cpu_has_bf16():
            return torch.device("cpu"), torch.bfloat16, "CPU with bf16: autocast, fp32 weights"
        return torch.device("cpu"), torch.float32, "no GPU: float32 on the CPU"

    def _too_small(self, found_gb: float) -> str:
        fits = [t.name for t in TIERS.values() if t.min_gpu_gb <= found_gb]
        found = f"{found_gb:.0f} GB" if found_gb else "none"
        return (
            f"Tier '{self.name}' needs {self.min_gpu_gb} GB of GPU memory, found {found}: "
            f"use --tier {fits[-1]}"
        )


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where that is emulated, float32 is faster."""
    import torch

    # Asked of torch since 2.10; before, a CPU keeps to float32.
    has = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


_CI = Tier(
    name="ci",
    purpose="readers' default and CI regression: two CPU cores, minutes",
    batch_size=8,
    # Chosen on validation text, see data/recorded/regime/ci.csv.
    base_steps=300,
    base_lr=6e-3,
    base_schedule=MID_TRAINING,
    specialist_lr=1.2e-3,
    heldout_bytes=40_000,
)
_LAPTOP = replace(
    _CI,
    name="laptop",
    purpose="the recorded runs that the book shows: an hour on two CPU cores",
    vocab_size=4096,
    hidden_size=160,
    n_layers=6,
    n_heads=5,
    seq_len=256,
    batch_size=16,
    # Chosen on validation text, see data/recorded/regime/laptop.csv.
    base_steps=600,
    base_lr=3e-3,
    specialist_steps=300,
    specialist_lr=4e-4,
    base_bytes=8_000_000,
    train_bytes=4_000_000,
    heldout_bytes=400_000,
)
_SWEEPS: dict[str, dict[str, float]] = {
    "ci": {"hidden_size": 32},
    "laptop": {
        "vocab_size": 2048,
        "hidden_size": 64,
        "n_layers": 4,
        "n_heads": 4,
        "seq_len": 128,
        # Chosen on validation text, see data/recorded/regime/laptop.csv.
        "base_steps": 500,
        "base_lr": 4e-3,
        "base_schedule": MID_TRAINING,
        "specialist_steps": 200,
        "specialist_lr": 8e-4,
        "heldout_bytes": 100_000,
        "n_seeds": 1,
    },
}
_SMOLLM2 = replace(
    _CI,
    name="smollm2-135m",
    purpose="a language model that others trained and use: hours on two CPU cores",
    hub_id="HuggingFaceTB/SmolLM2-135M",
    # A commit, since the branch may move.
    revision="93efa2f097d58c2a74874c7e644dbc9b0cee75a2",
    vocab_size=49_152,
    hidden_size=576,
    n_layers=30,
    n_heads=9,
    seq_len=256,
    batch_size=2,
    base_steps=0,
    specialist_steps=100,
    specialist_lr=3e-4,
    # With the embedding, and the head that is tied to it.
    frozen_layers=15,
    train_bytes=4_000_000,
    # Of validation text, which is read whole.
    heldout_bytes=30_000,
    heldout_windows=12,
    router_windows=6,
    # Sixteen windows of twenty domains, nine times, would cost as much as the training.
    probe_windows=0,
    n_seeds=1,
    cpu_bf16=True,
)
_PYTHIA = replace(
    _CI,
    name="pythia-410m",
    purpose="students' replication of the main published result",
    corpora="hub",
    hub_id="EleutherAI/pythia-410m",
    revision="step10000",
    vocab_size=50_304,
    hidden_size=1024,
    n_layers=24,
    n_heads=16,
    seq_len=512,
    batch_size=8,
    base_steps=0,
    specialist_steps=2000,
    specialist_lr=2e-5,
    frozen_layers=4,
    train_bytes=15_000_000,
    heldout_bytes=800_000,
    min_gpu_gb=24,
)
TIERS = {
    tier.name: tier
    for tier in (
        _CI,
        _LAPTOP,
        _SMOLLM2,
        _PYTHIA,
        replace(
            _PYTHIA,
            name="pythia-1b",
            hub_id="EleutherAI/pythia-1b",
            hidden_size=2048,
            n_layers=16,
            n_heads=8,
            min_gpu_gb=40,
        ),
        replace(
            _PYTHIA,
            name="pythia-6.9b",
            hub_id="EleutherAI/pythia-6.9b",
            vocab_size=50_432,
            hidden_size=4096,
            n_layers=32,
            n_heads=32,
            specialist_steps=1000,
            specialist_lr=1e-5,
            frozen_layers=6,
            # float32 master weights and AdamW state; the published run kept both in bfloat16
            min_gpu_gb=130,
        ),
    )
}
NAMES = tuple(TIERS)
PRETRAINED = "smollm2-135m"
"""The tier whose recorded ledger chapters speak from (see :mod:`kalavai_helpers.kept_ledger`)."""


def get(name: str) -> Tier:
    """Look a tier up by name.

    Raises
    ------
    ValueError
        If the name is not a tier; the valid ones are listed.
    """
    try:
        return TIERS[name]
    except KeyError:
        raise ValueError(f"Unknown tier {name!r}: choose one of {', '.join(NAMES)}") from None
