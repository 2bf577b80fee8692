"""Tokenises texts, truncated to `max_length` or split into windows of that length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .word_pieces import WordPieces

# Upper bound on characters per token in ordinary text. Of a longer text, the start is tokenised first and usually suffices.
_CHARS_PER_TOKEN = 64


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """
    Texts as token ids with special tokens, in windows of at most `max_length` tokens.

    Args:
        token_ids (`list[list[int]]`): W windows in text order; one per text with truncation.
        text_of (`np.ndarray` of shape `(W,)`): the text that each window belongs to.
        is_first (`np.ndarray` of shape `(W,)`, bool): whether the window is the first of its text.
        truncated (`np.ndarray` of shape `(N,)`, bool): whether the text was truncated.
    """

    token_ids: list[list[int]]
    text_of: np.ndarray
    is_first: np.ndarray
    truncated: np.ndarray

    def finished(self, windows: list[int]) -> np.ndarray:
        """Return the texts whose first window is among these windows."""
        picked = np.asarray(windows, dtype=np.int64)
        return self.text_of[picked[self.is_first[picked]]]

    def merge(self, vectors: np.ndarray, forms: np.ndarray, pooling: str) -> tuple[np.ndarray, np.ndarray]:
        """
        Merge the vectors of each text's windows: maxima and means over tokens cover all windows; the first-token vector is
        that of the first window.

        Args:
            vectors, forms (`np.ndarray` of shape `(W, H)`): text vectors and token maxima of the windows.
            pooling (`str`): how token vectors are pooled, as in [`ScarConfig`].

        Returns:
            `tuple(np.ndarray)`: text vectors and token maxima of the texts, of shape `(N, H)`.
        """
        starts = np.flatnonzero(self.is_first)
        if len(starts) == len(forms):
            return vectors, forms
        forms = np.maximum.reduceat(forms, starts)
        if pooling == "first_token":
            return vectors[starts], forms
        lengths = np.array([len(ids) for ids in self.token_ids], dtype=np.float32)[:, None]
        return np.add.reduceat(vectors * lengths, starts) / np.add.reduceat(lengths, starts), forms


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    truncation: bool = True,
    words: WordPieces | None = None,
) -> TokenizedTexts:
    """
    Tokenise N texts.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the ranker's tokenizer.
        texts (`Sequence[str]`): any texts; lone surrogates, which cannot be encoded, are read as U+FFFD.
        max_length (`int`): tokens per window, including special tokens.
        truncation (`bool`, *optional*, defaults to `True`): whether to read only the first `max_length` tokens of a text.
        words ([`~scar_hf.scoring.word_pieces.WordPieces`], *optional*): those of the tokenizer; the same ids, faster.

    Returns:
        [`TokenizedTexts`].
    """
    if not texts:
        none = np.empty(0, dtype=np.int64)
        return TokenizedTexts([], none, none.astype(bool), none.astype(bool))
    clean = [encodable(text) for text in texts]
    limit = max_length * _CHARS_PER_TOKEN
    shortened = [_beginning(text, limit) if truncation else text for text in clean]
    if not truncation:
        token_ids, text_of = _windows(tokenizer, shortened, max_length)
        is_first = np.ones(len(text_of), dtype=bool)
        is_first[1:] = text_of[1:] != text_of[:-1]
        return TokenizedTexts(token_ids, text_of, is_first, np.zeros(len(texts), dtype=bool))
    kept, truncated = _beginnings(tokenizer, shortened, max_length, words)
    for i in np.flatnonzero(~truncated):
        if len(shortened[i]) < len(clean[i]):  # mostly whitespace: the start did not fill a window
            (kept[i],), truncated[i : i + 1] = _beginnings(tokenizer, [clean[i]], max_length)
    return TokenizedTexts(kept, np.arange(len(texts)), np.ones(len(texts), dtype=bool), truncated)


def _beginnings(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, words: WordPieces | None = None
) -> tuple[list[list[int]], np.ndarray]:
    """Return the first window of each text, and whether it is not the only one."""
    if words is not None:
        found = {i: read for i, text in enumerate(texts) if (read := words.encode(text, max_length)) is not None}
        others = [i for i in range(len(texts)) if i not in found]
        if others:
            found |= zip(others, zip(*_beginnings(tokenizer, [texts[i] for i in others], max_length), strict=True), strict=True)
        return [found[i][0] for i in range(len(texts))], np.array([found[i][1] for i in range(len(texts))], dtype=bool)
    if not tokenizer.is_fast:
        token_ids, text_of = _windows(tokenizer, texts, max_length)
        starts = np.flatnonzero(np.diff(text_of, prepend=-1))
        return [token_ids[i] for i in starts], np.bincount(text_of, minlength=len(texts)) > 1
    # The backend itself: the tokenizer's own call takes half as long again to copy what it returns, and to track characters.
    backend = tokenizer.backend_tokenizer
    padding, truncation = PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST
    tokenizer.set_truncation_and_padding(padding, truncation, max_length, 0, None, None)
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encoded = backend.encode_batch_fast(texts)
    return [text.ids for text in encoded], np.array([bool(text.overflowing) for text in encoded], dtype=bool)


def _windows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], np.ndarray]:
    """Return all windows of all texts, and the text that each belongs to."""
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return encoded["input_ids"], np.array(encoded["overflow_to_sample_mapping"], dtype=np.int64)


def encodable(text: str) -> str:
    """Combine surrogate pairs and replace lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _beginning(text: str, limit: int) -> str:
    """Cut a very long text at a space near the limit, so that megabytes are not tokenised for a few hundred tokens."""
    if len(text) <= limit:
        return text
    space = max(text.rfind(" ", limit // 2, limit), text.rfind("\n", limit // 2, limit))
    return text[: space if space > 0 else limit]
