"""The original evaluation protocol: each of its two faults alone changes what it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kalavai_helpers import evaluation, protocols
from kalavai_helpers.ledger import Ledger
from kalavai_helpers.protocols import Protocol

DOMAINS = ("a", "b", "c")


def ledger_of(base, windows_each=8, window_tokens=5):
    """Two windows a document, `windows_each` a domain; every expert is the base.

    `base[d][w]` is the loss of each token of window w of domain d.
    """
    losses = torch.tensor(base, dtype=torch.float32).flatten().repeat_interleave(window_tokens)
    n_windows = len(DOMAINS) * windows_each
    window = torch.arange(n_windows).repeat_interleave(window_tokens)
    return Ledger(
        models=("base", *DOMAINS),
        experts=DOMAINS,
        groups=DOMAINS,
        log_probs=-losses[:, None].repeat(1, 4),
        features=torch.zeros(len(losses), 1),
        document=window // 2,
        window=window,
        group=torch.arange(3).repeat_interleave(windows_each // 2),
        n_bytes=torch.ones(n_windows // 2, dtype=torch.int64),
        role="heldout",
        source=np.arange(n_windows // 2).astype(str),
    )


FLAT = ledger_of([[1.0] * 8, [2.0] * 8, [4.0] * 8])
FALLING = ledger_of([list(np.linspace(1, 3, 8)) for _ in range(3)])


def loss(found, protocol, fused=False):
    return float(protocols.loss(found, found.column("base"), protocol, fused=fused)(None))


def gain(found, protocol):
    """Gain of a fused model that is no better than the base; every fair protocol gives zero."""
    frame = protocols.improvements(
        found, {"fused": found.column("base")}, protocol, fused=("fused",)
    )
    return frame.vs_best["fused"]


def test_corrected_protocol_is_the_equal_weight_loss():
    assert loss(FLAT, Protocol()) == pytest.approx((1 + 2 + 4) / 3)
    assert loss(FLAT, Protocol()) == pytest.approx(evaluation.losses(FLAT).equal_weight("base"))


def test_the_stream_alone_never_reaches_the_last_domain():
    short = Protocol(n_batches=3, concatenated=True)
    assert loss(FLAT, short) == pytest.approx((1 + 1 + 2) / 3)
    assert short.windows_read(FLAT).loc["single models"].tolist() == [8, 4, 0]
    harder = ledger_of([[1.0] * 8, [2.0] * 8, [9.0] * 8])
    assert loss(harder, short) == loss(FLAT, short)
    assert loss(harder, Protocol()) > loss(FLAT, Protocol())
    assert gain(FLAT, short) == 0  # equal batches: nobody is favoured


def test_unequal_batches_alone_favour_a_fused_model_that_is_no_better():
    assert gain(FALLING, Protocol(fused_batch=2, n_batches=2)) > 5
    assert gain(FALLING, Protocol(n_batches=2)) == 0
    read = Protocol(fused_batch=2, n_batches=2).windows_read(FALLING)
    assert read.loc["single models"].tolist() == [8, 8, 8]
    assert read.loc["fused model"].tolist() == [4, 4, 4]


def test_unequal_batches_are_harmless_where_everything_is_read():
    assert gain(FALLING, Protocol(fused_batch=2)) == pytest.approx(0)


def test_both_faults_together_let_the_fused_model_read_another_domain_only():
    both = Protocol(fused_batch=2, n_batches=4, concatenated=True)
    assert both.windows_read(FLAT).loc["fused model"].tolist() == [8, 0, 0]
    assert gain(FLAT, both) == pytest.approx(100 * (1.5 - 1) / 1.5)


def test_original_batches_reach_as_far_as_the_published_ones():
    n = protocols.original_batches(FLAT)
    assert n == round(200 / 158 * 8 / 4)
    read = Protocol(n_batches=n, concatenated=True).windows_read(FLAT).loc["single models"]
    assert read["a"] == 8
    assert read["c"] == 0


def test_improvement_changes_sign_when_the_base_is_read_on_easier_text():
    better = {"model": FLAT.column("base") * 0.9}
    fair = protocols.improvements(FLAT, better, Protocol())
    easy = protocols.improvements(FLAT, better, Protocol(), reference=Protocol(domains=("a",)))
    assert fair.vs_base["model"] == pytest.approx(10)
    assert easy.vs_base["model"] == pytest.approx(100 * (1 - 0.9 * 7 / 3))
    assert easy.loss["model"] == fair.loss["model"]


def test_the_order_of_the_stream_is_the_reader_s():
    last_first = Protocol(n_batches=2, concatenated=True, domains=("c", "a"))
    assert loss(FLAT, last_first) == pytest.approx(4)


def test_a_batch_counts_as_one_whatever_its_tokens():
    found = ledger_of([[1.0] * 8, [2.0] * 8, [4.0] * 8])
    keep = ~((found.window == 0) & (torch.arange(len(found)) % 5 > 0))  # window 0 keeps one token
    ragged = Ledger(
        **{
            **vars(found),
            "log_probs": found.log_probs[keep]
            * torch.where(found.window[keep] == 0, 3, 1)[:, None],
            "features": found.features[keep],
            "document": found.document[keep],
            "window": found.window[keep],
        }
    )
    first = (3 + 3 * 5) / 16  # one token of loss 3 and three windows of loss 1
    assert loss(ragged, Protocol(domains=("a",))) == pytest.approx((first + 1) / 2)


def test_a_last_batch_that_is_not_full_is_dropped_unless_it_is_the_only_one():
    assert Protocol(single_batch=3).windows_read(FLAT).loc["single models"].tolist() == [6, 6, 6]
    assert Protocol(single_batch=99).windows_read(FLAT).loc["single models"].tolist() == [8, 8, 8]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(
        lambda w: all(sum(w[i : i + 4]) for i in (0, 4, 8))
    )
)
def test_resampling_documents_keeps_a_loss_within_what_was_read(weights):
    found = float(protocols.loss(FALLING, FALLING.column("base"), Protocol())(np.array(weights)))
    assert 1 - 1e-6 <= found <= 3 + 1e-6


def test_an_interval_of_a_protocol_draws_whole_sources():
    """Documents of a source that gain alike are one draw, not two."""
    source = np.arange(12) // 2
    better = torch.from_numpy(np.linspace(0, 0.5, 6)[source])[FLAT.document]

    def improvement(found):
        base = found.column("base").double()
        read = (protocols.loss(found, column, Protocol()) for column in (base, base + better))
        return protocols.improvement_pct(found, *read)

    alone, shared = improvement(FLAT), improvement(replace(FLAT, source=source))
    assert (alone.over, alone.units, shared.over, shared.units) == ("documents", 12, "sources", 6)
    assert shared.value == alone.value
    assert shared.high - shared.low > 1.2 * (alone.high - alone.low)


def test_a_resample_that_leaves_nothing_to_read_is_not_a_perfect_model():
    """One window of one document is the whole stream: a third of all resamples miss it."""
    head = Protocol(single_batch=1, n_batches=1, domains=("a",))
    found = protocols.improvement_pct(
        FALLING,
        protocols.loss(FALLING, FALLING.column("base"), head),
        protocols.loss(FALLING, FALLING.column("base"), head),
    )
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    nobody = protocols.loss(FALLING, FALLING.column("base"), head)(np.zeros(FALLING.n_documents))
    assert np.isnan(nobody)
