"""The losses of the ranker, and which members of a triple take part in them."""

import pytest
import torch
from scar_hf.modeling.loss_scar import cross_instruction_loss, ranking_loss, representation_loss

from .model_data import score, texts, triple


def test_loss_is_ranking_plus_weighted_triplets(tiny_model):
    model = tiny_model("bert", alpha=0.7, triplet_margin=2.0, triplet_weight=0.3)
    with torch.no_grad():
        output = model(**triple())
    d, r, h = output.scores.unbind(dim=1)
    ranking = (torch.relu(0.7 - d + r) + torch.relu(0.7 - r + h) + torch.relu(0.7 - d + h)).mean()

    def margin(anchor, near, far):
        return torch.relu(torch.dist(anchor, near) - torch.dist(anchor, far) + 2.0)

    form, surprisal = output.linguistic_form, output.instructional_surprisal
    triplets = [margin(p[0], p[1], p[2]) + margin(c[1], c[2], c[0]) for p, c in zip(form, surprisal, strict=True)]
    torch.testing.assert_close(output.loss, ranking + 0.3 * torch.stack(triplets).mean(), atol=1e-4, rtol=1e-4)


def test_negatives_rank_below_every_member_whatever_the_ratings():
    nan = float("nan")
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.9], [nan, nan, 1.0, 2.0], [3.0, 2.0, 1.0, 9.0]], requires_grad=True)
    present = ~scores.isnan()
    present[2, 3] = False
    poor = torch.zeros(3, 3)
    safe = scores.nan_to_num(0.0)
    # Rated poor, no pair of members counts; against the negatives all members still do.
    loss = ranking_loss(safe, present, poor, alpha=0.5)
    assert loss.item() == pytest.approx((0.4 + 1.5) / 2)


def test_the_loss_across_instructions_compares_each_direct_with_all_other_humans():
    scores = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 3.0], [0.0, 0.0, 0.2]])
    present = torch.tensor([[True, False, True], [True, False, True], [False, False, True]])
    # direct 0 against humans 1 and 2, direct 1 against humans 0 and 2
    expected = (2.5 + 0.0 + 0.0 + 0.0) / 4
    assert cross_instruction_loss(scores, present, alpha=0.5).item() == pytest.approx(expected)
    rated = torch.tensor([[9.0, 9.0, 9.0], [9.0, 9.0, 1.0], [9.0, 9.0, 9.0]])
    assert cross_instruction_loss(scores, present, rated, alpha=0.5).item() == 0
    assert cross_instruction_loss(scores, torch.zeros_like(present), alpha=0.5).item() == 0


def test_the_loss_across_instructions_counts_by_its_weight(tiny_model):
    losses = []
    for weight in (0.0, 0.3):
        with torch.no_grad():
            output = tiny_model("bert", cross_instruction_weight=weight)(**triple())
        losses.append(output.loss)
    across = cross_instruction_loss(output.scores, torch.ones(4, 3, dtype=torch.bool))
    torch.testing.assert_close(losses[1], losses[0] + 0.3 * across)


def test_a_negative_takes_part_in_the_loss_and_nowhere_else(tiny_model):
    model, batch = tiny_model("bert"), triple()
    ids, mask = texts(seed=20)
    present = torch.ones(4, 4, dtype=torch.bool)
    present[1:, 3] = False
    with torch.no_grad():
        output = model(**batch, negative_input_ids=ids, negative_attention_mask=mask, present=present)
        without = model(**batch)
        pair = score(model, (batch["instruction_input_ids"], batch["instruction_attention_mask"]), (ids, mask))
    torch.testing.assert_close(output.scores[:, :3], without.scores, atol=1e-5, rtol=0)
    assert output.scores[0, 3] == pytest.approx(pair[0].item(), abs=1e-5) and output.scores[1:, 3].isnan().all()
    against = torch.relu(0.5 - output.scores[0, :3] + output.scores[0, 3]).sum() / 4
    torch.testing.assert_close(output.loss, without.loss + against, atol=1e-5, rtol=1e-5)


def test_triple_scores_are_pair_scores(tiny_model):
    model, batch = tiny_model("bert"), triple()
    with torch.no_grad():
        scores = model(**batch).scores
    x = batch["instruction_input_ids"], batch["instruction_attention_mask"]
    for column, name in enumerate(("direct", "referenced", "human")):
        pair = score(model, x, (batch[f"{name}_input_ids"], batch[f"{name}_attention_mask"]))
        torch.testing.assert_close(scores[:, column], pair, atol=1e-5, rtol=0)


def test_absent_members_take_no_part(tiny_model):
    model, batch = tiny_model("bert"), triple()
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, True], [True, True, False]])
    output = model(**batch, present=present)
    assert output.scores.isnan().logical_not().equal(present)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    changed = {**batch, "referenced_input_ids": batch["referenced_input_ids"].clone()}
    changed["referenced_input_ids"][1] = 7
    torch.testing.assert_close(model(**changed, present=present).loss, output.loss)
    without = {name: value for name, value in batch.items() if not name.startswith("referenced")}
    two = model(**without)
    torch.testing.assert_close(two.scores[0, 0], output.scores[0, 0], atol=1e-5, rtol=0)
    assert two.scores[:, 1].isnan().all()


def test_ratings_leave_out_pairs_of_poor_quality():
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    present = torch.ones(2, 3, dtype=torch.bool)
    every = ranking_loss(scores, present, alpha=0.5)
    assert every.item() == pytest.approx(1.5 + 1.5 + 2.5)
    nan = float("nan")
    rated = torch.tensor([[9.0, 4.0, 9.0], [nan, 9.0, 5.0]])
    # Row 0 keeps direct over human; row 1 keeps direct over referenced, 5.0 not being above sigma.
    assert ranking_loss(scores, present, rated, alpha=0.5, sigma=5.0).item() == pytest.approx((2.5 + 1.5) / 2)
    nothing = ranking_loss(scores.requires_grad_(), present, torch.zeros(2, 3))
    nothing.backward()
    assert nothing.item() == 0 and scores.grad.abs().sum() == 0


def test_representation_loss_needs_complete_rows():
    form, surprisal = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    present = torch.tensor([[True, True, True], [True, False, True]])
    whole = representation_loss(form[:1], surprisal[:1], present[:1])
    torch.testing.assert_close(representation_loss(form, surprisal, present), whole)
    assert representation_loss(form, surprisal, ~present).item() == 0


def test_a_step_calls_the_encoder_at_most_twice_and_pads_little(tiny_model):
    model = tiny_model("bert")
    shapes = []
    model.encoder.register_forward_pre_hook(lambda _, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True)
    lengths = (4, 60, 5, 58, 6, 57)
    model(**triple(lengths))
    assert len(shapes) == 2
    assert sum(rows for rows, _ in shapes) == 4 * len(lengths)
    padded, real = sum(rows * width for rows, width in shapes), 4 * sum(lengths)
    assert padded < 1.1 * real


def test_wrong_calls_say_what_is_missing(tiny_model):
    model, batch = tiny_model("bert"), triple()
    with pytest.raises(ValueError, match="at least two of"):
        model(batch["instruction_input_ids"])
    with pytest.raises(ValueError, match="1 member"):
        model(batch["instruction_input_ids"], human_input_ids=batch["human_input_ids"])
