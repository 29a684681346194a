"""Checks of released means, gains, divergences and gates against the values that they come from.

The checks are found from the names of the values; `kalavai_helpers.consistency` runs them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from kalavai_helpers import claim_rules, claims, published

_THREE = published.DOMAINS
_SIZE = {"qwen": 2, "cross-lingual": 4, "cross-lingual-curriculum": 4}
_NOT_DOMAINS = ("loss_EW", "loss_mixed", "loss_mixed_all")


@dataclass(frozen=True)
class Check:
    """A stored value and how other stored values give it.

    ``slack`` is what a repeated run may differ by, beyond rounding.
    """

    family: str
    stored: str
    recomputation: str
    slack: float = 0.0


@claim_rules.rule
def complement(*parts: np.ndarray) -> float:
    """One minus the sum: the gate that is left."""
    return float(1 - np.concatenate(parts).sum())


@claim_rules.rule
def entropy(gates: np.ndarray) -> float:
    """Entropy of a gate vector, nats."""
    positive = gates[gates > 0]
    return float(-(positive * np.log(positive)).sum())


@cache
def groups() -> dict[tuple[str, str, str, str], dict[str, dict[str, str]]]:
    """Ids as (experiment, model, seed, protocol) → condition → metric → id."""
    found: dict[tuple[str, str, str, str], dict[str, dict[str, str]]] = {}
    for id in claims.released():
        experiment, model, condition, metric, seed, protocol = id.split("/")
        group = found.setdefault((experiment, model, seed, protocol), {})
        group.setdefault(condition, {})[metric] = id
    return found


def _domain_losses(metrics: Mapping[str, str]) -> list[str]:
    return [id for m, id in metrics.items() if m.startswith("loss_") and m not in _NOT_DOMAINS]


def _equal_weight() -> Iterator[Check]:
    """Equal-weight losses are means over domains."""
    names = ("moe_equal_weight", "moe_ew")
    for (experiment, *_), conditions in groups().items():
        size = _SIZE.get(experiment, 3)
        for condition, metrics in conditions.items():
            losses = _domain_losses(metrics)
            if len(losses) == size and "loss_EW" in metrics:
                yield Check("mean over domains", metrics["loss_EW"], _mean(losses))
            if condition.endswith("_model_moe") and len(losses) == size:
                parent = conditions.get(condition.removesuffix("_model_moe"), {})
                for name in names:
                    if name in parent:
                        yield Check("mean over domains", parent[name], _mean(losses))
    twenty = "20-contributor/pythia-1b_step10000/"
    for short in ("base", "moe"):
        text = f"average({twenty}model_{short}/loss_*/s42/corr)"
        yield Check("mean over domains", f"{twenty}/{short}_equal_weight/s42/corr", text)
    for seed in claims.SEEDS:
        main, rest = "main-6.9B/pythia-6.9b_step10000/", f"s{seed}/6.9B_per-domain_bs_1_50_seed"
        models = ["moe", "weight_avg", *(f"{d}_spec" for d in _THREE)]
        for model in [*models, *(["base"] if seed == "42" else [])]:
            text = f"average({main}1000_steps_K_6_step6_model_{model}/loss_*/{rest})"
            yield Check("mean over domains", f"{main}model_{model}/loss_EW/{rest}", text)


def _mean(ids: list[str]) -> str:
    return f"average({', '.join(ids)})"


def _gains() -> Iterator[Check]:
    """Gains follow from the losses beside them."""
    pairs = {
        ("best_spec_equal_weight", "moe_equal_weight"): "improvement_vs_spec",
        ("best_spec_ew", "moe_ew"): ("improvement_vs_spec", "gain_vs_spec"),
        ("best_spec_ew_loss", "moe_ew_loss"): "gain_vs_spec_pct",
        ("best_spec_eq", "moe_eq"): "moe_vs_best_spec",
        ("best_fixed_dispatch_eq", "moe_eq"): "moe_vs_best_fixed_dispatch",
        ("oracle_dispatch_eq", "moe_eq"): "moe_vs_oracle_dispatch",
        ("base_equal_weight", "moe_equal_weight"): "improvement_vs_base",
        ("base_loss", "wider_loss"): "improvement_pct",
        ("best_spec_mixed", "moe_mixed"): "improvement_vs_spec",
        ("base_mixed", "moe_mixed"): "improvement_vs_base",
        ("base_mixed", "weight_avg_mixed"): "improvement_wa_vs_base",
        ("original_best_spec", "original_moe_mixed"): "original_improvement",
        ("best_individual", "best_fused"): "gain",
        ("monolithic_mixed", "moe_fused_mixed"): "fused_vs_monolithic_pct",
        ("monolithic_ew", "moe_fused_ew"): "fused_vs_monolithic_pct",
    }
    for conditions in groups().values():
        for metrics in conditions.values():
            for (before, after), stored in pairs.items():
                for name in (stored,) if isinstance(stored, str) else stored:
                    if {before, after, name} <= metrics.keys():
                        text = f"improvement({metrics[before]}; {metrics[after]})"
                        yield Check("gain from losses", metrics[name], text)
    yield from _gains_across_conditions()


def _gains_across_conditions() -> Iterator[Check]:
    names = {"moe": "", "weight_avg": "wa_", "monolithic": "monolithic_"}
    for (experiment, model, seed, protocol), conditions in groups().items():
        root = f"{experiment}/{model}/"
        holder = next((c for c in ("corrected_metrics", "metrics") if c in conditions), None)
        ew = {c[6:]: m["loss_EW"] for c, m in conditions.items() if "loss_EW" in m}
        specialists = [id for name, id in ew.items() if name.endswith("_spec")]
        base = f"{root}model_base/loss_EW/s42/{protocol}"
        if holder and specialists and "moe" in ew:
            stored = conditions[holder]
            text = f"gain({', '.join(specialists)}; {ew['moe']})"
            yield Check("gain from losses", stored["improvement_vs_spec"], text)
            for name, prefix in names.items():
                id = stored.get(f"improvement_{prefix}vs_base")
                # The curriculum was scored beside a base of its own, released with seed 42 only.
                if id and name in ew:
                    yield Check("gain from losses", id, f"improvement({base}; {ew[name]})")
            for metric in ("improvement_vs_monolithic", "improvement_vs_mono"):
                if metric in stored:
                    text = f"improvement({ew['monolithic']}; {ew['moe']})"
                    yield Check("gain from losses", stored[metric], text)
        mixed = {c[6:]: m["loss_mixed"] for c, m in conditions.items() if "loss_mixed" in m}
        told = conditions.get("MoE_vs_best_specialist", {}).get("improvement_vs_spec")
        specialists = [id for name, id in mixed.items() if name.endswith("_spec")]
        if told and specialists:
            yield Check("gain from losses", told, f"gain({', '.join(specialists)}; {mixed['moe']})")
        if experiment == "crossover" and "" in conditions:
            for metrics in conditions.values():
                if "moe_loss" in metrics and "improvement_vs_base" in metrics:
                    text = f"improvement({conditions['']['base_loss']}; {metrics['moe_loss']})"
                    yield Check("gain from losses", metrics["improvement_vs_base"], text)
        if experiment == "maturity-410M" and "v2" in conditions and seed != "s42":
            base = f"{root}v2/base_equal_weight/s42/{protocol}"
            text = f"improvement({base}; {conditions['v2']['moe_equal_weight']})"
            yield Check("gain from losses", conditions["v2"]["improvement_vs_base"], text)
        if experiment == "specialist-count" and "5_specialists" in conditions:
            best = conditions["2_specialists"].get("best_spec_equal_weight")
            for count in ("3", "4", "5") if best else ():
                metrics = conditions[f"{count}_specialists"]
                text = f"improvement({best}; {metrics['moe_equal_weight']})"
                yield Check("gain from losses", metrics["improvement_vs_spec"], text)


def _divergences() -> Iterator[Check]:
    """Divergences follow from losses, and their means from them."""
    for (experiment, model, seed, protocol), conditions in groups().items():
        root = f"{experiment}/{model}/"
        for condition, metrics in conditions.items():
            parts = [id for m, id in metrics.items() if m.startswith("divergence_")]
            if condition == "metrics" and f"{experiment}".startswith("regression-ext"):
                text = f"average({root}specialist_*/divergence/{seed}/{protocol})"
                yield Check("mean divergence", metrics["mean_divergence"], text)
            if len(parts) > 2 and "mean_divergence" in metrics:
                yield Check("mean divergence", metrics["mean_divergence"], _mean(parts))
            for metric, id in metrics.items():
                domain = metric.removeprefix("divergence_")
                base = f"{root}model_base/loss_{domain}/s42/{protocol}"
                own = f"{root}model_{domain}_spec/loss_{domain}/{seed}/{protocol}"
                if metric.startswith("divergence_") and own in claims.record():
                    yield Check("divergence from losses", id, f"divergence({base}; {own})")
        for domain in _THREE:
            told = conditions.get(f"specialist_{domain}", {})
            told = told.get("divergence_delta_pct_sign_flipped")
            form = f"{root}model_{{}}/loss_{domain}/s42/corr"
            if told and form.format("base") in claims.record():
                text = f"divergence({form.format('base')}; {form.format(domain + '_spec')})"
                yield Check("divergence from losses", told, text)


def _seeds() -> Iterator[Check]:
    """Means and spreads over seeds."""
    short = re.compile(r"(mean|std)")
    by_seed: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(dict)
    for (experiment, model, seed, protocol), conditions in groups().items():
        if "-" in seed or seed == "s_na":
            continue
        for metrics in conditions.values():
            for metric, id in metrics.items():
                by_seed[experiment, model, protocol].setdefault(metric, []).append(id)
    gains = ("improvement_vs_spec", "gain_vs_spec", "improvement_pct")
    for (experiment, model, seed, protocol), conditions in groups().items():
        seeds = seed.removeprefix("s").split("-")
        for condition, metrics in conditions.items() if len(seeds) > 1 else ():
            for metric, id in metrics.items():
                kind = short.search(metric)
                if not kind or "monolithic" in condition:
                    continue
                wanted = ("mean_divergence",) if "diverg" in metric else gains
                for name in wanted:
                    ids = [
                        i
                        for i in by_seed[experiment, model, protocol].get(name, [])
                        if i.split("/")[4].removeprefix("s") in seeds
                        and (len(conditions) == 1 or i.split("/")[2] in (condition, "metrics"))
                    ]
                    if len(ids) == len(seeds):
                        rule = "average" if kind[0] == "mean" else "deviation"
                        yield Check("over seeds", id, f"{rule}({', '.join(ids)})")


def _gates() -> Iterator[Check]:
    """Gates sum to one, and their entropy."""
    for conditions in groups().values():
        for metrics in conditions.values():
            gates = [id for m, id in metrics.items() if m.startswith("mean_gate_")]
            if len(gates) in (3, 4):
                yield Check("gates sum to one", gates[0], f"complement({', '.join(gates[1:])})")
    root = "cross-lingual/pythia-410m_step10000/input_yoruba/mean_gate_*/s42/"
    stored = "cross-lingual-collapse/pythia-410m_step10000/input_yoruba/routing_entropy/s42/"
    text = f"entropy({root}mean_sequence_gate_first_20)"
    yield Check("gate entropy", stored + "from_stored_gates", text)


def found() -> list[Check]:
    """Return every check of this module."""
    families = (_equal_weight, _gains, _divergences, _seeds, _gates)
    return [check for family in families for check in family()]
