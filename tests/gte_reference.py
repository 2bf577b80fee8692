"""GTE v1.5 and scar-tool's heads on it, in plain torch from their definition: one text at a time, no padding, no modules."""

import torch
from torch.nn.functional import embedding, gelu, layer_norm, linear

# A tiny encoder with the options that Alibaba-NLP/gte-base-en-v1.5 publishes.
CONFIG = {
    "model_type": "new",
    "auto_map": {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"},
    "vocab_size": 2000,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 256,
    "type_vocab_size": 0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "pack_qkv": True,
    "pad_token_id": 0,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 2.0, "type": "ntk"},
    "rope_theta": 500000,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}


def random_weights(config: dict, linear_dim: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with the published names, of weights large enough that every part of the computation shows."""
    generator = torch.Generator().manual_seed(seed)
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {"encoder.embeddings.word_embeddings.weight": (config["vocab_size"], width)}
    if config["type_vocab_size"]:
        shapes["encoder.embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], width)
    norms = ["encoder.embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.encoder.layer.{i}"
        shapes |= {
            f"{layer}.attention.qkv_proj.weight": (3 * width, width),
            f"{layer}.attention.qkv_proj.bias": (3 * width,),
            f"{layer}.attention.o_proj.weight": (width, width),
            f"{layer}.attention.o_proj.bias": (width,),
            f"{layer}.mlp.up_gate_proj.weight": (2 * inner, width),
            f"{layer}.mlp.down_proj.weight": (width, inner),
            f"{layer}.mlp.down_proj.bias": (width,),
        }
        norms += [f"{layer}.attn_ln", f"{layer}.mlp_ln"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for head, out in (("relation_network", width), ("output_layer", 1)):
        shapes |= {f"{head}.0.weight": (linear_dim, 2 * width), f"{head}.0.bias": (linear_dim,)}
        shapes |= {f"{head}.2.weight": (out, linear_dim), f"{head}.2.bias": (out,)}
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


def inverse_frequencies(theta: float, factor: float, head_dim: int) -> torch.Tensor:
    """The fixed NTK scaling of the encoder's own code: the base times the factor, then all divided by factor ** (2 / d)."""
    even = torch.arange(0, head_dim, 2, dtype=torch.float32)
    return (theta * factor) ** (-even / head_dim) / factor ** (2 / head_dim)


def token_states(weights: dict, config: dict, ids: list[int], factor: float) -> torch.Tensor:
    """States `(L, H)` of one text's tokens."""

    def w(name: str) -> torch.Tensor | None:
        return weights.get(f"encoder.{name}")

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], w(f"{name}.weight"), w(f"{name}.bias"), config["layer_norm_eps"])

    heads, width = config["num_attention_heads"], config["hidden_size"]
    size = width // heads
    angles = torch.outer(torch.arange(len(ids)), inverse_frequencies(config["rope_theta"], factor, size))
    # Dimension j of a head turns together with dimension j + size / 2.
    turn = torch.polar(torch.ones_like(angles), angles)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * turn
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    x = embedding(torch.tensor(ids), w("embeddings.word_embeddings.weight"))
    if config["type_vocab_size"]:
        x = x + w("embeddings.token_type_embeddings.weight")[0]
    x = norm(x, "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        packed = linear(x, w(f"{layer}.attention.qkv_proj.weight"), w(f"{layer}.attention.qkv_proj.bias"))
        q, k, v = (part.view(len(ids), heads, size).transpose(0, 1) for part in packed.split(width, dim=-1))
        mixed = torch.softmax(rotated(q) @ rotated(k).transpose(1, 2) / size**0.5, dim=-1) @ v
        mixed = mixed.transpose(0, 1).reshape(len(ids), width)
        x = norm(
            x + linear(mixed, w(f"{layer}.attention.o_proj.weight"), w(f"{layer}.attention.o_proj.bias")), f"{layer}.attn_ln"
        )
        up, gate = linear(x, w(f"{layer}.mlp.up_gate_proj.weight")).chunk(2, dim=-1)
        fed = linear(up * gelu(gate), w(f"{layer}.mlp.down_proj.weight"), w(f"{layer}.mlp.down_proj.bias"))
        x = norm(x + fed, f"{layer}.mlp_ln")
    return x


def score(weights: dict, config: dict, instruction: list[int], response: list[int], factor: float = 2.0) -> float:
    """The score of one pair of token ids; `factor` is the encoder's NTK factor, 1 for none."""

    def mlp(x: torch.Tensor, name: str) -> torch.Tensor:
        x = linear(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"]).relu()
        return linear(x, weights[f"{name}.2.weight"], weights[f"{name}.2.bias"])

    h_x = token_states(weights, config, instruction, factor)
    h_y = token_states(weights, config, response, factor)
    v_c = mlp(torch.cat([h_x[0], h_y[0]]), "relation_network")
    return mlp(torch.cat([v_c, h_y.amax(dim=0)]), "output_layer").item()
