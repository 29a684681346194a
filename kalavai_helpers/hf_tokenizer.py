"""A tokenizer in the form that Hugging Face's tools ask for, and beside a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import artifacts
from .packing import END

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {"bos_token": END, "eos_token": END, "pad_token": END}
"""One token begins, ends and pads a text, as in training."""


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as Hugging Face has them; it makes the same tokens.

    Raises
    ------
    ValueError
        If it lacks the end-of-text token: one would be added, which no model has learned.
    """
    from transformers import PreTrainedTokenizerFast

    if tokenizer.token_to_id(END) is None:
        raise ValueError(f"The tokenizer has no {END}: use the one that the model was trained with")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def save(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write it beside a saved model, so that ``AutoTokenizer.from_pretrained(folder)`` works."""
    folder = Path(folder)
    artifacts.write_bytes(folder / "tokenizer.json", tokenizer.to_str().encode())
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL_TOKENS}
    artifacts.write_json(folder / "tokenizer_config.json", described)
