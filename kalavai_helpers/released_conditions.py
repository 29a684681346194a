"""Released corrected gains that the published line was not fitted on, with their divergences.

How a divergence is found depends on what was released; a column says which way was taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from kalavai_helpers import prediction, published
from kalavai_helpers.published import DOMAINS

if TYPE_CHECKING:
    import pandas as pd

RELEASED = "released"
LOSSES = "domain losses"
WEIGHTED = "equal-weight losses"  # mean weighted by the base's losses, the router's errors included

_SEEDS = (42, 137, 2026)
_BASE = "main-410M/pythia-410m_step10000/model_base/loss_{}/s42/corr"
Row = tuple[str, str, float, float, str]  # family, name, divergence (%), gain (%), how


def unused() -> pd.DataFrame:
    """Return every released corrected condition outside the fit of six points.

    Returns
    -------
    pandas.DataFrame
        Columns family, name, divergence (mean over domains, %), gain (over the best specialist,
        %), how (the divergence was ``released``, follows from ``domain losses``, or from
        ``equal-weight losses``), law (%), error (law − gain, pp), inside (the divergence lies
        between those of the six points), trained (conditions that share it share specialists, or
        differ in their seed alone: an interval resamples these).
    """
    import pandas as pd

    rows = [*_maturity(), *_freeze_and_duration(), *_others()]
    frame = pd.DataFrame(rows, columns=["family", "name", "divergence", "gain", "how"])
    points = prediction.points("n6, 6.9B at 8.73")
    law = prediction.fit(points)
    frame["trained"] = frame["name"].str.replace(r", seed \d+", "", regex=True)
    several = frame["family"] == "other numbers of domains"
    contributors = frame["name"].str.contains("contributors")
    frame.loc[several, "trained"] = np.where(
        contributors[several], "1B contributors", "410M subsets"
    )
    frame["law"] = [law.predict(x) for x in frame["divergence"]]
    frame["error"] = frame["law"] - frame["gain"]
    frame["inside"] = frame["divergence"].between(*points["divergence"].agg(["min", "max"]))
    return frame


@cache
def _ids() -> frozenset[str]:
    return frozenset(published.load()["id"])


def _exists(id: str) -> bool:
    return id in _ids()


def _reduction(base: float, reached: float) -> float:
    return 100 * (base - reached) / base


def _maturity() -> Iterator[Row]:
    value = published.value
    for step in (5000, 20000, 50000, 100000, 143000):
        run = f"maturity-410M/pythia-410m_step{step}"
        for seed in _SEEDS:
            gain = f"{run}/v2/improvement_vs_spec/s{seed}/corr"
            if _exists(gain):
                form = f"{run}/specialist_{{}}/divergence_delta_pct_sign_flipped/s{seed}/"
                parts = [value(form.format(d) + "per-domain_bs_4") for d in DOMAINS]
                name = f"410M, step {step}, seed {seed}"
                yield "410M maturity", name, float(np.mean(parts)), value(gain), RELEASED
    for step in (5000, 20000, 50000, 143000):
        run = f"maturity-1B/pythia-1b_step{step}/v2"
        base, fused = (value(f"{run}/{m}_equal_weight/s42/corr") for m in ("base", "moe"))
        gain = value(f"{run}/improvement_vs_spec/s42/corr")
        yield "1B maturity", f"1B, step {step}", _reduction(base, fused), gain, WEIGHTED


def _freeze_and_duration() -> Iterator[Row]:
    value = published.value
    base = {d: value(_BASE.format(d)) for d in (*DOMAINS, "EW")}
    for frozen in (0, 2, 6, 8, 12):
        for seed in _SEEDS:
            run = f"freeze-sweep/pythia-410m_step10000/K_{frozen}_2000_steps"
            gain = f"{run}/improvement_vs_spec/s{seed}/corr"
            if _exists(gain):
                fused = value(f"{run}/moe_equal_weight/s{seed}/corr")
                name = f"410M, {frozen} frozen, seed {seed}"
                yield "frozen depth", name, _reduction(base["EW"], fused), value(gain), WEIGHTED
    for steps in (500, 1000, 2000, 5000, 10000, 20000):
        for frozen in (0, 4):
            run = f"crossover/pythia-410m_step10000/steps_{steps}_K_{frozen}_vs_best_specialist"
            parts = []
            for domain in DOMAINS:
                # Own specialist where it was released, else the fused model, which equals it
                # wherever the router did not fail.
                own = f"{run}_model_{domain}_spec/loss_{domain}/s42/corr"
                own = own if _exists(own) else f"{run}_model_moe/loss_{domain}/s42/corr"
                parts.append(_reduction(base[domain], value(own)))
            gain = value(f"{run}/improvement_vs_spec/s42/corr")
            name = f"410M, {steps} steps, {frozen} frozen"
            yield "duration", name, float(np.mean(parts)), gain, LOSSES


def _others() -> Iterator[Row]:
    value = published.value
    for name in ("P1_2-domain", "P2_4-domain"):
        divergence, gain = (
            value(f"regression-n8/all/{name}/{part}_used/s_na/OLS_input")
            for part in ("divergence", "gain")
        )
        label = f"{name[3:]} subset, mean of seeds"
        yield "other numbers of domains", label, divergence, gain, RELEASED
    five = (*DOMAINS, "math", "multilingual")
    form = "specialist-count/pythia-410m_step10000/{}"
    base = [
        value(
            _BASE.format(d)
            if d in DOMAINS
            else form.format(f"model_base/loss_{d}/s_na/per-domain_bs_4")
        )
        for d in five
    ]
    for seed in _SEEDS:
        own = [
            value(form.format(f"specialist_{d}/own-domain_loss/s{seed}/per-domain_bs_4"))
            for d in five
        ]
        divergence = float(np.mean([_reduction(*pair) for pair in zip(base, own, strict=True)]))
        tail = f"5_specialists/improvement_vs_spec/s{seed}/corrected-equal-weight-over-"
        gain = value(form.format(tail))
        yield "other numbers of domains", f"five domains, seed {seed}", divergence, gain, LOSSES
    for count in ("20", "18"):
        run = f"{count}-contributor/pythia-1b_step10000/"
        for seed in _SEEDS:
            ids = [f"{run}/{m}/s{seed}/corr" for m in ("mean_divergence", "improvement_vs_spec")]
            if all(map(_exists, ids)):
                name = f"{count} contributors, seed {seed}"
                yield "other numbers of domains", name, *map(value, ids), RELEASED
    for seed in _SEEDS:
        run = "cross-lingual-curriculum/pythia-410m_step10000/metrics"
        ids = [f"{run}/{m}/s{seed}/corr" for m in ("mean_divergence", "improvement_vs_spec")]
        yield "curriculum router", f"cross-lingual, seed {seed}", *map(value, ids), RELEASED
    for rank in ("r_8_lr_2e-4", "r_16_lr_2e-4", "r_32_lr_2e-4", "r_64_lr_2e-4", "r_64_lr_5e-4"):
        run = f"lora/pythia-410m_step10000/{rank}"
        ids = [f"{run}/{m}/s42/corr" for m in ("mean_divergence", "gain_vs_spec")]
        name = "LoRA " + rank.replace("_lr_", ", lr ").replace("r_", "rank ", 1)
        yield "LoRA", name, *map(value, ids), RELEASED
    run = "maturity-6.9B/pythia-6.9b_step143000/1000_steps_K_6_step6_model_{}/loss_{}/s42/"
    run += "6.9B_per-domain_bs_1_50_seed"
    rows = [f"{d}_spec" for d in DOMAINS]
    matrix = np.array([[value(run.format(m, d)) for d in DOMAINS] for m in rows])
    base, fused = ([value(run.format(m, d)) for d in DOMAINS] for m in ("base", "moe"))
    parts = [_reduction(b, own) for b, own in zip(base, np.diag(matrix), strict=True)]
    gain = prediction.account(matrix.min(0).tolist(), float(matrix.mean(1).min()), fused)["gain"]
    yield "6.9B maturity", "6.9B, step 143000", float(np.mean(parts)), gain, LOSSES
