"""What a fused model weighs: its checkpoint, and what a process that loads it holds in memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .timing import Bar, Measurement, Spread

if TYPE_CHECKING:
    from .bench import Plan
    from .bench_models import Subject


def measure(subject: Subject, plan: Plan) -> Iterator[Measurement]:
    """Bytes on disk against one model's, and resident bytes against as many separate models."""
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / "one"
        subject.single.save_pretrained(single)
        for n in plan.experts:
            fused = Path(folder) / f"fused-{n}"
            subject.fused(n).save_pretrained(fused)
            where = {**subject.size, "experts": n}
            label = f"{subject.label}, N = {n}"
            sizes = _bytes(fused), _bytes(single)
            yield Measurement(
                "checkpoint",
                f"{label}, against one model",
                Spread.of([sizes[0] / sizes[1]]),
                bar=Bar("≤", 2.1) if n == 3 else None,
                where=where,
                also={"bytes": sizes[0], "one_model_bytes": sizes[1], "separate": n},
            )
            if n in plan.resident and subject.trained:
                # A fresh process each time; the two in turns, as everything else.
                pairs = [
                    (_resident([fused]), _resident([single] * n)) for _ in range(plan.processes)
                ]
                also = {
                    "bytes": Spread.of(pair[0] for pair in pairs).value,
                    "separate_bytes": Spread.of(pair[1] for pair in pairs).value,
                }
                ratio = Spread.of(one / other for one, other in pairs)
                what = f"{label}, against {n} models"
                yield Measurement("resident", what, ratio, where=where, also=also)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _resident(folders: list[Path]) -> int:
    """Bytes by which a fresh process grows when it loads models."""
    command = [sys.executable, "-m", __name__, *map(str, folders)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def _now() -> int:
    """Resident bytes of this process; the largest so far where the system does not say."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(folders: list[str]) -> None:
    """Print by how many bytes this process grew when it loaded the models, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    from . import fusion  # noqa: F401  so that the library knows a fused model

    tiny = GPTNeoXConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    AutoModelForCausalLM.from_config(tiny)(torch.zeros(1, 2, dtype=torch.long))
    before = _now()
    loaded = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    # Pages of a file count once they are read.
    for model in loaded:
        for parameter in model.parameters():
            parameter.sum()
    print(json.dumps(_now() - before))


if __name__ == "__main__":
    main(sys.argv[1:])
