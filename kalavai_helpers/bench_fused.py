"""What a fused model costs: forward passes, generation and length, against one specialist."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from .bench_models import LENGTH, Subject, Text
from .timing import Bar, Measurement, Spread, Timing, interleaved

if TYPE_CHECKING:
    from .bench import Plan
    from .fusion import FusedForCausalLM

ONE, SWITCH = "one domain", "switching"
DENSE, CONTRACT = 0.0, 0.01
PROMPT = 128


@torch.no_grad()
def forward(subject: Subject, text: Text, plan: Plan) -> Iterator[Measurement]:
    """Time of a forward pass over documents of 512 tokens, as a multiple of one specialist's."""
    for n in plan.experts:
        model = subject.fused(n)
        texts = _texts(text, subject.domains(n), plan.rows, LENGTH)
        epsilons = plan.epsilons if n in plan.every_epsilon else (CONTRACT,)
        cases = [(DENSE, ONE), *((e, kind) for e in epsilons for kind in texts)]
        calls: dict[Any, Any] = {
            case: partial(model, texts[case[1]], epsilon=case[0]) for case in cases
        }
        calls["one"] = partial(subject.single, texts[ONE])
        calls["log"] = partial(_log_probs, subject.single, texts[ONE])
        found = interleaved(calls, plan.repeats)
        many = _texts(text, subject.domains(n), plan.documents, LENGTH)
        # Random weights have no loss worth knowing.
        kinds = many if subject.trained else ()
        dense = {kind: _behaviour(model, many[kind], DENSE, plan.rows)[1] for kind in kinds}
        for epsilon, kind in cases:
            where = {**subject.size, "experts": n, "epsilon": epsilon, "documents": kind}
            where |= {"batch": plan.rows}
            label = f"{subject.label}, N = {n}, {_epsilon(epsilon)}, {kind}"
            also, losses = _behaviour(model, many[kind], epsilon, plan.rows)
            change = _change(losses, dense[kind]) if subject.trained else None
            also |= {} if change is None else {"loss_change_pct": change.value}
            also |= {"seconds": found[epsilon, kind].spread.value}
            also |= {"specialist_seconds": found["one"].spread.value}
            # The fused model says log-probabilities; a specialist, by itself, logits.
            also |= {"ratio_to_log_probs": found[epsilon, kind].over(found["log"]).value}
            if not epsilon:
                also |= {"floor": floor(subject, n, LENGTH)}
            ratio = found[epsilon, kind].over(found["one"])
            bar = _forward_bar(n, epsilon, kind)
            yield Measurement("forward", label, ratio, bar=bar, where=where, also=also)
            if change and epsilon:
                told = Bar("≤", 0.1) if (n, epsilon, kind) == (3, CONTRACT, ONE) else None
                what = f"loss above dense, {label}"
                yield Measurement("forward", what, change, "%", told, where)


@torch.no_grad()
def generation(subject: Subject, text: Text, plan: Plan) -> Iterator[Measurement]:
    """Tokens a second of greedy generation with a cache, as a share of one specialist's."""
    for n in plan.experts:
        model = subject.fused(n)
        prompts = _texts(text, subject.domains(n), 1, PROMPT)
        cases = [(DENSE, ONE), *((CONTRACT, kind) for kind in prompts)]
        calls: dict[Any, Any] = {
            (e, kind): partial(_generate, model, prompts[kind], plan.new_tokens, epsilon=e)
            for e, kind in cases
        }
        calls["one"] = partial(_generate, subject.single, prompts[ONE], plan.new_tokens)
        found = interleaved(calls, plan.repeats)
        for epsilon, kind in cases:
            where = {**subject.size, "experts": n, "epsilon": epsilon, "documents": kind}
            also = {
                "tokens_per_s": plan.new_tokens / found[epsilon, kind].spread.value,
                "specialist_tokens_per_s": plan.new_tokens / found["one"].spread.value,
                "prompt_tokens": PROMPT,
                "new_tokens": plan.new_tokens,
            }
            yield Measurement(
                "generation",
                f"{subject.label}, N = {n}, {_epsilon(epsilon)}, {kind}",
                found["one"].over(found[epsilon, kind]),
                bar=Bar("≥", 0.7) if (n, epsilon, kind) == (3, CONTRACT, ONE) else None,
                where=where,
                also=also,
            )


@torch.no_grad()
def lengths(subject: Subject, text: Text, plan: Plan) -> Iterator[Measurement]:
    """How the cost of three experts grows with the length of documents, and with few of them."""
    model = subject.fused(3)
    for rows, length in [*((plan.rows, length) for length in plan.lengths), (1, LENGTH)]:
        texts = _texts(text, subject.domains(3), rows, length)
        calls: dict[Any, Any] = {
            (e, ONE): partial(model, texts[ONE], epsilon=e) for e in (DENSE, CONTRACT)
        }
        calls["one"] = partial(subject.single, texts[ONE])
        found: dict[Any, Timing] = interleaved(calls, plan.repeats)
        for epsilon in (DENSE, CONTRACT):
            timing = found[epsilon, ONE]
            where = {**subject.size, "experts": 3, "epsilon": epsilon, "tokens": length}
            where |= {"batch": rows}
            label = f"{subject.label}, N = 3, {_epsilon(epsilon)}, {rows} × {length} tokens"
            also = {
                "tokens_per_s": rows * length / timing.spread.value,
                "specialist_tokens_per_s": rows * length / found["one"].spread.value,
            }
            ratio = timing.over(found["one"])
            yield Measurement("length", label, ratio, where=where, also=also)


def floor(subject: Subject, n_experts: int, length: int) -> float:
    """Multiplications of trunk and all branches, against one specialist's, mixing left out."""
    config = subject.base.config
    width, layers, frozen = config.hidden_size, config.num_hidden_layers, subject.frozen_layers
    # Projections and MLP of a block; scores and sums over half of the positions, on average.
    block = 4 * width**2 + 2 * width * config.intermediate_size + length * width
    own = (layers - frozen) * block + width * config.vocab_size
    return (frozen * block + n_experts * own) / (frozen * block + own)


def _texts(text: Text, domains: tuple[str, ...], rows: int, length: int) -> dict[str, torch.Tensor]:
    return {
        ONE: text.one_domain(domains, rows, length),
        SWITCH: text.switching(domains, rows, length),
    }


def _forward_bar(n: int, epsilon: float, kind: str) -> Bar | None:
    bars = {(3, DENSE, ONE): 2.1, (3, CONTRACT, ONE): 1.35, (20, CONTRACT, ONE): 2.0}
    value = bars.get((n, epsilon, kind))
    return None if value is None else Bar("≤", value)


def _epsilon(epsilon: float) -> str:
    return f"ε = {epsilon}" if epsilon else "dense"


def _behaviour(
    model: FusedForCausalLM, ids: torch.Tensor, epsilon: float, rows: int
) -> tuple[dict[str, float], torch.Tensor]:
    """Experts run and bounds realised, and the mean loss of each document."""
    ran, bound, read, losses = [], [], 0, []
    for batch in ids.split(rows):
        output = model(batch, epsilon=epsilon)
        ran.append(output.ran)
        bound.append(output.bound)
        read += int(output.branch_tokens.sum())
        losses.append(_losses(output.logits, batch))
    asked, bounds = torch.cat(ran), torch.cat(bound)
    return {
        "share_asked": float(asked.double().mean()),
        "share_read": read / (ids.numel() * asked.shape[-1]),
        "bound_mean": float(bounds.mean()),
        "bound_max": float(bounds.max()),
        "tokens": ids.numel(),
    }, torch.cat(losses)


def _change(losses: torch.Tensor, dense: torch.Tensor) -> Spread:
    """By how much the loss rises, %: of all documents, which are equally long; their quartiles."""
    each = Spread.of((100 * (losses - dense) / dense).tolist())
    overall = 100 * (losses.mean() - dense.mean()) / dense.mean()
    return Spread(float(overall), each.low, each.high)


def _losses(log_probs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss of each document (B,), nats/token, on the CPU."""
    seen = log_probs[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return -seen.double().mean(1).cpu()


def _log_probs(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits.log_softmax(-1)


def _generate(model: Any, prompt: torch.Tensor, new_tokens: int, **options: Any) -> torch.Tensor:
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        **options,
    )
