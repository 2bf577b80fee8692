"""The bundled fast ranker: a ScarModel on a static encoder that stands in for the bundled ranker."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from scar_hf.hub_cards import ranker_card
from scar_hf.modeling import ScarStaticConfig, ScarStaticEncoder
from transformers import AutoConfig, AutoModel, pipeline

from scar_hf import ScarConfig, ScarModel, ScarScorer, scar_select
from scar_hf.cli import main
from scar_hf.files import read_dataset
from scar_hf.ranks import mean_ranks
from scar_hf.scoring.checkpoints import resolve_checkpoint

EXAMPLE = Path(__file__).parent.parent / "examples" / "mixed_styles" / "mixed_styles.jsonl"
PAIR = {"instruction": "What do bees eat?", "response": "Bees eat nectar and pollen."}


@pytest.fixture(scope="module")
def fast() -> ScarScorer:
    return ScarScorer.from_pretrained("scar-ranker-fast", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def pairs() -> tuple[list[str], list[str]]:
    ds = read_dataset(EXAMPLE)
    return ds["instruction"][::4], ds["response"][::4]


@pytest.fixture
def encoder() -> ScarStaticEncoder:
    torch.manual_seed(0)
    made = ScarStaticEncoder(ScarStaticConfig(vocab_size=50, hidden_size=11)).eval()
    torch.nn.init.normal_(made.neighbours)
    return made


def test_it_stands_in_for_the_bundled_ranker(fast, scorer, pairs):
    """On texts that neither was trained on."""
    ranks = [mean_ranks(ranker.score(*pairs)) for ranker in (scorer, fast)]
    assert np.corrcoef(*ranks)[0, 1] > 0.7
    best, looked = (set(np.argsort(-found)[:count].tolist()) for found, count in zip(ranks, (16, 80), strict=True))
    assert len(best & looked) >= 14


def test_it_reads_the_instruction(fast, pairs):
    instructions, responses = pairs
    own, other = fast.score(instructions, responses), fast.score(np.roll(instructions, 1).tolist(), responses)
    assert (own != other).all() and (own > other).mean() > 0.9


def test_it_is_many_times_faster(fast, scorer, pairs):
    """Processor time, of which other work on the machine takes nothing away."""
    seconds = []
    for ranker in (scorer, fast):
        ranker.score(*(side[:8] for side in pairs))
        begin = time.process_time()
        ranker.score(*pairs)
        seconds.append(time.process_time() - begin)
    assert seconds[0] > 10 * seconds[1]


def test_every_place_that_takes_a_ranker_takes_its_name(fast, tmp_path, capsys):
    rows = [PAIR | {"instruction": f"{PAIR['instruction']} {i}"} for i in range(20)]
    assert len(scar_select(Dataset.from_list(rows), k=5, model="scar-ranker-fast", progress=False)) == 5
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["select", str(data), "-k", "5", "-o", str(tmp_path / "best.jsonl"), "--model", "scar-ranker-fast"]
    assert main([*line, "--explain", "--quiet"]) == 0
    assert json.loads((tmp_path / "best.jsonl.manifest.json").read_text())["ranker"]["model"] == "scar-ranker-fast"
    assert main(["export", "scar-ranker-fast", "-o", str(tmp_path / "exported")]) == 0
    model = AutoModel.from_pretrained(tmp_path / "exported")
    assert type(model) is ScarModel and type(model.encoder) is ScarStaticEncoder
    expected = fast.score([PAIR["instruction"]], [PAIR["response"]])
    ranker = pipeline("scar-ranking", model=str(tmp_path / "exported"), device="cpu")
    assert ranker(PAIR)["score"] == pytest.approx(float(expected[0]), abs=1e-5)
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "again").encoder.neighbours, model.encoder.neighbours)


def test_padding_and_company_change_nothing(encoder):
    model = ScarModel(ScarConfig(encoder_config=encoder.config, pooling="mean", head_size=8)).eval()
    model.encoder = encoder
    ids = torch.randint(1, 50, (3, 7))
    mask = torch.ones_like(ids)
    alone = model.encode(ids)
    right = torch.nn.functional.pad(ids, (0, 4)), torch.nn.functional.pad(mask, (0, 4))
    left = torch.nn.functional.pad(ids, (4, 0)), torch.nn.functional.pad(mask, (4, 0))
    for padded in (right, left):
        for found, expected in zip(model.encode(*padded), alone, strict=True):
            torch.testing.assert_close(found, expected)


def test_states_count_and_see_their_neighbours(encoder):
    ids = torch.tensor([[5, 6, 5, 7, 5]])
    states = encoder(ids).last_hidden_state[0]
    assert states[:, -1].tolist() == [0, 0, 1, 0, 1]  # whether the token occurred before
    assert states[:, -3].tolist() == [1] * 5 and (states[1:, -2] > states[:-1, -2]).all()
    changed = encoder(torch.tensor([[5, 6, 5, 8, 5]])).last_hidden_state[0]
    same = (states == changed).all(dim=1).tolist()
    assert same[:2] == [True, True] and not any(same[2:])
    assert (states >= 0).all()


def test_config(tmp_path):
    config = AutoConfig.for_model("scar-static", vocab_size=40, hidden_size=9)
    assert type(config) is ScarStaticConfig
    AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")
    assert ScarModel.from_encoder(str(tmp_path / "encoder")).config.hidden_size == 9
    with pytest.raises(ValueError, match="must be more than 3"):
        ScarStaticConfig(hidden_size=3)
    with pytest.raises(ValueError, match="`embedding_size` must be at least 1, got 0"):
        ScarStaticConfig(embedding_size=0)


def test_size_and_card(fast):
    folder = Path(resolve_checkpoint("scar-ranker-fast"))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12_000_000
    assert fast.model.config.training["teacher"] == "scar-ranker" and len(fast.model.config.calibration["quantiles"]) == 1001
    card = (folder / "README.md").read_text(encoding="utf-8")
    for expected in ("Agreement with its teacher", "validation_sources", "words", "license: apache-2.0", "none stated"):
        assert expected in card
    assert str(ranker_card("scar-ranker-fast", license="apache-2.0")).count("Agreement with its teacher") == 1


def test_its_card_names_its_teacher_and_no_encoder():
    text = str(ranker_card(resolve_checkpoint("scar-ranker-fast"), license="apache-2.0"))
    assert "| teacher | scar\\-ranker |" in text and "| encoder |" not in text
