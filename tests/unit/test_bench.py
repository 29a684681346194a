"""The bench: turns, spreads and bars, what is timed, the table, and the file."""

import json
import os
from dataclasses import replace

import decoders
import numpy as np
import pytest
import torch

from kalavai_helpers import (
    __main__,
    bench,
    bench_fused,
    bench_models,
    bench_results,
    bench_routers,
    timing,
)
from kalavai_helpers.ledger import Ledger
from kalavai_helpers.trunk_router import TrunkRouter

SMALL = replace(
    bench.QUICK, experts=(2, 4), every_epsilon=(4,), epsilons=(0.01, 0.3), repeats=1, new_tokens=2
)


def test_calls_take_turns_and_each_is_sometimes_first():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    found = timing.interleaved(calls, repeats=3, warmup=1)
    turns = [order[i : i + 3] for i in range(0, len(order), 3)]
    assert len(turns) == 4
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert {turn[0] for turn in turns} == {"a", "b", "c"}
    assert all(len(t.seconds) == 3 and min(t.seconds) > 0 for t in found.values())


def test_a_slow_turn_cancels_in_the_ratio_and_warming_up_does_not_count():
    slow = iter([50, 50, 1, 1, 7, 7, 2, 2])

    def seconds(factor):
        return lambda: factor * next(slow)

    found = timing.in_turns({"two": seconds(2.0), "one": seconds(1.0)}, repeats=3)
    assert found["one"].seconds == (1, 7, 2)
    assert found["two"].over(found["one"]) == timing.Spread(2, 2, 2)
    assert found["one"].spread == timing.Spread(2, 1.5, 4.5)
    assert (found["one"] + found["two"]).seconds == (3, 21, 6)


@pytest.mark.parametrize(("sign", "met"), [("≤", False), ("≥", True)])
def test_a_row_says_whether_its_bar_is_met(sign, met):
    row = timing.Measurement("p", "w", timing.Spread(2.0, 1.0, 3.0), bar=timing.Bar(sign, 1.5))
    assert json.loads(json.dumps(row.as_json()))["bar"] == {"sign": sign, "value": 1.5, "met": met}
    assert bench.line(row).endswith("met" if met else "missed")


class Tokenizer:
    """Knows nothing but the end of a text."""

    def token_to_id(self, _):
        return 0


@pytest.fixture
def text():
    """Documents whose tokens tell their domain by the remainder of a division by three."""
    made = bench_models.Text(Tokenizer())
    streams = {d: [3 + i + 3 * (t % 19) for t in range(900)] for i, d in enumerate(DOMAINS)}
    made.__dict__["_streams"] = streams
    return made


DOMAINS = bench_models.DOMAINS


def test_documents_start_with_the_end_token_and_switch_in_the_middle(text):
    one = text.one_domain(DOMAINS, 6, 40)
    assert one.shape == (6, 40)
    assert (one[:, 0] == 0).all()
    assert (one[:, 1:] % 3 == (torch.arange(6) % 3)[:, None]).all()
    both = text.switching(DOMAINS, 6, 40)
    assert both.shape == (6, 40)
    first, second = both[:, 1:20] % 3, both[:, 20:] % 3
    assert (first == first[:, :1]).all()
    assert (second == second[:, :1]).all()
    pairs = {(int(a), int(b)) for a, b in zip(first[:, 0], second[:, 0], strict=True)}
    assert len(pairs) == 6
    assert all(a != b for a, b in pairs)


@pytest.fixture
def subject():
    """A tiny subject whose experts are each best on their own domain's documents."""
    base, specialists = decoders.cooperative()
    domain = torch.arange(12) % 3
    tokens = (3 + domain[:, None] + 3 * torch.arange(40)[None] % 57).flatten()
    document = torch.arange(12).repeat_interleave(40)
    log_probs = torch.full((480, 3), -4.0)
    log_probs[torch.arange(480), domain[document]] = -2.0
    order = domain.argsort(stable=True)
    rows = torch.cat([(document == d).nonzero()[:, 0] for d in order])
    fitting = Ledger(
        models=DOMAINS,
        experts=DOMAINS,
        groups=DOMAINS,
        log_probs=log_probs[rows],
        features=torch.zeros(480, 0),
        document=torch.arange(12).repeat_interleave(40),
        window=torch.arange(12).repeat_interleave(40),
        group=domain[order],
        n_bytes=torch.full((12,), 100),
        role="router",
        source=np.arange(12).astype(str),
    )
    named = dict(zip(DOMAINS, specialists.values(), strict=True))
    states = torch.zeros(480, 16)
    return bench_models.Subject(base, named, 1, True, fitting, states, tokens[rows])


def test_forward_passes_report_ratios_and_keep_the_contract(subject, text, monkeypatch):
    monkeypatch.setattr(bench_fused, "LENGTH", 40)
    rows = list(bench_fused.forward(subject, text, SMALL))
    ratios = [row for row in rows if row.unit == "×"]
    cases = [tuple(row.where[k] for k in ("experts", "epsilon", "documents")) for row in ratios]
    kinds = (bench_fused.ONE, bench_fused.SWITCH)
    wanted = [(2, 0.0, kinds[0]), *((2, 0.01, kind) for kind in kinds)]
    wanted += [(4, 0.0, kinds[0]), *((4, e, kind) for e in (0.01, 0.3) for kind in kinds)]
    assert cases == wanted
    for row in ratios:
        assert row.spread.value > 0
        assert row.also["bound_max"] <= row.where["epsilon"]
        assert row.also["share_asked"] <= row.also["share_read"] + 1e-9
        if not row.where["epsilon"]:
            assert row.also["share_asked"] == 1
            assert row.also["loss_change_pct"] == pytest.approx(0, abs=1e-4)
    told_apart = {tuple(row.where.values()): row.also["share_asked"] for row in ratios}
    assert min(told_apart.values()) < 0.5
    assert [row.unit for row in rows].count("%") == len([r for r in ratios if r.where["epsilon"]])


def test_generation_is_timed_against_one_specialist(subject, text, monkeypatch):
    monkeypatch.setattr(bench_fused, "PROMPT", 8)
    rows = list(bench_fused.generation(subject, text, replace(SMALL, experts=(3,))))
    assert [row.where["epsilon"] for row in rows] == [0.0, 0.01, 0.01]
    for row in rows:
        share = row.also["tokens_per_s"] / row.also["specialist_tokens_per_s"]
        assert share == pytest.approx(row.spread.value)
    assert [row.bar for row in rows] == [None, timing.Bar("≥", 0.7), None]


def test_placeholders_never_lead_and_leave_the_others_as_they_are(subject):
    three, five = subject.router(3), subject.router(5)
    tokens = subject.tokens[None, :40]
    features = torch.zeros(1, 40, 16)
    few, _ = three.resume(features, None, {}, tokens=tokens)
    many, _ = five.resume(features, None, {}, tokens=tokens)
    assert (many[..., 3:] < many[..., :2]).all()
    torch.testing.assert_close(many[0, -1, :3], few[0, -1], atol=1e-4, rtol=0)
    assert isinstance(five, TrunkRouter)


def test_router_fits_are_compared_with_the_published_loop_on_held_out_text(tiny):
    plan = replace(SMALL, router_steps=2, router_repeats=1, repeats=1)
    rows = list(bench_routers.fits(tiny, plan))
    names = {bench_routers.EVIDENCE, "linear, L-BFGS", "linear, EM", "trunk"}
    assert {row.where["router"] for row in rows} == names
    losses = {row.where["router"]: row for row in rows if row.unit == "nats"}
    ratios = [row for row in rows if row.unit == "×"]
    assert all(row.also["deterministic"] for row in ratios)
    # Bars are for one fit: the fastest that loses nothing, or else the one that loses least.
    judged = {row.where["router"] for row in rows if row.bar}
    assert len(judged) == 1
    least = min(row.spread.value for row in losses.values())
    assert losses[judged.pop()].spread.value <= max(0, least)
    counted = {row.where["router"]: row for row in ratios if row.where["ledger_counted"]}
    for row in ratios:
        assert row.spread.value >= counted[row.where["router"]].spread.value > 0
    (total, alone) = bench_routers.joining(tiny, plan)
    assert 0 < alone.spread.value < total.spread.value


@pytest.mark.parametrize("quick", [True, False])
def test_the_command_prints_one_line_a_measurement_and_writes_the_machine_too(
    quick, monkeypatch, tmp_path, capsys
):
    spread = timing.Spread(1.2, 1.1, 1.3)
    rows = [
        timing.Measurement("forward", "one", spread, bar=timing.Bar("≤", 1.35)),
        timing.Measurement("join", "two", spread, "s", timing.Bar("≤", 1.0)),
        timing.Measurement("length", "three", spread, where={"tokens": 128}),
    ]
    quiet = []

    def measurements(tier, plan, source):
        assert source == "builtin"
        quiet.append(os.environ["KALAVAI_PROGRESS"])
        assert (tier.base_steps < 100) == quick
        assert plan == (bench.QUICK if quick else bench.FULL)
        yield from rows

    monkeypatch.setattr(bench, "measurements", measurements)
    monkeypatch.setattr(bench.artifacts, "project_root", lambda: tmp_path)
    monkeypatch.setattr(bench.artifacts, "data", lambda: tmp_path / "data")
    monkeypatch.delenv("KALAVAI_PROGRESS", raising=False)
    assert __main__.main(["bench", *(["--quick"] if quick else [])]) == 0
    assert quiet
    assert "KALAVAI_PROGRESS" not in os.environ
    printed = capsys.readouterr().out
    assert [sum(row.what in text for text in printed.splitlines()) for row in rows] == [1, 1, 1]
    # A quick run cannot pass for a measured one: no bar, and another folder.
    assert ("1 of 2 bars met" in printed) == (not quick)
    place = tmp_path / ("_build/bench" if quick else "data/recorded/bench")
    (path,) = place.glob("*.json")
    assert len(list(tmp_path.rglob("*.json"))) == 1
    kept = json.loads(path.read_text("utf-8"))
    assert [row["what"] for row in kept["measurements"]] == ["one", "two", "three"]
    assert kept["quick"] is quick
    assert {"processor", "cores", "threads"} <= set(kept["machine"])
    assert {"torch", "transformers"} <= set(kept["environment"])
    assert kept["date"]
    assert "placeholders" in kept["note"]


def test_recorded_measurements_become_tables_of_the_smaller_model_and_of_bars():
    spread, also = timing.Spread(1.2, 1.1, 1.3), {"share_read": 0.5, "bound_max": 0.01}
    rows = [
        timing.Measurement(
            "forward",
            f"width {width}",
            spread,
            unit,
            timing.Bar("≤", 1.35) if width == 160 else None,
            {"width": width, "experts": 3, "epsilon": 0.01, "documents": "one domain"},
            also | {"loss_change_pct": 0.02},
        )
        for width, unit in ((160, "×"), (320, "×"), (160, "%"))
    ]
    run = {"measurements": [row.as_json() for row in rows]}
    (row,) = bench_results.forward(run).to_dict("records")
    assert (row["experts"], row["ratio"], row["share_read"]) == (3, 1.2, 0.5)
    bars = bench_results.bars(run)
    assert list(bars["reached"]) == ["yes", "yes"]
    assert list(bars["to reach"]) == ["≤ 1.35"] * 2


def test_lines_are_one_a_condition_along_what_was_varied():
    ours = {"width": 160, "layers": 6, "frozen": 3, "documents": "one domain"}
    varied = [(20, 0.01, 2.0), (3, 0.01, 1.3), (3, 0.0, 2.3)]
    rows = [
        timing.Measurement(
            "generation",
            "",
            timing.Spread(ratio, ratio - 0.1, ratio + 0.1),
            where={**ours, "experts": n, "epsilon": epsilon},
        )
        for n, epsilon, ratio in varied
    ]
    rows.append(replace(rows[0], where={**rows[0].where, "width": 320}))
    found = bench_results.lines(
        {"measurements": [row.as_json() for row in rows]}, "generation", "experts"
    )
    lines = {line["name"]: line for line in found}
    assert set(lines) == {"dense", "ε = 0.01, one domain"}
    assert lines["ε = 0.01, one domain"]["x"] == [3, 20]
    assert lines["ε = 0.01, one domain"]["y"] == [1.3, 2.0]
    assert lines["dense"]["low"] == pytest.approx([2.2])
