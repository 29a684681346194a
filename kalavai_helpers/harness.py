"""The EleutherAI evaluation harness (lm-eval) on our models, with small tasks of our own text.

A fused model is a Hugging Face model, and the harness scores the object as it is; here are tasks
that need no network, and one call. ``python -m kalavai_helpers.harness`` scores a saved folder.
The harness comes with the extra ``eval`` and is not imported before it is used.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .corpora import Document

Task = str | dict[str, Any]
"""A task of the harness by its name, or one of ours."""

N_CHOICES = 4
_BEGINNING, _CONTINUATION = 240, 120  # characters


def language_model(
    model: PreTrainedModel,
    tokenizer: Tokenizer | PreTrainedTokenizerFast,
    *,
    batch_size: int = 8,
    max_length: int | None = None,
) -> HFLM:
    """A model in the form that the harness evaluates; the model itself, not a copy.

    Parameters
    ----------
    max_length
        Most tokens read at once; by default as many as the model was made for.

    Raises
    ------
    ValueError
        For a fused model whose router is not causal: it reads the tokens that it is to predict.
    ModuleNotFoundError
        If the harness is not installed.
    """
    from tokenizers import Tokenizer

    from . import hf_tokenizer

    router = getattr(model, "router", None)
    if router is not None and not router.causal:
        raise ValueError(
            f"The {router.name} router reads the tokens it is to predict, and the padding of other "
            "texts: no likelihood of it is one. Fuse with 'evidence', 'linear' or 'uniform'"
        )
    if isinstance(tokenizer, Tokenizer):
        tokenizer = hf_tokenizer.wrap(tokenizer)
    with _quiet():
        return _harness().models.huggingface.HFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length
        )


def evaluate(
    model: PreTrainedModel,
    tokenizer: Tokenizer | PreTrainedTokenizerFast,
    tasks: Sequence[Task],
    *,
    batch_size: int = 8,
    max_length: int | None = None,
    limit: int | None = None,
) -> dict[str, dict[str, float]]:
    """Scores of a model, by task and metric.

    Parameters
    ----------
    tasks
        Tasks of ours (:func:`perplexity`, :func:`completion`), or names of the harness's own,
        whose text comes from the Hugging Face Hub.
    limit
        Only so many documents a task.

    Raises
    ------
    ValueError
        For an unknown task, or a model that :func:`language_model` refuses.
    """
    harness = _harness()
    judged = language_model(model, tokenizer, batch_size=batch_size, max_length=max_length)
    with _quiet():
        # Reading the index of its thousands of tasks takes the harness seconds.
        named = any(isinstance(task, str) for task in tasks)
        manager = harness.tasks.TaskManager(include_defaults=named)
        try:
            loaded = manager.load(list(tasks))
        except KeyError as error:
            raise ValueError(f"{error.args[0]}: lm-eval ls tasks lists them") from error
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
        found = harness.evaluator.evaluate(
            judged, loaded, limit=limit, bootstrap_iters=0, log_samples=False
        )
    return {
        task: {
            name.partition(",")[0]: float(value)
            for name, value in scores.items()
            if isinstance(value, int | float) and name != "sample_len"
        }
        for task, scores in found["results"].items()
    }


def perplexity(name: str, documents: Sequence[Document]) -> Task:
    """A task: bits per byte of whole documents, each apart."""
    return {
        "task": name,
        "output_type": "loglikelihood_rolling",
        "metric_list": [_metric("bits_per_byte", "bits_per_byte", higher_is_better=False)],
        "doc_to_text": "",
        "doc_to_target": "text",
        **_dataset([{"text": document.text} for document in documents]),
    }


def completion(name: str, documents: Sequence[Document]) -> Task:
    """A task: which of four continuations belongs to the beginning of a document.

    The wrong ones belong to other documents, of all domains given. Some texts are likely whatever
    they follow, so that ``acc_mutual_info``, which weighs how much likelier a continuation is made
    by the beginning, tells more than ``acc``.

    Raises
    ------
    ValueError
        If fewer than two documents are long enough to be cut.
    """
    halves = [halved for document in documents if (halved := _halves(document.text))]
    if len(halves) < 2:
        raise ValueError(
            f"{len(halves)} of {len(documents)} documents have {_BEGINNING + _CONTINUATION} "
            "characters, and a choice needs two: give longer documents"
        )
    n_choices = min(N_CHOICES, len(halves))
    step = max(1, len(halves) // n_choices)
    rows = []
    for index, (beginning, _) in enumerate(halves):
        others = [halves[(index + i * step) % len(halves)][1] for i in range(n_choices)]
        gold = index % n_choices
        rows.append(
            {"beginning": beginning, "choices": others[-gold:] + others[:-gold], "gold": gold}
        )
    return {
        "task": name,
        "output_type": "multiple_choice",
        "metric_list": [_metric("acc", "mean"), _metric("acc_mutual_info", "mean")],
        "doc_to_text": "beginning",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        **_dataset(rows),
    }


def local_tasks(spec: str, domains: Sequence[str], *, per_domain: int = 8) -> list[Task]:
    """Tasks on the held-out documents of a text source: perplexity by domain, and completion of all.

    Parameters
    ----------
    spec
        A text source (see :mod:`kalavai_helpers.corpora`); ``builtin`` needs no network.
    """
    from . import corpora

    chosen = {name: corpora.split(spec, name)["heldout"][:per_domain] for name in domains}
    tasks = [perplexity(f"perplexity_{name}", documents) for name, documents in chosen.items()]
    everything = [document for documents in chosen.values() for document in documents]
    corpora.require_role(corpora.role_of(everything), "heldout", "A task of the harness")
    return [*tasks, completion("completion", everything)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the scores of a saved model, one line a task and metric; returns the exit status."""
    from . import recorded

    parser = argparse.ArgumentParser(prog="kalavai_helpers.harness", description=main.__doc__)
    kept = recorded.folder("laptop") / "fused"
    parser.add_argument("folder", nargs="?", default=str(kept), help="default: the recorded one")
    parser.add_argument("--tasks", nargs="+", help="of the harness's own; default: on --corpora")
    parser.add_argument("--corpora", default="builtin", help="text of the local tasks")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--limit", type=int, help="only so many documents a task")
    options = parser.parse_args(arguments)
    try:
        scores = _evaluate_folder(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for task, metrics in scores.items():
        for metric, value in metrics.items():
            print(f"{task:24} {metric:16} {value:.4f}")
    return 0


def _evaluate_folder(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    _harness()  # before anything that takes time
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from . import corpora, fusion  # noqa: F401 - makes the fused model known to Auto classes

    if not Path(options.folder).is_dir():
        raise FileNotFoundError(f"{options.folder} is not a folder: give that of a saved model")
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    tokenizer = AutoTokenizer.from_pretrained(options.folder)
    tasks = options.tasks
    if tasks is None:
        wanted = tuple(getattr(model.config, "experts", corpora.MAIN_DOMAINS))
        tasks = local_tasks(options.corpora, corpora.choose(options.corpora, wanted))
    size = options.batch_size
    return evaluate(model, tokenizer, tasks, batch_size=size, limit=options.limit)


def _halves(text: str) -> tuple[str, str] | None:
    """Beginning and continuation of a text, cut at white space, where it is long enough."""
    if len(text.strip()) < _BEGINNING + _CONTINUATION:
        return None
    text = text.strip()
    beginning = text[:_BEGINNING].rsplit(None, 1)[0]
    return beginning, text[len(beginning) :][:_CONTINUATION].rsplit(None, 1)[0]


def _metric(name: str, aggregation: str, *, higher_is_better: bool = True) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher_is_better}


def _dataset(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset

    data = {"test": Dataset.from_list(rows)}
    return {"custom_dataset": lambda **_: data, "test_split": "test"}


def _harness() -> Any:
    try:
        import lm_eval.evaluator
        import lm_eval.models.huggingface
        import lm_eval.tasks
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, and evaluation with lm-eval needs it: make evaluate "
            "brings it into an environment beside the book's, pip install 'kalavai-helpers[eval]' "
            "into another",
            name=error.name,
        ) from error
    return lm_eval


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's warnings that a model object and a data set were given: both are."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
