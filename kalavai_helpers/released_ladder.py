"""The published scale ladder, from released losses: gains, baselines, and the runs behind them."""

from __future__ import annotations

import pandas as pd

from . import prediction, published

SIZES = {"410M": "main-410M", "1B": "main-1B", "6.9B": "main-6.9B"}
SEEDS = (42, 137, 2026)
_MODELS = {"410M": "pythia-410m_step10000", "1B": "pythia-1b_step10000"}
_LARGE = "step-sweep-6.9B/pythia-6.9b_step10000/steps_{}_K_{}_model_moe/loss_{}/s42/"
_LARGE_PROTOCOL = "6.9B_per-domain_bs_1_50_seed"
_STATED = f"main-6.9B/pythia-6.9b_step10000/model_moe/loss_EW/s42/{_LARGE_PROTOCOL}"
_LARGE_RUNS = ((1000, 6), (2000, 4), (2000, 6), (2000, 8), (4000, 6))


def gains() -> pd.DataFrame:
    """Released gain and its exact accounting at every published size.

    Returns
    -------
    One row a size and seed; columns size, seed, divergence (mean, %), oracle, above_oracle, gain
    (recomputed, %; see :func:`prediction.account`), released (%), error (pp).
    """
    accounts = prediction.accounting().set_index("name")
    rows = []
    for size, experiment in SIZES.items():
        for seed in SEEDS:
            matrix = published.loss_matrix(experiment, seed)
            moved = [
                100 * (1 - matrix.loc[domain, domain] / matrix.loc["base", domain])
                for domain in published.DOMAINS
            ]
            terms = accounts.loc[f"{size}, seed {seed}"]
            names = ("oracle", "above_oracle", "gain", "released", "error")
            rows.append(
                {
                    "size": size,
                    "seed": seed,
                    "divergence": sum(moved) / len(moved),
                    **{name: float(terms[name]) for name in names},
                }
            )
    return pd.DataFrame(rows).set_index("size")


def _monolithic(size: str, seed: int, domain: str) -> float:
    if seed == SEEDS[0]:  # the first seed was evaluated again with the fused model
        id = f"{SIZES[size]}/{_MODELS[size]}/model_monolithic/loss_{domain}/s{seed}/corr"
    else:
        id = f"monolithic/{_MODELS[size]}/step_6000/loss_{domain}/s{seed}/per-domain_bs_4"
    return published.value(id)


def against_monolithic() -> pd.DataFrame:
    """Released fused and monolithic losses (equal compute, batch size 4 for both) by domain.

    Returns
    -------
    One row a size, seed and domain, the equal-weight mean as domain ``all``; columns fused and
    monolithic (nats/token), advantage = 100 · (monolithic − fused) / monolithic, %.
    """
    rows = []
    for size in _MODELS:
        for seed in SEEDS:
            fused = published.loss_matrix(SIZES[size], seed).loc["moe"].to_dict()
            other = {domain: _monolithic(size, seed, domain) for domain in fused}
            for losses in (fused, other):
                losses["all"] = sum(losses.values()) / len(losses)
            for domain, loss in fused.items():
                rows.append(
                    {
                        "size": size,
                        "seed": seed,
                        "domain": domain,
                        "fused": loss,
                        "monolithic": other[domain],
                        "advantage": 100 * (1 - loss / other[domain]),
                    }
                )
    return pd.DataFrame(rows).set_index("size")


def relative_exposure() -> dict[str, float]:
    """Sequences of a domain that the published monolithic model saw, per one its specialist saw.

    It was trained for as many steps as all specialists together on pooled chunks, so a domain's
    share of the chunks, times the number of specialists.
    """
    run = "main-410M/pythia-410m_step10000/domain_{}/train_chunks/s_na/data"
    chunks = {domain: published.value(run.format(domain)) for domain in published.DOMAINS}
    return {d: len(chunks) * n / sum(chunks.values()) for d, n in chunks.items()}


def large_runs() -> pd.DataFrame:
    """Equal-weight loss of every released fused 6.9B model, and what is stated.

    Returns
    -------
    Columns run, fused (nats/token, seed 42): the loss behind the stated gain first.
    """
    rows = [("stated with the gain", published.value(_STATED))]
    for steps, frozen in _LARGE_RUNS:
        found = [
            published.value(_LARGE.format(steps, frozen, domain) + _LARGE_PROTOCOL)
            for domain in published.DOMAINS
        ]
        rows.append((f"{steps:,} steps, {frozen} frozen blocks", sum(found) / len(found)))
    return pd.DataFrame(rows, columns=["run", "fused"]).set_index("run")
