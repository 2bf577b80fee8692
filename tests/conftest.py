"""Nothing here reaches a hub: what is loaded is the bundled ranker, or made on the spot with random weights."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core, and one thread in each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from pathlib import Path

import pytest
import torch
from datasets import disable_progress_bars
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scar_hf import ScarConfig, ScarModel, ScarScorer
from scar_hf.scoring.checkpoints import resolve_checkpoint

disable_progress_bars()
torch.manual_seed(0)

TINY = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
    "pad_token_id": 0,
}
ENCODERS = {
    "bert": {},
    "roberta": {"max_position_embeddings": 82},
    "xlm-roberta": {"max_position_embeddings": 82},
    "modernbert": {"global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "gte": {},
}


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Scores of other runs must not answer for this one, in all of whose processes an encoder is converted once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "scar-hf-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCAR_HF_CACHE", str(folder))
        yield folder


@pytest.fixture(params=ENCODERS)
def encoder(request) -> str:
    """Each encoder family in turn."""
    return request.param


@pytest.fixture(scope="session")
def tiny_model():
    """Makes rankers with random weights around a tiny encoder of any type."""

    def make(encoder: str = "bert", seed: int = 0, vocab_size: int = TINY["vocab_size"], **settings) -> ScarModel:
        torch.manual_seed(seed)
        encoder_config = AutoConfig.for_model(encoder, **(TINY | ENCODERS[encoder] | {"vocab_size": vocab_size}))
        return ScarModel(ScarConfig(encoder_config=encoder_config, max_length=64, **settings)).eval()

    return make


@pytest.fixture(scope="session")
def scorer() -> ScarScorer:
    """The bundled ranker in float32, where scores are equal to the last digits that a test compares."""
    return ScarScorer.from_pretrained("scar-ranker", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve_checkpoint("scar-ranker"))


@pytest.fixture
def encoder_folder(tmp_path, tokenizer) -> Path:
    """A tiny BERT with random weights and a real tokenizer, as a user's own encoder would lie on disk."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path / "tiny-encoder"
    BertModel(BertConfig(**(TINY | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ranker(tmp_path_factory, tiny_model, tokenizer) -> Path:
    """A ranker with random weights that scores thousands of rows in a second, as a folder."""
    folder = tmp_path_factory.mktemp("tiny-ranker") / "ranker"
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small(tiny_ranker) -> ScarScorer:
    """A scorer of the tiny ranker."""
    return ScarScorer.from_pretrained(str(tiny_ranker), device="cpu", dtype="float32")


@pytest.fixture
def write_jsonl(tmp_path):
    def write(rows: list[dict], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def rows() -> list[dict]:
    """Ten rows in the plain format, with a column of the user's own."""
    topics = ["bees", "rivers", "bread", "glass", "chess", "wool", "tides", "maps", "moss", "clocks"]
    return [
        {"instruction": f"Tell me about {t}.", "response": f"All about {t}: " + "it is well known. " * (i + 1), "id": i}
        for i, t in enumerate(topics)
    ]


CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>tools\\n' + (tools | string) + '<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ (message['content'] or '') + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ (message['content'] or '') + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory) -> str:
    """The folder of a causal language model with random weights, whose tokens are bytes, and its tokenizer."""
    folder = str(tmp_path_factory.mktemp("tiny-lm"))
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({token: i for i, token in enumerate(special + alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def sft_config(tmp_path):
    """Makes the settings of a few steps of SFTTrainer on the CPU."""
    from trl import SFTConfig

    def make(**settings) -> SFTConfig:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "max_length": 128,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        return SFTConfig(**(defaults | settings))

    return make
