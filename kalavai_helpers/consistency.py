"""Whether the released values agree with each other: one released value from others.

Every check recomputes a stored value in the notation of `kalavai_helpers.claims` and compares
within what rounding of all values involved allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from kalavai_helpers import claim_rules, claims, consistency_discussion, published
from kalavai_helpers.consistency_losses import Check, found, groups

if TYPE_CHECKING:
    import pandas as pd

_THREE = published.DOMAINS
_MAIN = "main-410M/pythia-410m_step10000/"


@claim_rules.rule
def throughput(latency: np.ndarray, tokens: np.ndarray) -> float:
    """Tokens a second from the milliseconds of one pass."""
    return float(1000 * tokens[0] / latency.mean())


@claim_rules.rule
def reduced(loss: np.ndarray, percent: np.ndarray) -> float:
    """Perplexity that is left when a loss, given as perplexity, falls by so many percent."""
    return float(np.exp(np.log(loss) * (1 - percent / 100)).mean())


def _duplicates() -> Iterator[Check]:
    """One quantity stored in two files."""

    def same(stored: str, other: str, slack: float = 0.0) -> Check:
        return Check("one quantity, two files", stored, f"average({other})", slack)

    experiments = {"410m": "main-410M", "1b": "main-1B"}
    for size, experiment in experiments.items():
        model = f"pythia-{size}_step10000"
        for domain in _THREE:
            base = f"{experiment}/{model}/model_base/loss_{domain}/s42/corr"
            yield same(f"monolithic/{model}/step_0/loss_{domain}/s42/per-domain_bs_4", base)
        base = f"{experiment}/{model}/model_base/loss_mixed/s42/orig"
        yield same(f"monolithic/{model}/step_0/loss_mixed/s42/orig", base)
        gain = f"{experiment}/{model}/MoE_vs_best_specialist/improvement_vs_spec/s42/orig"
        sweep = f"maturity-{size.upper()}/{model}/MoE_vs_best_specialist/improvement_vs_spec"
        yield same(f"{sweep}/s42/orig", gain)
    for seed in claims.SEEDS:
        for domain in _THREE:
            own = f"{_MAIN}model_{domain}_spec/loss_{domain}/s{seed}/corr"
            five = "specialist-count/pythia-410m_step10000/specialist_"
            yield same(f"{five}{domain}/own-domain_loss/s{seed}/per-domain_bs_4", own)
        for domain in ("code", "science", "fiction", "legal", "patent", "medical"):
            # Router runs on the same specialists: the fused loss may differ by the router's seed.
            other = (
                f"shared-init-v2/pythia-410m_step10000/control_model_moe/loss_{domain}/s{seed}/corr"
            )
            if other in claims.record():
                yield same(other, f"{_MAIN}model_moe/loss_{domain}/s{seed}/corr", 0.001)
    for experiment in ("freeze-sweep", "maturity-410M", "heterogeneous", "heterogeneous-v2"):
        for id in claims.released():
            parts = id.split("/")
            alike = parts[0] == experiment and parts[4] == "s42" and parts[5] == "corr"
            alike &= parts[1] == "pythia-410m_step10000" and parts[2] in (
                "v2",
                "K_4_2000_steps",
                "control",
            )
            if alike and parts[3] == "improvement_vs_spec":
                yield same(id, f"{_MAIN}corrected_metrics/improvement_vs_spec/s42/corr", 0.01)
    for domain in _THREE:
        for trained in _THREE:
            other = f"{_MAIN}model_{trained}_spec/loss_{domain}/s42/corr"
            curve = f"training-curves/pythia-410m_step10000/specialist_{trained}_step_2000/"
            yield same(f"{curve}loss_{domain}/s42/per-domain_bs_4", other, 0.005)
        own = f"{_MAIN}model_{domain}_spec/loss_{domain}/s42/corr"
        oracle = "oracle-routing/Pythia-410M_corrected_eval/domain_oracle/"
        yield same(f"{oracle}loss_{domain}/s42/EW_of_stored_per-domain_loss", own)
        own = own.replace("main-410M/pythia-410m", "main-1B/pythia-1b")
        oracle = "oracle-routing/Pythia-1B_original_eval_schema/domain_oracle/"
        yield same(f"{oracle}loss_{domain}/s42/EW_of_stored_per-domain_loss", own)
    for size, run, moe in (
        ("410M_corrected_eval", _MAIN, "corr"),
        ("1B_original_eval_schema", "main-1B/pythia-1b_step10000/", "EW_of_stored_per-domain_loss"),
    ):
        oracle = f"oracle-routing/Pythia-{size}/domain_oracle/{{}}/s42/{moe}"
        for name in ("base", "moe"):
            yield same(oracle.format(f"{name}_ew"), f"{run}model_{name}/loss_EW/s42/corr")
        text = f"average({oracle.rpartition('/')[0].format('loss_*')}/EW_of_stored_per-domain_loss)"
        yield Check("mean over domains", oracle.format("oracle_ew"), text)
        text = f"difference({oracle.format('moe_ew')}; {oracle.format('oracle_ew')})"
        yield Check("oracle gap", oracle.format("oracle_gap"), text)
        text = f"improvement({oracle.format('moe_ew')}; {oracle.format('oracle_ew')})"
        yield Check("oracle gap", oracle.format("headroom_pct"), text)
    base = "crossover/pythia-410m_step10000//base_loss/s42/"
    yield same(f"{base}corrected-per-domain-equal-w", f"{_MAIN}model_base/loss_EW/s42/corr")
    yield same(
        f"{base}original-mixed_seq256_code_o",
        "classifier-dispatch-v1/*/base_loss/*, multihead/*/base_loss/*",
    )
    for id in claims.released():
        parts = id.split("/")
        twin = f"crossover/{'/'.join(parts[1:])}"
        if parts[0] == "floor-ablation-50-100" and twin in claims.record():
            yield same(id, twin)
        if parts[0] == "crossover" and parts[2].endswith("_vs_best_specialist"):
            steps = parts[2].removesuffix("_vs_best_specialist")
            twin = f"crossover/{parts[1]}/{steps}/moe_loss/s42/corrected-per-domain-equal-w"
            if parts[3] == "moe_equal_weight":
                yield same(id, twin, 0.001)  # the router was trained again
        if parts[0] == "crossover-regression-points" and parts[3] == "moe_ew_loss":
            twin = f"crossover/{parts[1]}/{parts[2]}/moe_loss/s42/corrected-per-domain-equal-w"
            yield same(id, twin)
        if parts[0] == "crossover-regression-points" and parts[3] == "best_spec_ew_loss":
            twin = f"crossover/{parts[1]}/{parts[2]}_vs_best_specialist/best_spec_equal_weight/s42/corr"
            if twin in claims.record():  # from 500 steps on
                yield same(id, twin, 0.001)


def _perplexities() -> Iterator[Check]:
    """Perplexities follow from losses and divergences."""
    for (experiment, model, seed, protocol), conditions in groups().items():
        for condition, metrics in conditions.items():
            if "perplexity" not in metrics:
                continue
            domain, _, short = condition.removeprefix("domain_").partition("_model_")
            root = f"{experiment}/{model}/"
            if short == "moe":
                text = f"perplexity({root}model_moe/loss_{domain}/{seed}/{protocol})"
                yield Check("perplexity", metrics["perplexity"], text)
            if short == "specialist":
                base = f"{root}domain_{domain}_model_base/perplexity/{seed}/{protocol}"
                divergence = f"{root}metrics/divergence_{domain}/{seed}/{protocol}"
                yield Check("perplexity", metrics["perplexity"], f"reduced({base}; {divergence})")


def _monolithic() -> Iterator[Check]:
    """Summaries of the monolithic baselines against the base that they name."""
    base_69b = "main-6.9B/pythia-6.9b_step10000/model_base/loss_EW/s42/6.9B_per-domain_bs_1_50_seed"
    step_0 = "monolithic/pythia-6.9b_step10000/step_0/loss_EW/s42/6.9B_monolithic_eval_differe"
    bases = {
        size: (
            base := f"main-{size.upper()}/pythia-{size}_step10000/model_base/loss_mixed/s42/orig",
            base,
        )
        for size in ("410m", "1b")
    }
    bases["6.9b"] = (step_0, base_69b)
    for (experiment, model, _, _), conditions in groups().items():
        metrics = conditions.get("3-seed_mean", {})
        if experiment != "monolithic" or not metrics:
            continue
        own, other = bases[model.removeprefix("pythia-").partition("_")[0]]
        for name, base, loss in (
            ("monolithic_vs_base_pct", own, "monolithic"),
            ("moe_vs_base_pct", other, "moe_fused"),
        ):
            after = metrics.get(f"{loss}_mixed") or metrics.get(f"{loss}_ew")
            if name in metrics and after:
                yield Check("gain from losses", metrics[name], f"improvement({base}; {after})")


def _timings() -> Iterator[Check]:
    """Throughput and overhead follow from latencies."""
    for conditions in groups().values():
        base = conditions.get("Base_model", {}).get("latency_ms")
        for metrics in conditions.values():
            if base and "tokens_per_sec" in metrics:
                text = f"throughput({metrics['latency_ms']}; #512)"
                yield Check("timing", metrics["tokens_per_sec"], text)
            if base and "tokens_per_sec" in metrics and metrics["latency_ms"] != base:
                text = f"ratio({metrics['latency_ms']}; {base})"
                yield Check("timing", metrics["relative_latency"], text)


def _benchmarks() -> Iterator[Check]:
    """Benchmark averages are means over tasks."""
    for (experiment, *_), conditions in groups().items():
        for metrics in conditions.values():
            if experiment == "benchmarks" and len(metrics) == 6 and "average" in metrics:
                tasks = [id for metric, id in metrics.items() if metric != "average"]
                text = f"average({', '.join(tasks)})"
                yield Check("benchmark average", metrics["average"], text)


def _regressions() -> Iterator[Check]:
    """Coefficients, residuals and leave-one-out lines follow from the points."""
    fits = {
        "regression-n8/all/linear/{}/s_na/OLS": "n8",
        "regression-n6/all/n6_6.9B_8.73_6.53/{}/s_na/OLS": "n6, 6.9B at 8.73",
    }
    for form, version in fits.items():
        for name in ("slope", "intercept", "r2"):
            text = f"law(@{version}; @{name})"
            yield Check("regression", form.format(name), text)
    for id in claims.released():
        parts = id.split("/")
        if parts[0] == "regression-n8" and parts[3] == "residual":
            used = f"regression-n8/all/{parts[2].removeprefix('linear_')}/{{}}_used/s_na/OLS_input"
            line = "regression-n8/all/linear/{}/s_na/OLS"
            text = f"residual({line.format('slope')}; {line.format('intercept')}; "
            text += f"{used.format('divergence')}; {used.format('gain')})"
            yield Check("regression", id, text)
        if "leave_out" in id and parts[2].startswith("loo_primary") and parts[3] == "loo_slope":
            name = parts[2].partition("leave_out_")[2]
            name = name.replace("_private", "_Private").replace("_cross", "_Cross")
            form = f"{'/'.join(parts[:3])}/{{}}/s_na/LOO_OLS"
            text = f"total({form.format('gain_predicted_pct')}; {form.format('residual_pct')})"
            yield Check("regression", f"regression-n8/all/{name}/gain_used/s_na/OLS_input", text)
        if parts[0] == "base-ppl-conversion" and parts[3] == "exact_conv":
            used = f"regression-n8/all/{parts[2]}/{{}}_used/s_na/OLS_input"
            text = f"ratio({used.format('gain')}; {used.format('divergence')})"
            yield Check("conversion rate", id, text)


@cache
def checks() -> tuple[Check, ...]:
    """Return every check, each stored value and recomputation once."""
    families = (_duplicates, _perplexities, _monolithic, _timings, _benchmarks, _regressions)
    every = [*found(), *(check for family in families for check in family())]
    every += consistency_discussion.found()
    return tuple(dict.fromkeys(every))


@cache
def _rounding() -> Mapping[str, float]:
    """Return half a unit in the last place of every value, by id.

    Trailing zeros were not kept, so the places are those of the longest value of the same
    quantity in the same file.
    """
    frame = published.load()
    frame["places"] = [len(repr(float(v)).partition(".")[2]) for v in frame["value"]]
    frame.loc[frame["value"] % 1 == 0, "places"] = 0
    # Logarithms and exponents print small numbers without a point.
    frame.loc[frame["value"].astype(str).str.contains("e"), "places"] = 15
    frame["quantity"] = frame["metric"].str.replace(r"\[.*", "", regex=True)
    gates = frame["quantity"] == "mean_gate"  # some files keep three places, others four
    frame.loc[gates, "quantity"] += frame["condition"].str.extract("(.*);")[0].fillna("")
    # One metric may name losses and perplexities, which are rounded differently.
    alike = ["source", "quantity", "eval_protocol", "unit"]
    places = frame.groupby(alike)["places"].transform("max")
    half = 0.5 * 10.0**-places
    # Counted, not rounded: flags, counts, and right answers of a hundred questions.
    half[frame["unit"].isin(["bool", "count"]) | (frame["metric"] == "accuracy")] = 0.0
    return dict(zip(frame["id"], half, strict=True))


@cache
def tolerance(check: Check) -> float:
    """Return how far rounding of the stored value and of every input can move the difference."""
    record, rounding = claims.record(), _rounding()
    (outcome,) = claims.evaluate(check.recomputation, record)
    moved = 0.0
    for id in outcome.ids:
        (other,) = claims.evaluate(check.recomputation, {**record, id: record[id] + rounding[id]})
        moved += abs(other.value - outcome.value)
    return rounding[check.stored] + moved + check.slack + 1e-12


def audit(values: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Run every check.

    Parameters
    ----------
    values
        Values by id in place of the released ones, to see what a change would do.

    Returns
    -------
    pandas.DataFrame
        Columns family, stored (id), value, recomputed, difference, tolerance, agrees, ids (read).
    """
    import pandas as pd

    values = claims.record() if values is None else values
    rows = []
    for check in checks():
        (outcome,) = claims.evaluate(check.recomputation, values)
        difference, allowed = outcome.value - values[check.stored], tolerance(check)
        rows.append(
            {
                "family": check.family,
                "stored": check.stored,
                "value": values[check.stored],
                "recomputed": outcome.value,
                "difference": difference,
                "tolerance": allowed,
                "agrees": abs(difference) <= allowed,
                "ids": outcome.ids,
            }
        )
    return pd.DataFrame(rows)
