"""The map of linguistic form: the ranker's vectors of responses, projected on their first two principal axes."""

from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from ..progress import hidden
from ..scoring.encoders.torch_encoder import one_thread_per_operation
from ..scoring.scorer import ScarScorer

_TEXTS_AT_ONCE = 512
ENCODER_MISSING = "There is no map, because the ranker was only in memory. Pass it with report(scorer=...)."


def form_vectors(scorer: ScarScorer, responses: Sequence[str], progress: bool = False) -> np.ndarray:
    """
    Encode responses: the maximum over their tokens' vectors (paper, section 3).

    Args:
        scorer ([`ScarScorer`]): its encoder is used.
        responses (`Sequence[str]`): n texts.
        progress (`bool`, *optional*, defaults to `False`): whether to show a bar.

    Returns:
        `np.ndarray` of shape `(n, H)`, float32.
    """
    hidden_size, parts = scorer.config.hidden_size, []
    with (
        one_thread_per_operation(),
        tqdm(total=len(responses), desc="Mapping", unit="row", disable=hidden(progress)) as bar,
    ):
        for start in range(0, len(responses), _TEXTS_AT_ONCE):
            some = responses[start : start + _TEXTS_AT_ONCE]
            texts = scorer._tokens_of(list(some))
            vectors, forms = scorer._encoder.encode(texts.token_ids)
            _, forms = texts.merge(vectors, forms, scorer.config.pooling)
            parts.append(forms)
            bar.update(len(some))
    return np.concatenate(parts) if parts else np.empty((0, hidden_size), dtype=np.float32)


def principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """
    Project vectors on their first two principal axes.

    Args:
        vectors (`np.ndarray` of shape `(n, H)`): at least one.

    Returns:
        `tuple`: positions of shape `(n, 2)`, and the share of the variance along each axis, in [0, 1].
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    # Fix the sign of each axis so that its largest component is positive; otherwise the map could flip by chance.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    total = float(values.sum())
    shares = [float(max(0.0, value) / total) if total > 0 else 0.0 for value in values[::-1][:2]]
    return centred @ axes, shares
