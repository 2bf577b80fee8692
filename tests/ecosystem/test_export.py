"""Graphs of a ranker by torch.export: for batches and texts of other sizes than those they were made with."""

import copy
import runpy
from pathlib import Path

import pytest
import torch

from scar_hf import ScarConfig, ScarModel

conventions = runpy.run_path(str(Path(__file__).parent / "test_model_conventions.py"))
FAMILIES, HEADS, texts = conventions["FAMILIES"], conventions["HEADS"], conventions["texts"]
NAMES = ("instruction_input_ids", "response_input_ids", "instruction_attention_mask", "response_attention_mask")
OTHER_SIZES = [(2, 9), (7, 23)]  # rows, tokens
pytestmark = pytest.mark.slow


class Scores(torch.nn.Module):
    """The scores of a ranker, as a graph gives them."""

    def __init__(self, model: ScarModel):
        super().__init__()
        self.model = model

    def forward(self, instruction_input_ids, response_input_ids, instruction_attention_mask, response_attention_mask):
        return self.model(instruction_input_ids, response_input_ids, instruction_attention_mask, response_attention_mask).scores


def ranker(family: str, head: str) -> Scores:
    torch.manual_seed(0)
    config = ScarConfig(encoder_config=copy.deepcopy(FAMILIES[family]), max_length=32, **HEADS[head])
    return Scores(ScarModel(config)).eval()


def inputs(rows: int, width: int) -> tuple[torch.Tensor, ...]:
    batch = texts(rows, width, seed=3)
    return tuple(batch[name] for name in NAMES)


def any_size() -> dict[str, dict[int, torch.export.Dim]]:
    rows, length = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("length", min=4, max=32)
    return {name: {0: rows, 1: length} for name in NAMES}


@pytest.mark.parametrize("head", ["paper", "mean and interaction"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_exported_program_gives_the_same_scores(family, head):
    module = ranker(family, head)
    program = torch.export.export(module, inputs(4, 14), dynamic_shapes=any_size()).module()
    for size in OTHER_SIZES:
        torch.testing.assert_close(program(*inputs(*size)), module(*inputs(*size)), atol=1e-5, rtol=1e-4)
