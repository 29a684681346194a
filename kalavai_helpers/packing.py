"""Tokens: byte-level BPE, packed training chunks and evaluation windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .corpora import CorpusError, Document, role_of

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

END = "<|endoftext|>"
IGNORE = -100


def train_tokenizer(documents: list[Document], vocab_size: int) -> Tokenizer:
    """Byte-level BPE on the base mix; every text can be encoded, none is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    return tokenizer


@dataclass(frozen=True)
class Chunks:
    """Packed training text: ``input_ids`` and ``document`` are (n, T + 1) integer arrays.

    ``document`` gives the index of the document each token comes from, so that boundaries are
    kept; a document ends with the end-of-text token. ``role`` is that of all documents.
    """

    input_ids: np.ndarray
    document: np.ndarray
    role: str

    def __len__(self) -> int:
        return len(self.input_ids)


def pack(documents: list[Document], tokenizer: Tokenizer, seq_len: int) -> Chunks:
    """Pack documents into chunks of ``seq_len`` + 1 tokens, remainder dropped.

    Documents come in the order of their hash, so that a chunk mixes sources.
    """
    documents = sorted(documents, key=lambda document: document.id)
    end = tokenizer.token_to_id(END)
    ids, owner = [], []
    encoded = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
    for index, encoding in enumerate(encoded):
        ids.append(np.array([*encoding.ids, end], dtype=np.int32))
        owner.append(np.full(len(encoding.ids) + 1, index, dtype=np.int32))
    width = seq_len + 1
    flat, who = np.concatenate(ids), np.concatenate(owner)
    n = len(flat) // width
    if n == 0:
        raise CorpusError(
            f"{len(flat)} tokens of {documents[0].domain!r} do not fill one chunk of {width}: "
            "give more text or a shorter seq_len"
        )
    chunks = (array[: n * width].reshape(n, width) for array in (flat, who))
    return Chunks(*chunks, role_of(documents))


@dataclass(frozen=True)
class Windows:
    """Evaluation text: every token of every document predicted exactly once.

    ``input_ids`` and ``targets`` are (n, T); ``targets`` is -100 behind a document's end.
    ``document`` (n,) tells whose window it is; a document's windows follow each other.
    """

    input_ids: np.ndarray
    targets: np.ndarray
    document: np.ndarray
    documents: tuple[Document, ...]

    @property
    def n_tokens(self) -> int:
        """Number of predicted tokens."""
        return int((self.targets != IGNORE).sum())

    @property
    def role(self) -> str:
        """The one role of the documents (see :func:`corpora.role_of`)."""
        return role_of(self.documents)


def windows(documents: list[Document], tokenizer: Tokenizer, seq_len: int) -> Windows:
    """Cut each document, apart from all others, into windows of ``seq_len`` tokens.

    A window starts with the last token of the one before (the end-of-text token for the first).
    """
    texts = [document.text for document in documents]
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    ids = [encoding.ids for encoding in encoded]
    return windows_of_ids(ids, documents, tokenizer.token_to_id(END), seq_len)


def windows_of_ids(
    ids: list[list[int]], documents: list[Document], end: int, seq_len: int
) -> Windows:
    """Windows of already tokenised documents (see :func:`windows`)."""
    inputs, targets, owner = [], [], []
    for index, tokens in enumerate(ids):
        stream = np.array([end, *tokens], dtype=np.int64)
        for start in range(0, len(stream) - 1, seq_len):
            piece = stream[start : start + seq_len + 1]
            row = np.full(seq_len, end, dtype=np.int64)
            target = np.full(seq_len, IGNORE, dtype=np.int64)
            row[: len(piece) - 1], target[: len(piece) - 1] = piece[:-1], piece[1:]
            inputs.append(row)
            targets.append(target)
            owner.append(index)
    return Windows(np.array(inputs), np.array(targets), np.array(owner), tuple(documents))


def openings(
    documents: list[Document], tokenizer: Tokenizer, seq_len: int, n: int
) -> list[Document]:
    """The first n documents that fill a window, each cut to the text that the window scores.

    Shorter documents come last, and only where too few fill one.
    """
    long, short = [], []
    for document in documents:
        if len(long) == n:
            break
        encoding = tokenizer.encode(document.text, add_special_tokens=False)
        if len(encoding.ids) < seq_len:
            short.append(document)
        else:
            long.append(replace(document, text=_cut(document.text, encoding, tokenizer, seq_len)))
    return (long + short)[:n]


def _cut(text: str, encoding: Encoding, tokenizer: Tokenizer, most: int) -> str:
    """The longest beginning of a text that is at most so many tokens, by itself and in the text.

    A character of several bytes may be several tokens; it is not cut in two.
    """
    cuts = (text[:end] for _, end in reversed(encoding.offsets[:most]))
    return next(
        cut for cut in cuts if len(tokenizer.encode(cut, add_special_tokens=False).ids) <= most
    )


def concatenate(parts: list[Windows]) -> Windows:
    """Windows of several domains as one, documents renumbered."""
    offsets = np.cumsum([0, *(len(part.documents) for part in parts)])
    return Windows(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([p.document + offset for p, offset in zip(parts, offsets, strict=False)]),
        tuple(document for part in parts for document in part.documents),
    )
