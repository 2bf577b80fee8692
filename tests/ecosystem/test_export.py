"""Graphs of a ranker by torch.export, ONNX, torch.jit and torch.compile: for batches and texts of other sizes, too."""

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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@torch.no_grad()
def test_a_model_in_onnx_gives_the_same_scores(family, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    module = ranker(family, "paper")
    file = tmp_path / "ranker.onnx"
    torch.onnx.export(module, inputs(4, 14), file, dynamo=True, dynamic_shapes=any_size(), input_names=NAMES, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in OTHER_SIZES:
        given = inputs(*size)
        (found,) = session.run(None, {name: value.numpy() for name, value in zip(NAMES, given, strict=True)})
        torch.testing.assert_close(torch.from_numpy(found), module(*given), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_a_traced_model_gives_the_same_scores_for_more_rows(family):
    module = ranker(family, "paper")
    traced = torch.jit.trace(module, inputs(4, 14), check_trace=False)
    for rows in (4, 6):
        given = inputs(rows, 14)
        torch.testing.assert_close(traced(*given), module(*given), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_the_whole_model_is_one_graph(family):
    module = ranker(family, "paper")
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for size in OTHER_SIZES:
        torch.testing.assert_close(compiled(*inputs(*size)), module(*inputs(*size)), atol=1e-5, rtol=1e-4)
