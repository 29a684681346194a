"""Checks of the values of August 2026 against each other and against the older record.

`kalavai_helpers.consistency` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kalavai_helpers import claim_rules, published
from kalavai_helpers.consistency_losses import Check
from kalavai_helpers.released_discussion import LANGUAGES, SEEDS
from kalavai_helpers.released_held_out import CONDITIONS, DOMAINS, LINE, NOT_RETRIED, RETRIED

_410M = "pythia-410m_step10000"
_BAND = "95_band_of_the_8-point_fit"
# A specialist trained again with the same seed comes out this close, pp of its divergence; a
# router fitted again moves the loss by this much, nats/token.
_TRAINED_AGAIN, _FITTED_AGAIN = 0.045, 0.001
_POINT = ("mean_divergence", "improvement_vs_spec")
_MODELS = ("base", *(f"{domain}_spec" for domain in DOMAINS), "moe")


@claim_rules.rule
def bits(ppl: np.ndarray, per_byte: np.ndarray, other: np.ndarray) -> float:
    """Bits per byte at another perplexity of the same text: both grow with its logarithm."""
    return float(per_byte[0] * np.log(other[0]) / np.log(ppl[0]))


@claim_rules.rule
def mean_log(ppl: np.ndarray) -> float:
    """Mean loss behind perplexities."""
    return float(np.log(ppl).mean())


def _w2(folder: str, condition: str, metric: str) -> str:
    return f"{folder}/{_410M}/{condition}/{metric}/s42/rebuttal_EW_over_the_named_domains"


def _conditions() -> Iterator[Check]:
    """The six conditions: gains, divergences, the losses that they share, and the two folders."""
    for folder in (RETRIED, NOT_RETRIED):
        fused = {name: _w2(folder, name, "moe_loss_EW") for name in CONDITIONS}
        for name in CONDITIONS:
            best = _w2(folder, name, "best_spec_loss_EW")
            text = f"improvement({best}; {fused[name]})"
            yield Check("gain from losses", _w2(folder, name, "improvement_vs_spec"), text)
            parts = ", ".join(_w2(folder, name, f"divergence_{d}") for d in name.split("+"))
            mean = _w2(folder, name, "mean_divergence")
            yield Check("mean divergence", mean, f"average({parts})")
            # The specialists are the same in all six, so five conditions give the sixth.
            others = [other for other in CONDITIONS if other != name]
            ids = ", ".join(fused[other] for other in others)
            text = f"solved(@{','.join(others)}; @{name}; {ids})"
            yield Check("six conditions, four specialists", fused[name], text, _FITTED_AGAIN)
            for domain in name.split("+"):
                first = next(other for other in CONDITIONS if domain in other.split("+"))
                own = _w2(folder, name, f"divergence_{domain}")
                if first != name:
                    text = f"average({_w2(folder, first, f'divergence_{domain}')})"
                    yield Check("one specialist, several runs", own, text, _TRAINED_AGAIN)
        divergences = "; ".join(
            ", ".join(
                _w2(folder, name, f"divergence_{domain}")
                for name in CONDITIONS
                if domain in name.split("+")
            )
            for domain in DOMAINS
        )
        sets, ids = ",".join(CONDITIONS), ", ".join(fused.values())
        text = f"solved_base(@{sets}; @{'+'.join(DOMAINS)}; {ids}; {divergences})"
        base = f"rebuttal-w5/{_410M}/base/loss_EW/s137/rebuttal_EW"
        yield Check("base of the six conditions", base, text, _FITTED_AGAIN)
    for name in CONDITIONS:
        for metric in ("mean_divergence", "best_spec_loss_EW", "moe_loss_EW"):
            one, other = (_w2(folder, name, metric) for folder in (RETRIED, NOT_RETRIED))
            slack = _TRAINED_AGAIN if metric == "mean_divergence" else _FITTED_AGAIN
            yield Check("with and without the retry", one, f"average({other})", slack)


def _refit() -> Iterator[Check]:
    """The test of the line and the refit follow from the points."""
    form = f"rebuttal-w2-refit/all/{{}}/{{}}/s_na/{_BAND}"
    told = {m: ", ".join(_w2(RETRIED, c, m) for c in CONDITIONS) for m in _POINT}
    points = "; ".join(told.values())
    for name in CONDITIONS:
        held = {m: form.format(f"held_out_{name}", m) for m in ("div", "gain", "pred")}
        for stored, metric in zip(("div", "gain"), _POINT, strict=True):
            text = f"average({_w2(RETRIED, name, metric)})"
            yield Check("one quantity, two files", held[stored], text)
        yield Check("regression", held["pred"], f"law(@{LINE}; @predict; {held['div']})")
    yield Check("regression", form.format("held_out", "rmse_pp"), f"law_rms(@{LINE}; {points})")
    yield Check("regression", form.format("held_out", "in_band"), f"law_in_band(@{LINE}; {points})")
    flags = form.format("held_out_*", "in_band")
    yield Check("regression", form.format("held_out", "in_band"), f"total({flags})")
    fit = "rebuttal-w2-refit/all/{}/{}/s_na/OLS"
    for name in ("slope", "intercept", "r2"):
        yield Check("regression", fit.format("fit_original", name), f"law(@{LINE}; @{name})")
        text = f"law_refit(@{LINE}; @{name}; {points})"
        yield Check("regression", fit.format("refit_all", name), text)
    for side in ("low", "high"):
        text = f"law_slope_bound(@{LINE}; @{side})"
        yield Check("regression", fit.format("fit_original", f"slope_ci_{side}"), text)


def _rivals() -> Iterator[Check]:
    """Pooled, public, joint: percentages from losses, and what two experiments share."""
    w3 = f"rebuttal-w3w4/{_410M}/cross-lingual_four_domains/{{}}/s137/rebuttal_EW"
    for stored, before, after in (
        ("W3_moe_vs_monolithic_pct", "monolithic_ew", "moe_indomain_router_ew"),
        ("W3_monolithic_vs_base_pct", "base_ew", "monolithic_ew"),
        ("W4_moe_indomain_gain_vs_bestspec_pct", "best_spec_ew", "moe_indomain_router_ew"),
        ("W4_moe_proxy_gain_vs_bestspec_pct", "best_spec_ew", "moe_proxy_router_ew"),
    ):
        text = f"improvement({w3.format(before)}; {w3.format(after)})"
        yield Check("gain from losses", w3.format(stored), text)
    w5 = f"rebuttal-w5/{_410M}/{{}}/{{}}/s{{}}/rebuttal_EW"
    for seed in (137, 2026):
        base = w5.format("base", "loss_EW", seed)
        for variant in ("uniform", "kalavai", "btx"):
            text = f"improvement({base}; {w5.format(variant, 'loss_EW', seed)})"
            stored = w5.format(variant, "improvement_vs_base", seed)
            yield Check("gain from losses", stored, text)
    base, fused = w5.format("base", "loss_EW", 137), w5.format("kalavai", "loss_EW", 137)
    yield Check("one quantity, two files", w3.format("base_ew"), f"average({base})")
    other = w5.format("base", "loss_EW", 2026)
    yield Check("base, whatever the seed", other, f"average({base})")
    text = f"average({fused})"
    yield Check("one quantity, two files", w3.format("moe_indomain_router_ew"), text, _FITTED_AGAIN)


def _downstream() -> Iterator[Check]:
    """Bits per byte follow from perplexities; the base does not depend on the training seed."""
    w1 = f"rebuttal-w1/{_410M}/metrics_{{}}/{{}}/s{{}}/rebuttal"
    w7 = "rebuttal-w7/Qwen2.5-7B/downstream_{}/{}/s{}/rebuttal"
    for form, seeds in ((w1, SEEDS), (w7, (42,))):
        for seed in seeds:
            for language in LANGUAGES:
                text = f"_flores_{language}"
                ppl = form.format(f"base{text}", "ppl", seed)
                per_byte = form.format(f"base{text}", "bits_per_byte", seed)
                for model in _MODELS[1:]:
                    stored = form.format(f"{model}{text}", "bits_per_byte", seed)
                    other = form.format(f"{model}{text}", "ppl", seed)
                    yield Check("bits and perplexity", stored, f"bits({ppl}; {per_byte}; {other})")
    frame = published.select(experiment="rebuttal-w1", seeds=137)
    measured = ("cloze_acc", "flores", "belebele", "contin_chrf")
    for condition, metric in zip(frame["condition"], frame["metric"], strict=True):
        kind = condition.removeprefix("metrics base ").partition(" ")[0]
        if condition.startswith("metrics base ") and kind in measured:
            if metric in ("n", "n_sentences", "chance"):
                continue  # settings
            name = condition.removeprefix("metrics ").replace(" ", "_")
            one = w1.format(name, metric, 137)
            for seed in (42, 2026):
                other = w1.format(name, metric, seed)
                yield Check("base, whatever the seed", other, f"average({one})")


def _seven_b() -> Iterator[Check]:
    """The 7B cooperative: gain from losses, and losses from the perplexities of its domains."""
    w7 = "rebuttal-w7/Qwen2.5-7B/{}/{}/s42/rebuttal"
    text = f"improvement({w7.format('eq', 'best_spec')}; {w7.format('eq', 'moe')})"
    yield Check("gain from losses", w7.format("all", "fusion_gain_pct"), text)
    for model in ("base", "moe"):
        ids = ", ".join(w7.format(f"perplexity_moe_vs_base_{d}", model) for d in DOMAINS)
        yield Check("perplexity", w7.format("eq", model), f"mean_log({ids})")


def found() -> list[Check]:
    """Return every check of this module."""
    families = (_conditions, _refit, _rivals, _downstream, _seven_b)
    return [check for family in families for check in family()]
