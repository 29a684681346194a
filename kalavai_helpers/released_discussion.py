"""What else was released in August 2026: rivals, downstream tasks, a 7B model, and conversion.

A pooled model competes with the fused one, a router was fitted on public text, specialists were
trained jointly, and a cooperative of 7B models was built. Every frame but `conversions` has a
column ``ids`` with the released values that its row reads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kalavai_helpers import prediction, published, released_conditions
from kalavai_helpers.released_held_out import (
    CONDITIONS,
    DOMAINS,
    LINE,
    RETRIED,
    Value,
    losses,
)

if TYPE_CHECKING:
    import pandas as pd

LANGUAGES = DOMAINS[:3]
SEEDS = (42, 137, 2026)
_410M = "pythia-410m_step10000"
_W1 = f"rebuttal-w1/{_410M}/metrics_{{}}/{{}}/s{{}}/rebuttal"
_W2 = f"rebuttal-w2/{_410M}/{{}}/moe_loss_EW/s42/rebuttal_EW_over_the_named_domains"
_W3 = f"rebuttal-w3w4/{_410M}/cross-lingual_four_domains/{{}}/s137/rebuttal_EW"
_W5 = f"rebuttal-w5/{_410M}/{{}}/{{}}/s{{}}/rebuttal_EW"
_W7 = "rebuttal-w7/Qwen2.5-7B/{}/{}/s42/rebuttal"


def rivals(value: Value = published.value) -> pd.DataFrame:
    """Return every model that was scored on the text of the four domains.

    Returns
    -------
    pandas.DataFrame
        Index: model. Columns specialists (which they are, or empty), loss (equal weight,
        nats/token), over_base (gain over the base, %), over_best (over the best single Hub
        specialist, %), ids. The last row is not released: it follows from the six conditions,
        whose text has the same base loss, for specialists that were trained when the pooled
        model was.
    """
    import pandas as pd

    hub = "Hub, seed 137"
    told = {
        "base": ("", _W5.format("base", "loss_EW", 137)),
        "uniform gates": (hub, _W5.format("uniform", "loss_EW", 137)),
        "best single specialist": (hub, _W3.format("best_spec_ew")),
        "fused, router on public text": (hub, _W3.format("moe_proxy_router_ew")),
        "fused": (hub, _W3.format("moe_indomain_router_ew")),
        "fused, router fitted again": (hub, _W5.format("kalavai", "loss_EW", 137)),
        "specialists and router trained jointly": (hub, _W5.format("btx", "loss_EW", 137)),
        "one model, pooled text": ("", _W3.format("monolithic_ew")),
    }
    rows = {
        name: {"specialists": which, "loss": value(id), "ids": (id,)}
        for name, (which, id) in told.items()
    }
    rows["fused, fresh specialists (derived)"] = {
        "specialists": "fresh, seed 42",
        "loss": float(losses(RETRIED, value)["own"].mean()),
        "ids": tuple(_W2.format(name) for name in CONDITIONS),
    }
    frame = pd.DataFrame(rows).T.infer_objects()
    base, best = frame.loc["base", "loss"], frame.loc["best single specialist", "loss"]
    frame.insert(2, "over_base", 100 * (base - frame["loss"]) / base)
    frame.insert(3, "over_best", 100 * (best - frame["loss"]) / best)
    return frame


def seven_b(value: Value = published.value) -> pd.DataFrame:
    """Return the fused 7B model beside its base.

    Returns
    -------
    pandas.DataFrame
        One row a domain: base and fused perplexity (one decimal was released), divergence of the
        fused model (relative loss reduction, %), FLORES-200 perplexity, next-token and Belebele
        accuracy of base and fused model (NaN where not measured), ids.
    """
    import pandas as pd

    rows = {}
    for domain in DOMAINS:
        names = {
            f"perplexity_{m}": (f"perplexity_moe_vs_base_{domain}", m) for m in ("base", "moe")
        }
        for model in ("base", "moe"):
            form = f"downstream_{model}_"
            names[f"cloze_{model}"] = (f"{form}cloze_acc", domain)
            names[f"flores_{model}"] = (f"{form}flores_{domain}", "ppl")
            names[f"belebele_{model}"] = (f"{form}belebele_{domain}", "accuracy")
        ids = {key: _W7.format(*name) for key, name in names.items()}
        # Code has no FLORES text, and Welsh and code no questions.
        found = {
            key: value(id)
            for key, id in ids.items()
            if not (domain == "code" and "flores" in key)
            and not (domain in ("welsh", "code") and "belebele" in key)
        }
        base, fused = (math.log(found[f"perplexity_{m}"]) for m in ("base", "moe"))
        rows[domain] = {
            **{key: found.get(key, math.nan) for key in ids},
            "divergence": 100 * (base - fused) / base,
            "ids": tuple(ids[key] for key in found),
        }
    return pd.DataFrame(rows).T.infer_objects()


def sizes(value: Value = published.value) -> pd.DataFrame:
    """Return the gain of the cross-lingual cooperatives over base and over the best specialist.

    Returns
    -------
    pandas.DataFrame
        Index: cooperative. Columns base, best, fused (equal-weight losses, nats/token),
        best_over_base, over_base, over_best (%), ids.
    """
    import pandas as pd

    first = f"cross-lingual-curriculum/{_410M}"
    told = {
        "410M, first text, seed 137": (
            f"{first}/model_base/loss_EW/s42/corr",
            f"{first}/model_yoruba_spec/loss_EW/s137/corr",
            f"{first}/model_moe/loss_EW/s137/corr",
        ),
        "410M, text of August, the same specialists": (
            _W5.format("base", "loss_EW", 137),
            _W3.format("best_spec_ew"),
            _W3.format("moe_indomain_router_ew"),
        ),
        "Qwen2.5-7B, text of August": tuple(
            _W7.format("eq", name) for name in ("base", "best_spec", "moe")
        ),
    }
    rows = {}
    for name, ids in told.items():
        base, best, fused = (value(id) for id in ids)
        rows[name] = {
            "base": base,
            "best": best,
            "fused": fused,
            "best_over_base": 100 * (base - best) / base,
            "over_base": 100 * (base - fused) / base,
            "over_best": 100 * (best - fused) / best,
            "ids": ids,
        }
    return pd.DataFrame(rows).T.infer_objects()


def downstream(value: Value = published.value) -> pd.DataFrame:
    """Return accuracy and perplexity of the 410M cross-lingual models, by language and seed.

    Returns
    -------
    pandas.DataFrame
        One row a seed and language: next-token accuracy (``cloze``) and FLORES-200 perplexity of
        base, own specialist and fused model, their chrF, and ids.
    """
    import pandas as pd

    rows = []
    for seed in SEEDS:
        for language in LANGUAGES:
            row: dict[str, object] = {"seed": seed, "language": language}
            ids = {}
            for name, model in {"base": "base", "own": f"{language}_spec", "moe": "moe"}.items():
                ids[f"cloze_{name}"] = _W1.format(f"{model}_cloze_acc", language, seed)
                ids[f"flores_{name}"] = _W1.format(f"{model}_flores_{language}", "ppl", seed)
                ids[f"chrf_{name}"] = _W1.format(f"{model}_contin_chrf_{language}", "chrf", seed)
            row |= {key: value(id) for key, id in ids.items()}
            rows.append({**row, "ids": tuple(ids.values())})
    return pd.DataFrame(rows)


def conversions() -> pd.DataFrame:
    """Return gain per divergence of every released three-domain condition, by size of the model.

    Returns
    -------
    pandas.DataFrame
        Columns size (``410M``, ``1B``, ``6.9B``), name, divergence (%), gain (%), conversion.
        LoRA, and cooperatives with other numbers of domains, are left out.
    """
    import pandas as pd

    rows = [
        (row.name_[7:], row.name_, row.divergence, row.gain)
        for row in prediction.points(LINE).rename(columns={"name": "name_"}).itertuples()
        if row.name_.startswith("Pythia-")
    ]
    for row in released_conditions.unused().itertuples():
        size = row.name.partition(",")[0]
        if size in ("410M", "1B", "6.9B"):
            rows.append((size, row.name, row.divergence, row.gain))
    frame = pd.DataFrame(rows, columns=["size", "name", "divergence", "gain"])
    frame["name"] = frame["name"].replace(
        {f"Pythia-{size}": f"{size}, main run" for size in frame["size"]}
    )
    frame["conversion"] = frame["gain"] / frame["divergence"]
    return frame
