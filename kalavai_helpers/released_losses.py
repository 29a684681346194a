"""Conditions whose released losses allow exact accounting, found by the ids of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kalavai_helpers import published

SEEDS = (42, 137, 2026)
PRIVATE = ("medical", "legal", "patent")
"""Domains of the published cooperative whose text may not leave its owners."""
_FIVE = ("code", "science", "fiction", "math", "multilingual")
_LANGUAGES = ("tamil", "yoruba", "welsh", "code")
_TWENTY = (
    *("tamil", "yoruba", "welsh", "spanish", "hindi", "swahili", "vietnamese", "arabic"),
    *("indonesian", "thai", "code", "medical", "legal", "patent", "math", "finance"),
    *("chemistry", "fiction", "dialogue", "instructions"),
)
_PYTHIA = "pythia-410m_step10000"

Value = Callable[[str], float]


@dataclass(frozen=True)
class Case:
    """One released gain and the losses that determine it.

    Attributes
    ----------
    losses
        ``matrix`` if every specialist was released on every domain, else ``diagonal``.
    diagonal
        Lowest (``matrix``) or own specialist's (``diagonal``) loss on each domain, nats/token.
    best
        Equal-weight loss of the best single specialist, nats/token.
    fused
        Losses of the fused model on each domain, or their mean where only that was released.
    base
        Losses of the base on each domain; empty where they were not released.
    specialists
        Losses (specialists, domains) behind a ``matrix``, else ``None``.
    """

    name: str
    losses: str
    diagonal: list[float]
    best: float
    fused: list[float] | float
    gain_id: str
    base: list[float]
    specialists: np.ndarray | None = None


def _of_matrix(
    name: str,
    matrix: np.ndarray,
    fused: list[float] | float,
    gain_id: str,
    base: list[float],
) -> Case:
    """Case from losses (specialists, domains)."""
    best = float(matrix.mean(1).min())
    return Case(name, "matrix", matrix.min(0).tolist(), best, fused, gain_id, base, matrix)


def _specialists(value: Value, form: str, names: tuple[str, ...]) -> np.ndarray:
    return np.array([[value(form.format(model, domain)) for domain in names] for model in names])


def _main(value: Value) -> Iterator[Case]:
    three = published.DOMAINS
    for experiment in ("main-410M", "main-1B", "main-6.9B"):
        for seed in SEEDS:
            attributes = published.loss_matrix(experiment, seed).attrs
            losses = np.array([[value(id) for id in line] for line in attributes["ids"]])
            # Rows: base, three specialists, weight average, fused.
            name = f"{experiment.removeprefix('main-')}, seed {seed}"
            gain = attributes["gain_id"]
            yield _of_matrix(name, losses[1:4], losses[5].tolist(), gain, losses[0].tolist())

    matrix = _specialists(value, f"main-410M/{_PYTHIA}/model_{{}}_spec/loss_{{}}/s42/corr", three)
    base = [value(f"main-410M/{_PYTHIA}/model_base/loss_{d}/s42/corr") for d in three]
    runs = {
        "uniform router": ("router-ablation", "router_uniform_model_moe", "router_uniform"),
        "linear router": ("router-ablation", "router_linear_model_moe", "router_linear"),
        "MLP router": ("router-ablation", "router_mlp_model_moe", "router_mlp"),
        "shared-init control": ("shared-init-v2", "control_model_moe", "control"),
    }
    for name, (experiment, fused, gain) in runs.items():
        losses = [value(f"{experiment}/{_PYTHIA}/{fused}/loss_{d}/s42/corr") for d in three]
        id = f"{experiment}/{_PYTHIA}/{gain}/improvement_vs_spec/s42/corr"
        yield _of_matrix(f"410M, {name}", matrix, losses, id, base)

    # The two-domain cooperative reuses the specialists of the three-domain one.
    for seed in SEEDS:
        pair = ("code", "science")
        form = f"main-410M/{_PYTHIA}/model_{{}}_spec/loss_{{}}/s{seed}/corr"
        fused = [value(form.replace("{}_spec", "moe").format(domain)) for domain in pair]
        id = f"regression-ext-p1_2domain/{_PYTHIA}/metrics/improvement_vs_spec/s{seed}/corr"
        yield _of_matrix(f"P1, seed {seed}", _specialists(value, form, pair), fused, id, base[:2])


def _other_matrices(value: Value) -> Iterator[Case]:
    for seed in SEEDS:
        names = ("code", "fiction")
        run = "qwen/Qwen2.5-1.5B"
        matrix = _specialists(value, f"{run}/model_{{}}_spec/loss_{{}}/s{seed}/corr", names)
        base = [value(f"{run}/model_base/loss_{d}/s42/corr") for d in names]
        fused = value(f"{run}/model_moe/loss_EW/s{seed}/corr")
        id = f"{run}/corrected_metrics/improvement_vs_spec/s{seed}/corr"
        yield _of_matrix(f"Qwen-1.5B, seed {seed}", matrix, fused, id, base)
    for seed in SEEDS:
        run = f"private-domain/{_PYTHIA}"
        matrix = _specialists(value, f"{run}/model_{{}}_spec/loss_{{}}/s{seed}/corr", PRIVATE)
        base = [value(f"{run}/model_base/loss_{d}/s42/corr") for d in PRIVATE]
        # The fused loss on medical text was released for one seed only; the mean for all.
        fused = value(f"{run}/model_moe/loss_EW/s{seed}/corr")
        id = f"{run}/metrics/improvement_vs_spec/s{seed}/corr"
        yield _of_matrix(f"private, seed {seed}", matrix, fused, id, base)
    run, protocol = f"lora/{_PYTHIA}/r_8_lr_2e-4", "corrected-per-domain-equal-w"
    form = f"{run}_model_{{}}_spec/loss_{{}}/s42/{protocol}"
    fused = [value(f"{run}_model_moe/loss_{d}/s42/{protocol}") for d in published.DOMAINS]
    matrix = _specialists(value, form, published.DOMAINS)
    base = [value(f"{run}_model_base/loss_{d}/s42/{protocol}") for d in published.DOMAINS]
    yield _of_matrix("LoRA r=8", matrix, fused, f"{run}/gain_vs_spec/s42/corr", base)


def _diagonals(value: Value) -> Iterator[Case]:
    for step in (5000, 20000, 50000, 143000):
        run = f"maturity-1B/pythia-1b_step{step}"
        own = [
            value(f"{run}/model_{d}_spec/loss_{d}/s42/original-per-domain_MoE_bs_2")
            for d in published.DOMAINS
        ]
        best, fused = (value(f"{run}/v2/{n}_equal_weight/s42/corr") for n in ("best_spec", "moe"))
        id = f"{run}/v2/improvement_vs_spec/s42/corr"
        yield Case(f"1B from step {step}", "diagonal", own, best, fused, id, [])

    form = "lora/pythia-410m_step10000/r_8_lr_2e-4_model_base/loss_{}/s42/"
    form += "corrected-per-domain-equal-w"
    base = [value(form.format(d)) for d in published.DOMAINS]
    for setting in ("r_16_lr_2e-4", "r_32_lr_2e-4", "r_64_lr_2e-4", "r_64_lr_5e-4"):
        run = f"lora/{_PYTHIA}/{setting}"
        own = [
            loss * (1 - value(f"{run}/divergence_{d}/s42/corr") / 100)
            for d, loss in zip(published.DOMAINS, base, strict=True)
        ]
        best, fused = value(f"{run}/best_spec_ew/s42/corr"), value(f"{run}/moe_ew/s42/corr")
        name = "LoRA " + setting.replace("_lr_", ", lr ").replace("r_", "r=", 1)
        yield Case(name, "diagonal", own, best, fused, f"{run}/gain_vs_spec/s42/corr", base)

    run = f"specialist-count/{_PYTHIA}"
    main = f"main-410M/{_PYTHIA}/model_base/loss_{{}}/s42/corr"
    base = [value(main.format(d)) for d in _FIVE[:3]]
    base += [value(f"{run}/model_base/loss_{d}/s_na/per-domain_bs_4") for d in _FIVE[3:]]
    for seed in SEEDS:
        own = [
            value(f"{run}/specialist_{d}/own-domain_loss/s{seed}/per-domain_bs_4") for d in _FIVE
        ]
        protocol = "corrected-equal-weight-over-"
        # Fiction is the best single specialist of two and of five: its loss was released once.
        best = value(f"{run}/2_specialists/best_spec_equal_weight/s{seed}/{protocol}")
        fused = value(f"{run}/5_specialists/moe_equal_weight/s{seed}/{protocol}")
        id = f"{run}/5_specialists/improvement_vs_spec/s{seed}/{protocol}"
        yield Case(f"five specialists, seed {seed}", "diagonal", own, best, fused, id, base)

    for experiment in ("cross-lingual", "cross-lingual-curriculum"):
        for seed in SEEDS:
            run = f"{experiment}/{_PYTHIA}"
            base, own, fused = [], [], []
            for d in _LANGUAGES:
                # Perplexities of the base were rounded to one decimal: 0.1 pp of the gain.
                id = f"cross-lingual/{_PYTHIA}/domain_{d}_model_base/perplexity/s{seed}/corr"
                divergence = value(f"{run}/metrics/divergence_{d}/s{seed}/corr")
                base.append(math.log(value(id)))
                own.append(base[-1] * (1 - divergence / 100))
                fused.append(value(f"{run}/model_moe/loss_{d}/s{seed}/corr"))
            form = f"{run}/model_{{}}_spec/loss_EW/s{seed}/corr"
            best = min(value(form.format(d)) for d in _LANGUAGES)
            id = f"{run}/metrics/improvement_vs_spec/s{seed}/corr"
            yield Case(f"{experiment}, seed {seed}", "diagonal", own, best, fused, id, base)

    run = "20-contributor/pythia-1b_step10000/"
    base, own, fused = [], [], []
    for d in _TWENTY:
        divergence = value(f"{run}/divergence_{d}/s42/corr")
        base.append(value(f"{run}model_base/loss_{d}/s42/corr"))
        own.append(base[-1] * (1 - divergence / 100))
        fused.append(value(f"{run}model_moe/loss_{d}/s42/corr"))
    best = value(f"{run}/best_spec_equal_weight/s42/corr")
    id = f"{run}/improvement_vs_spec/s42/corr"
    yield Case("20 contributors, seed 42", "diagonal", own, best, fused, id, base)


def cases(value: Value) -> list[Case]:
    """Return every case; ``value`` gives a released value by id."""
    return [*_main(value), *_other_matrices(value), *_diagonals(value)]
