"""Tokenises texts, truncated to `max_length` or split into windows of that length."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from tokenizers.models import Model, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

# Upper bound on characters per token in ordinary text. Of a longer text, the start is tokenised first and usually suffices.
_CHARS_PER_TOKEN = 64
# Latin letters and general punctuation, each of which BERT's tokenizer reads without regard to its neighbours.
_CHARACTERS = [*map(chr, range(0x250)), *map(chr, range(0x2000, 0x2070))]
_OTHER = re.compile(r"[^\x00-\u024f\u2000-\u206f]")
# Characters of the words that are remembered: at most 40 MB, with the ids.
_REMEMBERED = 500_000


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
    words: "WordPieces | None" = None,
) -> TokenizedTexts:
    """
    Tokenise N texts.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the ranker's tokenizer.
        texts (`Sequence[str]`): any texts; lone surrogates, which cannot be encoded, are read as U+FFFD.
        max_length (`int`): tokens per window, including special tokens.
        truncation (`bool`, *optional*, defaults to `True`): whether to read only the first `max_length` tokens of a text.
        words ([`~scar_hf.scoring.tokenization.WordPieces`], *optional*): those of the tokenizer; the same ids, faster.

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
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, words: "WordPieces | None" = None
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


class WordPieces:
    """
    Tokenises texts exactly as a tokenizer does that lower-cases, splits at spaces and punctuation, and looks up word pieces.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): a tokenizer that [`WordPieces.fits`] accepts.

    Example:

    ```python
    >>> from transformers import AutoTokenizer
    >>> from scar_hf.scoring.checkpoints import resolve_checkpoint
    >>> from scar_hf.scoring.tokenization import WordPieces

    >>> tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint("scar-ranker-fast"))
    >>> WordPieces(tokenizer).encode("Bees eat nectar.", max_length=64)
    ([101, 13734, 4521, 24816, 1012, 102], False)
    ```
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = tokenizer.backend_tokenizer
        normalized = {c: backend.normalizer.normalize_str(c) for c in _CHARACTERS}
        self._normalized = str.maketrans({c: to or None for c, to in normalized.items()})
        pieces = {c: len(backend.pre_tokenizer.pre_tokenize_str(f"a{c}a")) for c in set("".join(normalized.values()))}
        spaces, signs = (re.escape("".join(sorted(c for c, n in pieces.items() if n == number))) for number in (2, 3))
        self._words = re.compile(f"[^{signs}{spaces}]+|[{signs}]").findall
        self._special = [token.translate(self._normalized) for token in tokenizer.get_added_vocab()]
        self._ids = _Known(backend.model)
        encoded = backend.encode("a")
        own = encoded.special_tokens_mask.index(0)
        self._first, self._last = encoded.ids[:own], encoded.ids[own + 1 :]

    @staticmethod
    def fits(tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether this is a tokenizer like that of BERT, uncased, which truncates at the end."""
        if not tokenizer.is_fast or tokenizer.truncation_side != "right" or tokenizer.split_special_tokens:
            return False
        backend = tokenizer.backend_tokenizer
        normalizer = backend.normalizer
        return (
            isinstance(normalizer, BertNormalizer)
            and normalizer.clean_text
            and normalizer.lowercase
            and isinstance(backend.pre_tokenizer, BertPreTokenizer)
            and isinstance(backend.model, WordPiece)
            and isinstance(backend.post_processor, TemplateProcessing)
        )

    def encode(self, text: str, max_length: int) -> tuple[list[int], bool] | None:
        """
        Tokenise a text.

        Args:
            text (`str`): any text.
            max_length (`int`): the maximum number of tokens, including special tokens.

        Returns:
            `tuple(list[int], bool)`: ids with special tokens, and whether the text was truncated. `None` for a text that the
            tokenizer itself must read: one in another script, or with special tokens.
        """
        if not text.isascii() and _OTHER.search(text):
            return None
        text = text.translate(self._normalized)
        if any(special in text for special in self._special):
            return None
        room = max_length - len(self._first) - len(self._last)
        ids = list(chain(self._first, chain.from_iterable(map(self._ids.__getitem__, self._words(text)[: room + 1]))))
        truncated = len(ids) > room + len(self._first)
        del ids[room + len(self._first) :]
        ids += self._last
        return ids, truncated


class _Known(dict[str, Sequence[int]]):
    """The ids of words, looked up when first needed, and forgotten when they have become too many."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._characters = 0

    def __missing__(self, word: str) -> Sequence[int]:
        self._characters += len(word)
        if self._characters > _REMEMBERED:
            self.clear()
            self._characters = len(word)
        ids = self[word] = tuple(token.id for token in self._model.tokenize(word))
        return ids
