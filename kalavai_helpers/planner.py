"""The planner: tick domains, choose a budget, read the predicted gain, its interval and the cost.

Where a cooperative lies too far from the bank of recipes, it says so in place of a number.

One table of forecasts serves both faces: ipywidgets where a kernel runs, and a block of HTML that
a small script of the site (``planner.js``) answers from, without kernel or network.
"""

from __future__ import annotations

import html as escaping
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import bank
from .forecast import Known, Refusal, learn
from .forecast_runs import N_BUDGETS, Run, probe_steps

if TYPE_CHECKING:
    import ipywidgets

FEW = "Choose at least two domains."


@dataclass(frozen=True)
class Plan:
    """Forecasts for every set of two domains or more, at every budget.

    Attributes
    ----------
    domains
        Names, in the order of the bits of a set's number.
    budgets
        One mapping a budget: steps of a full run, of its probe, tokens (of one specialist, probe
        included), seconds (of one specialist on one core of the machine that measured), and of
        the bank that the forecasts were learned from: its number of recipes and the tokens of all
        its runs.
    gains
        One mapping a budget: number of the set → (gain, low, high) in %, 80 % interval, or the
        reason why there is no forecast.
    """

    domains: tuple[str, ...]
    budgets: tuple[dict[str, float], ...]
    gains: tuple[dict[int, tuple[float, float, float] | str], ...]

    def look_up(self, chosen: Sequence[str], budget: int) -> dict[str, float | str]:
        """Return gain, low, high (%), tokens and minutes for domains and a budget's index.

        Too far from the bank, ``refused`` stands for gain, low and high and says why.

        Raises
        ------
        ValueError
            For an unknown domain, or fewer than two.
        """
        unknown = set(chosen) - set(self.domains)
        if unknown or len(set(chosen)) < 2:
            raise ValueError(
                f"Choose two domains or more of {', '.join(self.domains)}, not {list(chosen)}"
            )
        number = sum(1 << self.domains.index(name) for name in set(chosen))
        told = self.gains[budget][number]
        cost, n = self.budgets[budget], len(set(chosen))
        return {
            **(
                {"refused": told}
                if isinstance(told, str)
                else dict(zip(("gain", "low", "high"), told, strict=True))
            ),
            "tokens": n * cost["tokens"],
            "minutes": n * cost["seconds"] / 60,
        }

    def table(self) -> pd.DataFrame:
        """Return one row a set of domains: size, and ``gain (low to high)``, or none, a budget."""
        rows = {}
        for number in sorted(self.gains[0], key=lambda m: (m.bit_count(), m)):
            names = [d for k, d in enumerate(self.domains) if number >> k & 1]
            cells = [_cell(gains[number]) for gains in self.gains]
            rows[" + ".join(names)] = [len(names), *cells]
        titles = ["domains", *(f"{b['steps']:.0f} steps" for b in self.budgets)]
        return pd.DataFrame.from_dict(rows, orient="index", columns=titles)


def make(runs: Sequence[Run], known: dict[int, Known], table: pd.DataFrame) -> Plan:
    """Forecast every set of domains at the budgets of the study.

    The recipes that lend their probes differ in steps alone; each is forecast by what the other
    recipes teach, so the plan never looks up a result.
    """
    domains = runs[0].domains
    sets = [
        kept
        for size in range(2, len(domains) + 1)
        for kept in itertools.combinations(range(len(domains)), size)
    ]
    speed = float(np.median([run.tokens_per_s for run in runs[:N_BUDGETS]]))
    budgets, gains = [], []
    for recipe in range(N_BUDGETS):
        tier = runs[recipe].tier
        others = {r: k for r, k in known.items() if r != recipe}
        forecaster = learn(others, table)
        learned_from = bank.cost([runs[r].tier for r in others], len(others))
        found = {}
        for kept in sets:
            told = forecaster.predict(known[recipe], kept)
            found[sum(1 << k for k in kept)] = (
                told.reason if isinstance(told, Refusal) else (told.value, told.low, told.high)
            )
        probe = probe_steps(tier)
        tokens = (tier.specialist_steps + probe) * tier.batch_size * tier.seq_len
        budgets.append(
            {
                "steps": tier.specialist_steps,
                "probe": probe,
                "tokens": tokens,
                "seconds": tokens / speed,
                "bank_recipes": len(others),
                "bank_tokens": len(domains) * learned_from.bank,
            }
        )
        gains.append(found)
    return Plan(domains, tuple(budgets), tuple(gains))


def _cell(told: tuple[float, float, float] | str) -> str:
    if isinstance(told, str):
        return "no forecast"
    gain, low, high = told
    return f"{gain:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")


def payload(plan: Plan) -> str:
    """Return the plan as JSON for the page's script; safe inside a ``<script>`` element."""
    rounded = [
        {k: v if isinstance(v, str) else [round(x, 2) for x in v] for k, v in gains.items()}
        for gains in plan.gains
    ]
    data = {"domains": plan.domains, "budgets": plan.budgets, "gains": rounded}
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def to_html(plan: Plan, max_rows: int = 300) -> str:
    """Return the control: a form that the script shows and answers, and the table behind it."""
    boxes = "".join(
        f'<label><input type="checkbox" name="domain" value="{k}" checked> '
        f"{escaping.escape(name)}</label>"
        for k, name in enumerate(plan.domains)
    )
    last = len(plan.budgets) - 1
    table = plan.table().head(max_rows).to_html(border=0, classes="kv-table", justify="right")
    return (
        '<div class="kv-planner"><form hidden><fieldset><legend>Domains</legend>'
        f"{boxes}</fieldset>"
        f'<label>Budget: <output name="steps"></output><input type="range" name="budget" min="0" '
        f'max="{last}" value="{last}" step="1"></label>'
        '<div class="kv-reach" aria-hidden="true"><span></span><i></i></div>'
        '<p class="kv-answer" role="status" aria-live="polite"></p></form>'
        f'<script type="application/json">{payload(plan)}</script>'
        "<details><summary>All sets of domains: predicted gain in % with its 80 % interval, or no "
        f'forecast where the bank does not reach</summary><div class="kv-scroll" tabindex="0">{table}</div></details></div>'
    )


def answer(plan: Plan, chosen: Sequence[str], budget: int) -> str:
    """Return the sentence that the planner says."""
    if len(set(chosen)) < 2:
        return FEW
    found, cost = plan.look_up(chosen, budget), plan.budgets[budget]
    if "refused" in found:
        told = f"No forecast: {found['refused']}."
    else:
        interval = f"{found['low']:+.1f} to {found['high']:+.1f}".replace("-", "−")
        gain = f"{found['gain']:+.1f}".replace("-", "−")
        told = f"Predicted gain over the best specialist: {gain} % (80 % interval {interval})."
    return (
        f"{told} Cost: {len(set(chosen))} specialists × {cost['steps']:.0f} steps, "
        f"{found['tokens'] / 1e6:.2f} million tokens, {found['minutes']:.1f} core-minutes; of "
        f"these the probes take {cost['probe']:.0f} steps each, and come first. The bank of "
        f"{cost['bank_recipes']} recipes that taught the forecast was trained in full before "
        f"that, once, for all domains: {cost['bank_tokens'] / 1e6:.2f} million tokens."
    )


def widget(plan: Plan) -> ipywidgets.VBox:
    """Return the planner for JupyterLab: check boxes, a slider and the sentence."""
    import ipywidgets

    boxes = [ipywidgets.Checkbox(True, description=name, indent=False) for name in plan.domains]
    steps = [(f"{b['steps']:.0f} steps", k) for k, b in enumerate(plan.budgets)]
    slider = ipywidgets.SelectionSlider(options=steps, value=len(steps) - 1, description="Budget")
    said = ipywidgets.HTML()

    def update(_: object = None) -> None:
        chosen = [box.description for box in boxes if box.value]
        said.value = escaping.escape(answer(plan, chosen, slider.value))

    for control in (*boxes, slider):
        control.observe(update, "value")
    update()
    return ipywidgets.VBox([ipywidgets.HBox(boxes), slider, said])


def show(plan: Plan) -> None:
    """Show the planner: widgets where a person runs the chapter, the page's control in the book."""
    from IPython.display import HTML, display

    display(HTML(to_html(plan)) if os.environ.get("KALAVAI_BOOK") == "1" else widget(plan))
