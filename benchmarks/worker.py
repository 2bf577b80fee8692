"""
Run one system under test in a separate process. `scoring.py` starts it with the system's own Python and asks it to score
rows. Requests and answers are lines of JSON on stdin and stdout. Needs only torch, NumPy and the system's own package.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

# (instructions, responses) -> scores
Score = Callable[[list[str], list[str]], Sequence[float]]


class TokenCounter:
    """
    Counts the tokens that reach an encoder, by watching its calls.

    Args:
        encoder (`torch.nn.Module`, *optional*):
            Called with `input_ids` and, if there is padding, an `attention_mask`. Without an encoder, all OpenVINO
            inference in this process is counted.
    """

    def __init__(self, encoder: torch.nn.Module | None = None):
        # A list, because appending is thread-safe, and a system may call its encoder from several threads.
        self.calls: list[tuple[int, int | torch.Tensor]] = []
        if encoder is None:
            self._watch_openvino()
        else:
            encoder.register_forward_pre_hook(self._count, with_kwargs=True)

    def _watch_openvino(self) -> None:
        import openvino

        def watched(infer: Callable) -> Callable:
            def call(request, inputs=None, *args, **kwargs):
                self._count_arrays(inputs)
                return infer(request, inputs, *args, **kwargs)

            return call

        for owner, name in (
            (openvino.InferRequest, "infer"),
            (openvino.InferRequest, "start_async"),
            (openvino.AsyncInferQueue, "start_async"),
        ):
            setattr(owner, name, watched(getattr(owner, name)))

    def _count_arrays(self, inputs: Any) -> None:
        """Count the inputs of OpenVINO, passed by name or as ids and mask in this order; other forms are not counted."""
        if isinstance(inputs, (list, tuple)):
            inputs = dict(zip(("input_ids", "attention_mask"), inputs, strict=False))
        if not isinstance(inputs, dict) or "input_ids" not in inputs:
            return
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        size = math.prod(ids.shape)
        # An openvino.Tensor has its numbers in `data`, like an array.
        self.calls.append((size, size if mask is None else int(np.asarray(mask.data).sum())))

    def _count(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        # Keep the sum a tensor, as reading it here would synchronize a GPU.
        self.calls.append((ids.numel(), ids.numel() if mask is None else mask.sum()))

    def take(self) -> dict[str, int]:
        """Return the tokens since the last call, with and without padding; empty if the encoder was not called."""
        calls, self.calls = self.calls, []
        return {"computed": sum(n for n, _ in calls), "real": sum(int(n) for _, n in calls)} if calls else {}


def scar_tool(options: dict) -> tuple[Score, TokenCounter, str, list[str]]:
    """Load scar-tool with its own loading and scoring functions and defaults, the two parts of its `rank_and_filter`."""
    from style_ranker.rank import load_ranker, score_pairs  # pyright: ignore[reportMissingImports]

    model, tokenizer = load_ranker(options["scar_tool_weights"], device=options["device"])

    def score(instructions: list[str], responses: list[str]) -> list[float]:
        return score_pairs(
            model, tokenizer, instructions, responses, max_length=options["max_length"], device=options["device"]
        )

    return score, TokenCounter(model.encoder), "float32", ["scar-tool", "transformers", "torch"]


def cross_encoder(options: dict) -> tuple[Score, TokenCounter, str, list[str]]:
    """Load a CrossEncoder with the same encoder weights and a random head: its speed is meaningful, its scores are not."""
    from sentence_transformers import CrossEncoder
    from transformers import PreTrainedModel

    dtype = options.get("dtype", "float32")
    model = CrossEncoder(
        options["encoder_weights"],
        num_labels=1,
        max_length=options["max_length"],
        device=options["device"],
        model_kwargs={"dtype": getattr(torch, dtype)},
    )
    # The innermost pretrained model is the encoder, without the head.
    encoder = [module for module in model.modules() if isinstance(module, PreTrainedModel)][-1]
    batch_size = {"batch_size": options["batch_size"]} if "batch_size" in options else {}

    def score(instructions: list[str], responses: list[str]) -> list[float]:
        return model.predict(list(zip(instructions, responses, strict=True)), show_progress_bar=False, **batch_size).tolist()

    return score, TokenCounter(encoder), dtype, ["sentence-transformers", "transformers", "torch"]


def scar_hf(options: dict) -> tuple[Score, TokenCounter, str, list[str]]:
    """Load a `ScarScorer` with a bundled ranker and the given settings; by default only device and length."""
    from scar_hf import ScarScorer

    asked = {name: options[name] for name in ("dtype", "backend") if name in options}
    model = options.get("model", "scar-ranker")
    scorer = ScarScorer.from_pretrained(model, device=options["device"], max_length=options["max_length"], **asked)
    openvino = scorer.backend == "openvino"
    dtype = str(scorer.dtype).removeprefix("torch.")
    packages = ["scar-hf", "transformers", "torch", *(["openvino", "nncf"] if openvino else [])]
    counter = TokenCounter(None if openvino else scorer.model.encoder)
    return lambda x, y: scorer.score(x, y).tolist(), counter, dtype, packages


def cascade(options: dict) -> tuple[Score, TokenCounter, str, list[str]]:
    """Load a selection with a prefilter, without reading and writing; rows scored only by the fast ranker have no score."""
    from datasets import Dataset

    from scar_hf import ScarScorer, scar_rank
    from scar_hf.selecting.criteria import Criteria

    scorer = ScarScorer.from_pretrained("scar-ranker", device=options["device"], max_length=options["max_length"])
    criteria = Criteria(options["k"], prefilter=options["prefilter"])

    def score(instructions: list[str], responses: list[str]) -> list[float]:
        ds = Dataset.from_dict({"instruction": instructions, "response": responses})
        return scar_rank(ds, model=scorer, criteria=criteria, cache=False, progress=False).scores.tolist()

    dtype = str(scorer.dtype).removeprefix("torch.")
    return score, TokenCounter(None), dtype, ["scar-hf", "transformers", "torch"]


SYSTEMS = {"scar_tool": scar_tool, "cross_encoder": cross_encoder, "scar_hf": scar_hf, "cascade": cascade}


def serve(options: dict, answer: Callable[[dict], None]) -> None:
    """
    Load a system, report that it is ready, then answer requests `{"start": a, "stop": b}` until stdin ends.

    Args:
        options (`dict`): `system`, `data`, `device`, `threads`, `max_length`, folders of weights, and the system's settings.
        answer (`Callable`): sends one answer.
    """
    torch.set_num_threads(options["threads"])
    with open(options["data"], encoding="utf-8") as file:
        data = json.load(file)
    score, counter, dtype, packages = SYSTEMS[options["system"]](options)
    answer({"dtype": dtype, "versions": {name: version(name) for name in packages}})
    synchronize = torch.cuda.synchronize if options["device"].startswith("cuda") else lambda: None
    for line in sys.stdin:
        request = json.loads(line)
        rows = slice(request["start"], request["stop"])
        instructions, responses = data["instructions"][rows], data["responses"][rows]
        synchronize()
        began = time.perf_counter()
        scores = score(instructions, responses)
        synchronize()
        seconds = time.perf_counter() - began
        answer({"seconds": seconds, "scores": [float(value) for value in scores], **counter.take()})


def main() -> None:
    """Run as `python worker.py OPTIONS`, where OPTIONS is JSON."""
    out = sys.stdout
    # Packages print as they load; only answers may go to the real stdout.
    sys.stdout = sys.stderr

    def answer(message: dict) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    try:
        serve(json.loads(sys.argv[1]), answer)
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main()
