"""Speed and memory of this machine: what a run at tier ``ci`` is made of, timed in one process."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPEATS = 3


def main() -> None:
    """Print one line a measurement: imports, training, scoring, routing, peak memory."""
    for module in ("kalavai_helpers", "torch", "transformers"):
        seconds = _median(
            lambda module=module: subprocess.run(
                [sys.executable, "-c", f"import {module}"], check=True
            )
        )
        print(f"import {module:<22} {seconds:8.2f} s")
    import numpy as np
    import torch

    from kalavai_helpers import ledger, models, packing, routing, tiers, training

    tier = tiers.get("ci")
    rng = np.random.default_rng(0)
    ids = rng.integers(0, tier.vocab_size, (64, tier.seq_len + 1))
    chunks = packing.Chunks(ids.astype(np.int32), np.zeros_like(ids))
    recipe = training.Recipe(25, tier.batch_size, tier.base_lr, seed=0)
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        rates = []
        for _ in range(REPEATS):
            model = models.new_base(tier, tier.vocab_size, seed=0)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.safetensors"
                rates.append(training.train(model, chunks, recipe, path, "bench").tokens_per_s)
        print(f"train, {threads} thread(s) {statistics.median(rates):17,.0f} tokens/s")
    windows = packing.windows_of_ids(ids.tolist(), [None] * len(ids), 0, tier.seq_len)
    seconds = _median(lambda: ledger.score(model, windows, "bench"))
    print(f"score {windows.n_tokens / seconds:28,.0f} tokens/s")
    log_probs = torch.from_numpy(rng.normal(-4, 1, (100, 1000, 3)))
    seconds = _median(lambda: routing.EvidenceRouter()(None, log_probs))
    print(f"evidence routing {log_probs.shape[0] * 1000 / seconds:17,.0f} tokens/s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:22,.0f} MB")


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
