"""Scores are right, however many rows, in whatever order, batch or process."""

import json
import pickle
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from safetensors.torch import load_file, save_file

from scar_hf import ScarScorer, scar_rank, scar_score
from scar_hf.rows.pairs import PairReader
from scar_hf.scoring.checkpoints import resolve_checkpoint
from scar_hf.scoring.chunks import batches_by_tokens, cut_chunks


def pairs(n):
    instructions = [f"What is number {i % 7}?" for i in range(n)]
    return instructions, [f"Number {i} is " + "very " * (i * 7 % 40) + "well known." for i in range(n)]


@pytest.fixture
def copy(tmp_path):
    """A copy of the bundled ranker that a test may damage."""
    return shutil.copytree(resolve_checkpoint("scar-ranker"), tmp_path / "copy")


@pytest.mark.parametrize("n", [0, 1, 2, 33])
def test_any_number_of_rows(scorer, n):
    scores = scorer.score(*pairs(n))
    assert scores.shape == (n,) and scores.dtype == np.float32 and np.isfinite(scores).all()


def test_scores_do_not_depend_on_batch_or_order(scorer):
    instructions, responses = pairs(40)
    expected = scorer.score(instructions, responses)
    small = ScarScorer("scar-ranker", device="cpu", dtype="float32", tokens_per_batch=64).score(instructions, responses)
    np.testing.assert_allclose(small, expected, atol=1e-5)
    backwards = scorer.score(instructions[::-1], responses[::-1])
    np.testing.assert_allclose(backwards[::-1], expected, atol=1e-5)
    alone = [scorer.score([x], [y])[0] for x, y in zip(instructions[:5], responses[:5], strict=True)]
    np.testing.assert_allclose(alone, expected[:5], atol=1e-5)


def test_scores_are_the_models(scorer):
    x, y = scorer.tokenizer(["What do bees eat?"], return_tensors="pt"), scorer.tokenizer(["Nectar."], return_tensors="pt")
    with torch.no_grad():
        expected = scorer.model(x["input_ids"], y["input_ids"]).scores.item()
    assert scorer.score(["What do bees eat?"], ["Nectar."])[0] == pytest.approx(expected, abs=1e-5)


def test_each_distinct_text_is_encoded_once(scorer, monkeypatch):
    encoded = []
    encode = type(scorer.model).encode
    monkeypatch.setattr(
        type(scorer.model), "encode", lambda self, ids, mask: encoded.append(len(ids)) or encode(self, ids, mask)
    )
    scorer.score(["same question"] * 20, ["same answer"] * 10 + ["another answer"] * 10)
    assert sum(encoded) == 3


def test_long_texts_are_cut_and_counted(scorer, caplog):
    body = " ".join(f"word{i % 97}" for i in range(900))
    ds = Dataset.from_list([{"prompt": "Q", "completion": text} for text in ("short", body, body + " and more.")])
    ranking = scar_rank(ds, model=scorer, progress=False)
    assert ranking.truncated.tolist() == [False, True, True]
    assert "2 of 3 rows have texts that were truncated to 512 tokens" in caplog.text


@pytest.mark.parametrize("pooling", ["first_token", "mean"])
def test_long_texts_are_read_in_windows(tiny_model, tokenizer, pooling):
    """The maximum over tokens is that of all windows; the first-token vector is the first's, the mean that of all tokens."""
    model = tiny_model(vocab_size=len(tokenizer), pooling=pooling)
    windows = ScarScorer.from_model(model, tokenizer, truncation=False, max_length=16)
    body = " ".join(f"word{i % 97}" for i in range(40))
    ids = tokenizer(body, add_special_tokens=False)["input_ids"]
    pieces = [[tokenizer.cls_token_id, *ids[i : i + 14], tokenizer.sep_token_id] for i in range(0, len(ids), 14)]
    with torch.no_grad():
        encoded = [model.encode(torch.tensor([piece])) for piece in pieces]
        text = sum(vector * len(piece) for (vector, _), piece in zip(encoded, pieces, strict=True)) / sum(map(len, pieces))
        if pooling == "first_token":
            text = encoded[0][0]
        form = torch.stack([form for _, form in encoded]).amax(dim=0)
        question, _ = model.encode(tokenizer("Q", return_tensors="pt")["input_ids"])
        expected, _ = model.rank(question, text, form)
    assert windows.score(["Q"], [body])[0] == pytest.approx(expected.item(), abs=1e-5)


def test_a_conversation_scores_the_mean_of_its_turns(scorer):
    chat = [("user", "Hi?"), ("assistant", "Hello."), ("tool", "{}"), ("user", "What is moss?"), ("assistant", "A plant.")]
    messages = [{"role": role, "content": text} for role, text in chat]
    every = ScarScorer("scar-ranker", device="cpu", dtype="float32", turn="all")
    found = every({"messages": [messages, messages[:2], None]})["scar_score"]
    single = scorer.score(["Hi?", "What is moss?"], ["Hello.", "A plant."])
    assert found[0] == pytest.approx(single.mean(), abs=1e-5) and found[1] == pytest.approx(single[0], abs=1e-5)
    assert found[2] is None


@pytest.mark.parametrize("lengths", [(300, 290, 120), (128, 128), (7, 3), (97,)])
def test_attention_in_blocks_is_attention(scorer, lengths):
    fast = ScarScorer("scar-ranker", device="cpu", dtype="bfloat16", backend="torch")
    plain = ScarScorer("scar-ranker", device="cpu", dtype="bfloat16", attn_implementation="eager")
    assert fast.model.encoder.config._attn_implementation == "scar_cpu"
    assert plain.model.encoder.config._attn_implementation == "eager"
    ids = [list(range(1000, 1000 + n)) for n in lengths]
    expected = scorer._encoder.encode(ids)
    for found, other, exact in zip(fast._encoder.encode(ids), plain._encoder.encode(ids), expected, strict=True):
        off, usual = (np.linalg.norm(vectors - exact) / np.linalg.norm(exact) for vectors in (found, other))
        assert off < 1.5 * usual + 1e-3 and usual < 0.03


def test_out_of_memory_halves_the_batches_and_goes_on(copy, monkeypatch, caplog):
    scorer = ScarScorer.from_pretrained(str(copy), device="cpu", dtype="float32")
    expected = scorer.score(*pairs(40))
    encode, seen = type(scorer.model).encode, []

    def scarce(self, ids, mask=None):
        if ids.numel() > 100:
            raise torch.OutOfMemoryError
        seen.append(ids.numel())
        return encode(self, ids, mask)

    monkeypatch.setattr(type(scorer.model), "encode", scarce)
    np.testing.assert_allclose(scorer.score(*pairs(40)), expected, atol=1e-5)
    assert max(seen) <= 100 and scorer._encoder.tokens_per_batch <= 200
    assert "Out of memory: continuing" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score(["q"], ["word " * 300])


def test_all_cores_are_used_and_given_back(copy):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lazy = ScarScorer(str(copy), device="cpu", backend="torch")
        lazy.score(*pairs(3))
        assert lazy._encoder._workers._executor._max_workers == 2 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_interrupt_does_not_wait_for_the_rest(copy, monkeypatch):
    scorer = ScarScorer.from_pretrained(str(copy), device="cpu", tokens_per_batch=16, backend="torch")
    batches = []
    forward = type(scorer._encoder)._forward
    monkeypatch.setattr(type(scorer._encoder), "_forward", lambda self, ids: batches.append(1) or forward(self, ids))
    chunks = iter(cut_chunks(PairReader().read({"prompt": pairs(9000)[0], "completion": pairs(9000)[1]})))

    def interrupted():
        yield next(chunks)
        yield next(chunks)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(scorer.score_chunks(interrupted()))
    assert len(batches) < 200  # of some three thousand


def test_long_texts_are_cut_at_max_length(scorer):
    long, longer = "word " * 600, "word " * 600 + "other " * 50
    first, second = scorer.score(["Q", "Q"], [long, longer])
    assert first == pytest.approx(second, abs=1e-5)
    short = ScarScorer("scar-ranker", device="cpu", dtype="float32", max_length=8)
    a, b = short.score(["Q", "Q"], ["one two three four five six seven", "one two three four five six eight nine"])
    assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_half_precision_ranks_as_single_does(scorer, dtype):
    half = ScarScorer("scar-ranker", device="cpu", dtype=dtype, backend="torch").score(*pairs(40))
    full = scorer.score(*pairs(40))
    ranks = [np.argsort(np.argsort(scores)) for scores in (half, full)]
    assert np.corrcoef(*ranks)[0, 1] > 0.98


def test_batches_hold_every_text_within_the_budget():
    lengths = [5, 100, 3, 60, 60, 7, 1, 300]
    batches = list(batches_by_tokens(lengths, 128))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 128 for b in batches)
    assert batches[0] == [7]


def test_map_adds_the_column_and_fingerprints_hold(rows, scorer):
    ds = Dataset.from_list(rows)
    scored = ds.map(scar_score(device="cpu", dtype="float32"), batched=True, batch_size=4)
    expected = scorer.score([r["instruction"] for r in rows], [r["response"] for r in rows])
    np.testing.assert_allclose(scored["scar_score"][:], expected, atol=1e-5)
    assert scored["id"][:] == list(range(10))
    assert Hasher.hash(scar_score()) == Hasher.hash(ScarScorer.from_pretrained("scar-ranker", tokens_per_batch=100))
    assert Hasher.hash(scar_score()) != Hasher.hash(scar_score(max_length=100))
    code = "from scar_hf import scar_score; from datasets.fingerprint import Hasher; print(Hasher.hash(scar_score()))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]
    assert other == Hasher.hash(scar_score())


def test_a_scorer_travels_to_workers_without_its_weights(scorer):
    data = pickle.dumps(scorer)
    assert len(data) < 2000
    np.testing.assert_allclose(pickle.loads(data).score(*pairs(3)), scorer.score(*pairs(3)), atol=1e-5)


@pytest.mark.parametrize(
    ("instructions", "responses", "message"),
    [
        (["q"], [""], "row 0: the response is empty"),
        (["q", "q"], ["fine", " \n"], "row 1: the response is empty"),
        (["q"], [None], "row 0: the response is missing"),
        ([None], ["a"], "row 0: the instruction is missing"),
        (["q"], [3], "must be a string, not int"),
        (["q"], [], "same length, got 1 and 0"),
    ],
)
def test_rows_that_cannot_be_scored_are_named(scorer, instructions, responses, message):
    with pytest.raises(ValueError, match=message):
        scorer.score(instructions, responses)


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("score_head.dense.weight"), "1 missing keys: score_head.dense.weight"),
        (lambda w: w.update(extra=torch.zeros(2)), "1 unexpected keys: extra"),
        (lambda w: w.update({"score_head.dense.bias": torch.zeros(7)}), "other shapes than its config says"),
    ],
)
def test_half_loaded_weights_are_refused(copy, change, message):
    edit_weights(copy, change)
    with pytest.raises(ValueError, match=message):
        ScarScorer.from_pretrained(str(copy))


def test_a_cut_checkpoint_is_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"The weights of .* cannot be loaded: "):
        ScarScorer.from_pretrained(str(copy))


def test_nan_weights_are_noticed(copy):
    edit_weights(copy, lambda w: w["score_head.out_proj.bias"].fill_(float("nan")))
    with pytest.raises(ValueError, match=r"save it again"):
        ScarScorer.from_pretrained(str(copy), device="cpu")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"probe": None}))
    with pytest.raises(ValueError, match=r"is finite"):
        ScarScorer.from_pretrained(str(copy), device="cpu").score(["q"], ["a"])


def test_other_folders_are_no_rankers(tmp_path, encoder_folder, copy):
    with pytest.raises(ValueError, match=r"type 'bert', not a SCAR ranker"):
        ScarScorer.from_pretrained(str(encoder_folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no config\.json"):
        ScarScorer.from_pretrained(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"No SCAR ranker found"):
        ScarScorer.from_pretrained("nobody/no-such-ranker")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config)[:-40])
    with pytest.raises(ValueError, match=r"No SCAR ranker found|not a valid JSON"):
        ScarScorer.from_pretrained(str(copy))


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "int8", "backend": "torch"},
        {"dtype": "int4"},
        {"dtype": "float16", "backend": "openvino"},
        {"device": "cuda", "backend": "openvino"},
        {"backend": "jax"},
        {"tokens_per_batch": 0},
        {"max_length": 2},
        {"truncation": "forget"},
    ],
)
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"must be|There is no device|backend=\"openvino\""):
        ScarScorer("scar-ranker", **settings)


def test_max_length_beyond_the_encoder_is_refused():
    with pytest.raises(ValueError, match=r"at most 512 tokens"):
        ScarScorer.from_pretrained("scar-ranker", max_length=600)


def test_a_ranker_stays_loaded_until_its_files_change(tiny_model, tokenizer, tmp_path, monkeypatch):
    from scar_hf.scoring import loaded

    folder, loads = tmp_path / "ranker", []
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    load = loaded.load_ranker
    monkeypatch.setattr(loaded, "load_ranker", lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs))
    settings = {"device": "cpu", "dtype": "float32", "backend": "torch"}
    texts = (["q", "p"], ["a", "b"])

    def score(**more) -> np.ndarray:
        return ScarScorer(str(folder), **(settings | more)).score(*texts)

    first = score()
    np.testing.assert_array_equal(score(), first)
    assert len(loads) == 1
    assert score(max_length=10).shape == (2,) and len(loads) == 2  # other settings
    score()
    assert len(loads) == 3
    tiny_model(seed=1, vocab_size=len(tokenizer)).save_pretrained(folder)
    assert np.abs(score() - first).max() > 1e-4 and len(loads) == 4


def test_a_ranker_that_someone_may_change_is_theirs_alone(tiny_ranker):
    make = partial(ScarScorer, str(tiny_ranker), device="cpu", dtype="float32", backend="torch")
    scorers = [make(), make(), make()]
    first = [scorer.score("q", "a") for scorer in scorers]
    assert len(set(first)) == 1 and scorers[0]._encoder is scorers[1]._encoder
    changed = scorers[1].model
    assert changed is scorers[1].model
    with torch.no_grad():
        changed.score_head.out_proj.bias += 1
    found = [scorer.score("q", "a") for scorer in [*scorers, make()]]
    assert np.argmax(np.abs(np.array(found) - first[0]) > 0.5) == 1 and found[0] == found[2] == found[3] == first[0]


def test_a_large_ranker_is_not_kept(tiny_ranker, monkeypatch):
    from scar_hf.scoring import loaded

    monkeypatch.setattr(loaded, "_LARGEST_KEPT", 1000)
    one, other = (ScarScorer(str(tiny_ranker), device="cpu", dtype="float32", max_length=33) for _ in range(2))
    assert one.score("q", "a") == other.score("q", "a") and one._encoder is not other._encoder
