"""The losses of a ranker: the two of the paper (section 3), and one across instructions."""

import torch
from torch.nn import functional as F

# Pairs of the ranking loss, as positions in a triple: direct, referenced, human, and a negative below them all.
ORDERED_PAIRS = ((0, 1), (1, 2), (0, 2))
NEGATIVE_PAIRS = ((0, 3), (1, 3), (2, 3))


def ranking_loss(
    scores: torch.Tensor, present: torch.Tensor, ratings: torch.Tensor | None = None, alpha: float = 0.5, sigma: float = 5.0
) -> torch.Tensor:
    """
    Hinge loss `max(0, alpha - R_a + R_b)` over the pairs direct > referenced > human, direct > human (paper, section 3),
    and each of them > negative if there is one.

    Args:
        scores (`torch.FloatTensor` of shape `(B, 3)` or `(B, 4)`): scores of direct, referenced, human and a negative.
        present (`torch.BoolTensor` of the same shape): which members each row has.
        ratings (`torch.FloatTensor` of shape `(B, 3)`, *optional*): quality of each in [0, 9], NaN if unknown.
        alpha (`float`): the margin.
        sigma (`float`): the quality that both members of a pair must exceed.

    Returns:
        `torch.FloatTensor`: the sum over pairs, averaged over the rows that have any; 0 with a gradient if none has.
    """
    scores, total = scores.float(), scores.new_zeros(len(scores), dtype=torch.float32)
    counted = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    good = _good(present, ratings, sigma)
    pairs = [(good, pair) for pair in ORDERED_PAIRS]
    if present.shape[1] > 3:
        # Even a poor answer is better than a refusal or an answer to another question, so ratings do not matter here.
        pairs += [(present, pair) for pair in NEGATIVE_PAIRS]
    for usable, (a, b) in pairs:
        pair = usable[:, a] & usable[:, b]
        total = total + torch.where(pair, F.relu(alpha - scores[:, a] + scores[:, b]), 0.0)
        counted |= pair
    return total.sum() / counted.sum().clamp(min=1)


def representation_loss(
    linguistic_form: torch.Tensor, instructional_surprisal: torch.Tensor, present: torch.Tensor, margin: float = 1.0
) -> torch.Tensor:
    """
    Triplet losses that keep the two elements of style apart (paper, section 3): in linguistic form the direct response
    is nearer to the referenced than to the human one (both by an LLM); in instructional surprisal the referenced
    response is nearer to the human than to the direct one (the same content).

    Args:
        linguistic_form (`torch.FloatTensor` of shape `(B, 3, H)`): of direct, referenced and human.
        instructional_surprisal (`torch.FloatTensor` of shape `(B, 3, C)`): of the same.
        present (`torch.BoolTensor` of shape `(B, 3)`): only rows with all three count.
        margin (`float`): the margin.

    Returns:
        `torch.FloatTensor`: the sum of both, averaged over the complete rows; 0 with a gradient if there is none.
    """
    complete = present.all(dim=1)
    form = linguistic_form.float().unbind(dim=1)
    surprisal = instructional_surprisal.float().unbind(dim=1)
    loss = F.triplet_margin_loss(form[0], form[1], form[2], margin=margin, reduction="none")
    loss = loss + F.triplet_margin_loss(surprisal[1], surprisal[2], surprisal[0], margin=margin, reduction="none")
    return torch.where(complete, loss, 0.0).sum() / complete.sum().clamp(min=1)


def cross_instruction_loss(
    scores: torch.Tensor, present: torch.Tensor, ratings: torch.Tensor | None = None, alpha: float = 0.5, sigma: float = 5.0
) -> torch.Tensor:
    """
    Hinge loss `max(0, alpha - R(x_i, d_i) + R(x_j, h_j))` over all direct responses i and human responses j of a batch, i
    other than j. The paper compares responses to one instruction, selection compares responses to different ones.

    Args:
        scores (`torch.FloatTensor` of shape `(B, T)`, T at least 3): scores of direct, referenced and human.
        present (`torch.BoolTensor` of the same shape): which members each row has.
        ratings (`torch.FloatTensor` of shape `(B, 3)`, *optional*): quality of each in [0, 9], NaN if unknown.
        alpha (`float`): the margin.
        sigma (`float`): the quality that both members of a pair must exceed.

    Returns:
        `torch.FloatTensor`: the mean over these pairs; 0 with a gradient if there is none.
    """
    scores, good = scores.float(), _good(present, ratings, sigma)
    pair = good[:, None, 0] & good[None, :, 2] & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    loss = F.relu(alpha - scores[:, None, 0] + scores[None, :, 2])
    return torch.where(pair, loss, 0.0).sum() / pair.sum().clamp(min=1)


def _good(present: torch.Tensor, ratings: torch.Tensor | None, sigma: float) -> torch.Tensor:
    """Return which of the three members exist and are not rated as poor."""
    members = present[:, :3]
    return members if ratings is None else members & (ratings.isnan() | (ratings > sigma))


__all__ = ["cross_instruction_loss", "ranking_loss", "representation_loss"]
