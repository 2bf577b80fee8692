"""Write the bundled ranker's encoder in the formats that the other systems load."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, PretrainedConfig

import scar_hf
from scar_hf import ScarConfig, ScarModel

RANKER = Path(scar_hf.__file__).parent / "checkpoints" / "scar-ranker"
# Names of the heads' layers here and in scar-tool, where both heads are a torch.nn.Sequential of Linear, ReLU, Linear.
_HEADS = {
    "surprisal_head.dense": "relation_network.0",
    "surprisal_head.out_proj": "relation_network.2",
    "score_head.dense": "output_layer.0",
    "score_head.out_proj": "output_layer.2",
}


def ranker_config() -> ScarConfig:
    """Return the bundled ranker's configuration."""
    return ScarConfig.from_pretrained(str(RANKER))


def write_weights(folder: Path) -> dict[str, str]:
    """
    Write the bundled ranker's encoder as an encoder folder and as a scar-tool checkpoint, both in float32. The heads of the
    checkpoint are random: scar-tool has the paper's heads, which do not take the bundled ranker's products and differences.

    Args:
        folder (`Path`): parent of the two folders.

    Returns:
        `dict`: `encoder_weights` and `scar_tool_weights`, the paths of the two folders.

    Raises:
        `ValueError`: if this conversion does not support the bundled ranker.
    """
    config = ranker_config()
    if config.use_pooler or config.encoder_config.model_type != "bert":
        raise ValueError(f"{RANKER} is not a BERT ranker without pooler: adapt `write_weights` to it.")
    width, prefix = config.hidden_size, "encoder."
    torch.manual_seed(0)
    weights = ScarModel(ScarConfig(encoder_config=config.encoder_config, head_size=config.head_size)).state_dict()
    stored = load_file(RANKER / "model.safetensors")
    weights |= {name: value.float() for name, value in stored.items() if name.startswith(prefix)}

    encoder_folder, tool_folder = folder / "encoder", folder / "scar-tool"
    encoder = AutoModel.from_config(config.encoder_config).float()
    # Load strictly, as a name that does not match would leave random weights in its place.
    encoder.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)})
    encoder.save_pretrained(encoder_folder)

    tool_folder.mkdir(parents=True)
    torch.save({_tool_name(name): value for name, value in weights.items()}, tool_folder / "pytorch_model.bin")
    settings = {
        "model_type": "style_ranker",
        "encoder_name": str(encoder_folder),
        "hidden_dim": width,
        "linear_dim": config.head_size,
    }
    (tool_folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        for target in (encoder_folder, tool_folder):
            shutil.copy(RANKER / file, target)
    return {"encoder_weights": str(encoder_folder), "scar_tool_weights": str(tool_folder)}


def matmul_parameters(config: PretrainedConfig) -> int:
    """Count an encoder's parameters in matrix multiplications: four attention projections and two layers, no embeddings."""
    return config.num_hidden_layers * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)


def _tool_name(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{_HEADS[layer]}.{kind}" if layer in _HEADS else name
