"""Scores triples of direct, referenced and human responses, and negatives, and computes the training loss."""

from collections.abc import Sequence
from typing import Any

import torch

from .encoding_scar import encode_together
from .loss_scar import cross_instruction_loss, ranking_loss, representation_loss

Text = tuple[torch.Tensor | None, torch.Tensor | None]


def score_triples(
    model: Any,
    instruction: tuple[torch.Tensor, torch.Tensor | None],
    members: Sequence[Text],
    present: torch.Tensor | None,
    ratings: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """
    Score triples and compute their loss (paper, section 3).

    Args:
        model ([`ScarModel`]): the ranker.
        instruction (`(input_ids, attention_mask)`): instructions of shape `(B, L)`; the mask may be `None`.
        members (`Sequence` of `(input_ids, attention_mask)`):
            T members: direct, referenced, human and, if there are four, a negative; `None` for members that are not passed.
        present, ratings (`torch.Tensor`, *optional*): see [`ScarModel.forward`].

    Returns:
        `dict`: the fields of [`ScarOutput`], with NaN for absent members.
    """
    config = model.config
    batch, device, size = instruction[0].shape[0], instruction[0].device, len(members)
    passed = torch.tensor([ids is not None for ids, _ in members], device=device)
    present = passed.expand(batch, size) if present is None else present.bool() & passed
    texts, keep = [instruction], [torch.ones(batch, dtype=torch.bool, device=device)]
    for position, (ids, mask) in enumerate(members):
        if ids is not None:
            texts.append((ids, mask))
            keep.append(present[:, position])
    firsts, forms = encode_together(model.encode, texts, keep)

    h_y = firsts[0].new_full((batch, size, firsts[0].shape[-1]), float("nan"))
    v_p = forms[0].new_full((batch, size, forms[0].shape[-1]), float("nan"))
    for position, slot in zip(passed.nonzero().flatten().tolist(), range(1, len(texts)), strict=True):
        h_y[:, position], v_p[:, position] = firsts[slot], forms[slot]
    # Vectors of absent members are zero in the loss, because the gradient of NaN is NaN even through a mask.
    absent = ~present.unsqueeze(-1)
    safe_h, safe_p = h_y.masked_fill(absent, 0.0), v_p.masked_fill(absent, 0.0)
    scores, v_c = model.rank(firsts[0].unsqueeze(1).expand(-1, size, -1), safe_h, safe_p)
    loss = ranking_loss(scores, present, ratings, config.alpha, config.sigma)
    if config.triplet_weight:
        triplets = representation_loss(safe_p[:, :3], v_c[:, :3], present[:, :3], config.triplet_margin)
        loss = loss + config.triplet_weight * triplets
    if config.cross_instruction_weight:
        across = cross_instruction_loss(scores, present, ratings, config.alpha, config.sigma)
        loss = loss + config.cross_instruction_weight * across
    nan = float("nan")
    return {
        "loss": loss,
        "scores": scores.masked_fill(~present, nan),
        "linguistic_form": safe_p.masked_fill(absent, nan),
        "instructional_surprisal": v_c.masked_fill(absent, nan),
    }
