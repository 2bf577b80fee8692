"""The int8 encoder: as good as float32 for ranking, the same whatever the order, made once and kept."""

import logging
import pickle
import sys

import numpy as np
import pytest
import torch

from scar_hf import ScarScorer
from scar_hf.scoring import precision
from scar_hf.scoring.checkpoints import load_ranker, resolve_checkpoint
from scar_hf.scoring.precision import default_dtype

pytest.importorskip("openvino")
pytest.importorskip("nncf")

from scar_hf.scoring.encoders.openvino_encoder import OpenVinoEncoder

CONVERTING = "Converting the encoder"
TEXTS = [
    "What do bees eat?",
    "Bees eat nectar and pollen, and the larvae are fed a jelly that young workers make of both.",
    "How do I reverse a list in Python?",
    "Use `reversed(items)` for an iterator, or slice it:\n\n```python\nitems[::-1]\n```",
    "def add(a, b):\n    return a + b",
    "Certainly! Here are three reasons:\n\n1. **Cost.** It is cheap.\n2. **Speed.** It is fast.\n3. **Style.** It looks good.",
    "idk, just google it lol",
    "I'm sorry, but I cannot help with that.",
    "The river froze twice that winter, and both times my uncle walked across it to prove a point nobody had disputed.",
    "In conclusion, there are several important factors to consider when choosing a laptop for school.",
    "SELECT name FROM towns WHERE people > 10000 ORDER BY people DESC;",
    "Die Brücke wurde 1904 gebaut und 1961 erneuert.",
    "La réponse est simple : il faut attendre.",
    "2 + 2 = 4, so the answer is 4.",
    "for (int i = 0; i < n; i++) { sum += a[i]; }",
    "Thank you for your question! As a general rule, it's recommended to drink enough water every day.",
    "Yes.",
    "We sold 14 units in May and 9 in June; July was slow.",
    "To restart the service, run:\n\n```bash\nsudo systemctl restart tides\n```\n\nThen check its status.",
    "My grandmother kept her buttons in a biscuit tin. " * 12,
    "It is important to note that the results may vary. However, this approach offers many benefits. " * 8,
    "for line in open(path):\n    total += len(line.split())\n" * 10,
    "The lighthouse was built in 1859. Its lamp could be seen for twenty miles. " * 6,
    "Sure! Let's break it down step by step. First, we define the problem. " * 5,
]


@pytest.fixture(scope="module")
def cache(cache_of_its_own):
    return cache_of_its_own


@pytest.fixture(scope="module")
def encoder(cache) -> OpenVinoEncoder:
    return OpenVinoEncoder("scar-ranker", cache_dir=cache)


@pytest.fixture(scope="module")
def ranker():
    return load_ranker(resolve_checkpoint("scar-ranker"))


@pytest.fixture(scope="module")
def token_ids(tokenizer) -> list[list[int]]:
    return tokenizer(TEXTS, truncation=True, max_length=512)["input_ids"]


@pytest.fixture(scope="module")
def exact(ranker, token_ids) -> tuple[np.ndarray, np.ndarray]:
    """The vectors in float32, each text alone."""
    with torch.inference_mode():
        vectors = [ranker.encode(torch.tensor([ids])) for ids in token_ids]
    return torch.cat([first for first, _ in vectors]).numpy(), torch.cat([form for _, form in vectors]).numpy()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def scores(ranker, firsts: np.ndarray, forms: np.ndarray) -> np.ndarray:
    """Scores of every text as a response to the first."""
    h, form = torch.from_numpy(firsts), torch.from_numpy(forms)
    with torch.inference_mode():
        return ranker.rank(h[:1].expand_as(h), h, form)[0].numpy()


def test_vectors_agree_with_float32(encoder, token_ids, exact):
    firsts, forms = encoder.encode(token_ids)
    assert encoder.hidden_size == 384
    for found, wanted in zip((firsts, forms), exact, strict=True):
        assert found.shape == wanted.shape == (len(TEXTS), 384) and found.dtype == np.float32
        assert cosines(found, wanted).mean() > 0.99


def test_ranks_agree_with_float32(encoder, token_ids, exact, ranker):
    found, wanted = scores(ranker, *encoder.encode(token_ids)), scores(ranker, *exact)
    ranks = [s.argsort().argsort() for s in (found, wanted)]
    assert np.corrcoef(*ranks)[0, 1] > 0.98


def test_order_does_not_matter(encoder, token_ids):
    order = np.random.default_rng(0).permutation(len(token_ids))
    straight = encoder.encode(token_ids)
    shuffled = encoder.encode([token_ids[i] for i in order])
    for a, b in zip(straight, shuffled, strict=True):
        np.testing.assert_allclose(a[order], b, atol=0.05 * np.abs(a).max())
        assert cosines(a[order], b).min() > 0.999


def test_the_same_texts_give_the_same_vectors(encoder, token_ids):
    for a, b in zip(encoder.encode(token_ids), encoder.encode(token_ids), strict=True):
        np.testing.assert_array_equal(a, b)


def test_company_matters_little(encoder, token_ids):
    together = encoder.encode(token_ids)
    for i in (0, 6, 16):
        for a, b in zip(encoder.encode([token_ids[i]]), together, strict=True):
            assert cosines(a, b[i : i + 1])[0] > 0.995


def test_reports_each_text_once(encoder, token_ids):
    done: list[int] = []
    encoder.encode(token_ids, on_batch=done.extend)
    assert sorted(done) == list(range(len(TEXTS)))


def test_error_in_callback_leaves_encoder_usable(encoder, token_ids):
    def stop(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.encode(token_ids, on_batch=stop)
    assert np.isfinite(encoder.encode(token_ids[:2])[0]).all()


def test_no_texts(encoder):
    assert [vectors.shape for vectors in encoder.encode([])] == [(0, 384), (0, 384)]


def test_budget_of_a_token_gives_each_text_a_batch(encoder, cache, token_ids):
    single = OpenVinoEncoder("scar-ranker", cache_dir=cache, tokens_per_batch=1, num_threads=1)
    batches: list[list[int]] = []
    vectors = single.encode(token_ids, on_batch=batches.append)
    assert sorted(map(tuple, batches)) == [(i,) for i in range(len(TEXTS))]
    for a, b in zip(vectors, encoder.encode(token_ids), strict=True):
        assert cosines(a, b).min() > 0.995


def test_converts_once(encoder, cache, caplog):
    with caplog.at_level(logging.WARNING):
        OpenVinoEncoder("scar-ranker", cache_dir=cache)
    assert CONVERTING not in caplog.text


def test_damaged_model_is_made_again(tiny_ranker, tmp_path, caplog):
    checkpoint, cache = str(tiny_ranker), tmp_path / "cache"
    encoder = OpenVinoEncoder(checkpoint, cache_dir=cache)
    model = cache / "openvino" / encoder.key / "model.bin"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = OpenVinoEncoder(checkpoint, cache_dir=cache)
    assert "damaged" in caplog.text and CONVERTING in caplog.text
    assert sorted(file.name for file in model.parent.iterdir()) == ["hashes.json", "model.bin", "model.xml"]
    assert [folder.name for folder in model.parent.parent.iterdir()] == [encoder.key]
    texts = [list(range(5, 5 + n)) for n in (3, 30, 17)]
    for a, b in zip(again.encode(texts), encoder.encode(texts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unwritable_cache_still_encodes(tiny_checkpoint, tmp_path, caplog):
    (tmp_path / "openvino").write_text("a file where the folder would be")
    with caplog.at_level(logging.WARNING):
        encoder = OpenVinoEncoder(tiny_checkpoint("bert"), precision="float32", cache_dir=tmp_path)
    assert "cannot be cached" in caplog.text
    assert encoder.encode([[5, 6, 7]])[0].shape == (1, 32)


@pytest.fixture
def tiny_checkpoint(tiny_model, tmp_path):
    def make(encoder: str) -> str:
        folder = str(tmp_path / encoder)
        tiny_model(encoder).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert", "gte", "deberta-v2"])
def test_other_encoders(family, tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint(family)
    model = load_ranker(checkpoint)
    encoder = OpenVinoEncoder(checkpoint, precision="float32", cache_dir=tmp_path)
    texts = [list(range(5, 5 + n)) for n in (3, 30, 64, 17)]
    with torch.inference_mode():
        wanted = [torch.cat(vectors) for vectors in zip(*(model.encode(torch.tensor([ids])) for ids in texts), strict=True)]
    for a, b in zip(encoder.encode(texts), wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-3)


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_missing_package_says_what_to_install(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package}: pip install "scar-hf\[cpu\]"'):
        OpenVinoEncoder("scar-ranker", cache_dir=tmp_path)


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"tokens_per_batch": 0}, {"num_threads": 0}])
def test_refuses_other_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OpenVinoEncoder("scar-ranker", **options)


@pytest.mark.parametrize(
    ("settings", "backend", "dtype"),
    [
        ({"dtype": "bfloat16"}, "openvino", "bfloat16"),
        ({"dtype": "int8"}, "openvino", "int8"),
        ({"dtype": "float32"}, "torch", "float32"),
        ({"dtype": "float16"}, "torch", "float16"),
        ({"dtype": "bfloat16", "backend": "torch"}, "torch", "bfloat16"),
        ({"dtype": "bfloat16", "attn_implementation": "eager"}, "torch", "bfloat16"),
        ({"backend": "openvino"}, "openvino", "int8"),
    ],
)
def test_the_scorer_takes_the_backend_that_suits_its_precision(settings, backend, dtype):
    scorer = ScarScorer(device="cpu", **settings)
    assert scorer.backend == backend and scorer.identity()["backend"] == backend and scorer.identity()["dtype"] == dtype
    assert pickle.loads(pickle.dumps(scorer)).identity() == scorer.identity()


@pytest.mark.parametrize(("flags", "warned"), [({"avx2"}, True), ({"avx2", "avx512_vnni"}, False), (set(), False)])
def test_int8_warns_where_a_cpu_has_no_instructions_for_it(flags, warned, tiny_ranker, caplog, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    path = str(tiny_ranker)
    with caplog.at_level(logging.WARNING, "scar_hf"):
        ScarScorer(path, device="cpu", dtype="float32", backend="openvino").score(["q"], ["a"])
        assert "float32" not in caplog.text
        ScarScorer(path, device="cpu", dtype="int8").score(["q"], ["a"])
    assert ('dtype="float32" is as fast' in caplog.text) == warned


def test_a_narrow_encoder_is_not_worth_converting(tiny_checkpoint):
    assert ScarScorer(str(tiny_checkpoint("bert")), device="cpu", dtype="bfloat16").backend == "torch"


@pytest.mark.skipif(default_dtype("cpu") != torch.bfloat16, reason="this CPU does not compute in bfloat16")
def test_the_default_agrees_with_float32():
    default, exact = ScarScorer(device="cpu"), ScarScorer(device="cpu", dtype="float32")
    instructions = [TEXTS[2 * (i // 2)] for i in range(len(TEXTS))]
    found, expected = default.score(instructions, TEXTS), exact.score(instructions, TEXTS)
    assert default.backend == "openvino"
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.corrcoef(found, expected)[0, 1] > 0.9999
