"""The released dispatch numbers, put on one text: where −21 % and +14 % come from.

Both headlines compare losses that were measured on different text. The released values suffice to
show it (published domain classifier baseline and first evaluation of the 410M model).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from . import published

_V1 = "classifier-dispatch-v1/pythia-410m_step10000/seq256"
_V2 = "classifier-dispatch-v2/pythia-410m_step10000"
_MAIN = "main-410M/pythia-410m_step10000"

BASE_ID = f"{_V1}/base_loss/s42-137-2026/original-mixed_seq256_first"
FUSED_ID = f"{_V1}/moe_loss/s42-137-2026/original-mixed_seq256_first"
DISPATCH_ID = f"{_V1}/classifier_loss/s42/seq256_mean_over_3_domains_x"
MULTIHEAD_ID = (
    "multihead/pythia-410m_step10000/seq256/multihead_loss/s42/seq256_mean_over_3_domains_x"
)
ACCURACY_ID = (
    f"{_V1.removesuffix('/seq256')}/logistic_regression_on_layer-3_mean-pooled_states"
    "/classifier_accuracy/s42/first_100_held-out_chunks_pe"
)
SAME_DISPATCH_ID = f"{_V2}/dispatch_oracle_per_domain/loss_EW/s42/corr"
SAME_FUSED_ID = f"{_V2}/MoE_model_seed42/loss_EW/s42/corr"


def artefact() -> pd.DataFrame:
    """Improvement over base of dispatch and of the fused model, %, by the text of the base.

    Returns
    -------
    Columns dispatch, fused, base_loss and note; the first row as published, the second on one
    text, then the same dispatch and fused losses against the base on a single domain.
    """
    different = {"dispatch": published.value(DISPATCH_ID), "fused": published.value(FUSED_ID)}
    same = {
        "dispatch": published.value(SAME_DISPATCH_ID),
        "fused": published.value(SAME_FUSED_ID),
    }
    base = published.loss_matrix("main-410M").loc["base"]
    rows = {
        "as published": (different, published.value(BASE_ID), "base and fused: code only"),
        "same text": (same, base.mean(), "all on code, science and fiction"),
    }
    for domain in base.index:
        rows[f"base on {domain} only"] = (same, base[domain], f"base on {domain}, others on all")
    return pd.DataFrame(
        {
            name: {
                **{model: 100 * (base - value) / base for model, value in losses.items()},
                "base_loss": base,
                "note": note,
            }
            for name, (losses, base, note) in rows.items()
        }
    ).T.infer_objects()


def error_cost() -> float:
    """Most that the classifier's released error rate can cost, nats/token.

    Every error is charged with the largest penalty of a wrong specialist in the loss matrix.
    """
    matrix = published.loss_matrix("main-410M").loc[list(published.DOMAINS)].to_numpy()
    worst = (matrix - np.diag(matrix)).max()
    return float((1 - published.value(ACCURACY_ID)) * worst)


def faults() -> pd.DataFrame:
    """Gain over the best specialist, %, with both faults of the evaluation, with one, with none.

    The batch sizes alone were never released.
    """

    def gain(best: float, fused: float) -> float:
        return 100 * (best - fused) / best

    best = published.value(f"{_MAIN}/model_code_spec/loss_mixed/s42/orig")
    both = published.value(f"{_MAIN}/model_moe/loss_mixed/s42/orig")
    stream = published.value(
        "main-410M_bs_fix_only/pythia-410m_step10000/model_moe/loss_mixed/s42/mixed-concat_bs_4_for_all"
    )
    corrected = published.loss_matrix("main-410M").mean(axis=1)
    rows = {
        "both, as first published": gain(best, both),
        "stream cut short only": gain(best, stream),
        "neither": gain(corrected[list(published.DOMAINS)].min(), corrected["moe"]),
    }
    return pd.DataFrame({"released gain, %": rows})
