"""Cards of selections, rankers and fine-tuned models: what they say, what they leave alone, and what the Hub takes."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from scar_hf.hub_cards import amend_model_card, ranker_card, selection_card, selection_contents
from scar_hf.hub_cards.metadata import license_metadata, size_category
from scar_hf.hub_cards.ranker_card import wilson

from scar_hf import ScarModel, ScarScorer, scar_rank
from scar_hf.cli import card as card_command
from scar_hf.cli import main
from scar_hf.files import read_dataset, without_local_folders
from scar_hf.report.figures import draw, score_histogram
from scar_hf.runs import select_files
from scar_hf.selecting.criteria import Criteria
from scar_hf.style import compare

HOSTILE = (
    "a|b\n# *c* <img src=x onerror=alert(1)> [d](https://e.org) https://f.org @g `h` <!-- /scar-hf:selection -->\u202e\ud800"
)
MANIFEST = {
    "format": 1,
    "data": "/home/jane/secret/dolly.jsonl",
    "inputs": [{"path": "/home/jane/secret/dolly.jsonl", "sha256": "0" * 64, "bytes": 10}],
    "parent": None,
    "ranker": {"model": "scar-ranker", "revision": None, "weights": "8e" * 32},
    "settings": {
        "dtype": "float32",
        "backend": "torch",
        "max_length": 512,
        "turn": "first",
        "truncation": True,
        "columns": None,
    },
    "options": {"k": 0.1},
    "versions": {"scar-hf": "0.1.0"},
    "selection": {"rows": 1000, "scored": 990, "skipped": 10, "truncated": 7, "kept": 100, "threshold": 1.25, "dropped": 40},
}
HUB_INPUT = {"path": "dolly/default", "fingerprint": "ab", "pairs_sha256": "cd",
             "files": ["hf://datasets/databricks/dolly@" + "1f" * 20 + "/data.jsonl"]}  # fmt: skip


def check_metadata(card) -> dict:
    """The rules of the Hub's published specifications (modelcard.md, datasetcard.md) for all that we write."""
    metadata = card.data.to_dict()
    assert card.data.to_dict() == type(card)(str(card)).data.to_dict(), "the metadata changes when it is read again"
    licence = metadata.get("license")
    if licence is not None:
        assert re.fullmatch(r"[a-z0-9.+-]+", licence)
        assert (licence == "other") == ("license_name" in metadata)
        assert re.fullmatch(r"[a-z0-9.+-]+", metadata.get("license_name", "x"))
    language = metadata.get("language", [])
    for code in [language] if isinstance(language, str) else language:
        assert re.fullmatch(r"[a-z]{2,3}", code) or code in ("code", "multilingual")
    for size in metadata.get("size_categories", []):
        assert re.fullmatch(r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B|1B<n<10B", size)
    for task in [*metadata.get("task_categories", []), *filter(None, [metadata.get("pipeline_tag")])]:
        assert task in ("text-generation", "text-ranking", "question-answering")
    for name in (*metadata.get("source_datasets", []), *metadata.get("datasets", [])):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", name)
    assert all(isinstance(tag, str) and 0 < len(tag) <= 80 for tag in metadata["tags"])
    for config in metadata.get("configs", []):
        assert config["config_name"] and all({"split", "path"} == set(file) for file in config["data_files"])
    for entry in metadata.get("model-index", []):
        assert entry["name"] and entry["results"]
        for result in entry["results"]:
            assert result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
            for metric in result["metrics"]:
                assert metric["type"] in metadata["metrics"] and 0 <= metric["value"] <= 1
                assert metric["args"]["low"] <= metric["value"] <= metric["args"]["high"]
    return metadata


def html_of(card) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)


def test_a_selections_card_says_all_of_the_manifest_and_nothing_of_the_machine():
    card = selection_card(
        MANIFEST,
        repo_id="me/dolly-scar-10pct",
        counts={"brainstorming": (300, 50), "closed_qa": (700, 50)},
        reasons={"skipped": {"the response is empty": 10}, "dropped": {"near-duplicate": 39}},
        license="CC-BY-SA-3.0",
        language="en",
        data_files=["data/train.parquet"],
    )
    metadata = check_metadata(card)
    assert metadata["license"] == "cc-by-sa-3.0" and metadata["language"] == ["en"] and metadata["size_categories"] == ["n<1K"]
    assert "source_datasets" not in metadata and "jane" not in str(card)
    for line in (
        "100 of 1,000 rows (10.0%)",
        "| Source | dolly.jsonl |",
        "| Lowest score kept | 1.2500 |",
        "| not chosen | 850 | 85.0% |",
        "| left out by curation: near\\-duplicate | 39 | 3.9% |",
        "| left out by curation: other reasons | 1 | 0.1% |",
        "| no score: the response is empty | 10 | 1.0% |",
        "| brainstorming | 300 | 50 | 16.7% | 50.0% |",
        "7 rows have a text of more than 512 tokens, of which the ranker read only the beginning.",
        "The rows keep the licence of the source: cc\\-by\\-sa\\-3.0.",
        "scar-hf select dolly.jsonl -k 0.1",
    ):
        assert line in card.text


def test_names_that_become_equal_without_their_folders_are_kept_apart():
    sets = {"/home/jane/a/test.jsonl": 3, "/home/jane/b/test.jsonl": 4, "here.jsonl": 5}
    assert without_local_folders({"evaluation_rows": sets}) == {
        "evaluation_rows": {"test.jsonl": 3, "test.jsonl (2)": 4, "here.jsonl": 5}
    }


def test_a_source_on_the_hub_is_named_with_its_revision():
    card = selection_card(MANIFEST | {"inputs": [HUB_INPUT]})
    assert check_metadata(card)["source_datasets"] == ["databricks/dolly"]
    assert "1f" * 20 in card.text and "https://huggingface.co/datasets/databricks/dolly" in card.text
    from_the_command_line = MANIFEST | {"data": "me/set", "inputs": [{"path": "me/set", "fingerprint": "ab"}]}
    assert check_metadata(selection_card(from_the_command_line))["source_datasets"] == ["me/set"]


def test_a_card_says_which_method_threshold_and_format(tmp_path):
    longest = {"ranker": {"model": None}, "settings": MANIFEST["settings"] | {"method": "longest"}}
    manifest = MANIFEST | longest | {"options": {"k": None, "threshold": 1.25, "sft_format": True}}
    amend_model_card(tmp_path / "README.md", manifest)
    model, selected = ModelCard.load(tmp_path / "README.md"), selection_card(manifest)
    assert "those that the method longest scored highest" in selected.text and "SCAR]" not in model.text + selected.text
    assert "the method longest scored each row" in model.text and "are converted to the format of TRL's" in selected.text
    for card in (model, selected):
        assert "| Threshold | 1.25 |" in card.text and "all rows" not in card.text
    with_ranker = selection_card(manifest | {"ranker": MANIFEST["ranker"]})
    assert "| Method | longest |" in with_ranker.text and "| Ranker | scar\\-ranker |" in with_ranker.text


def test_a_licence_is_carried_over_or_said_to_be_missing():
    source = {"license": "other", "license_name": "house-rules", "license_link": "LICENSE", "language": ["de"]}
    carried = selection_card(MANIFEST, source=source)
    assert check_metadata(carried) | source == carried.data.to_dict()
    assert "license" not in check_metadata(selection_card(MANIFEST)) and "No licence was found" in selection_card(MANIFEST).text
    assert check_metadata(selection_card(MANIFEST, source=source, license="mit"))["license"] == "mit"
    old = "---\nlicense: other\nlicense_name: old\nlicense_link: https://e.org/old\n---\n"
    assert "license_link" not in check_metadata(selection_card(MANIFEST, card=old, license="House Rules"))
    assert "license_link" not in check_metadata(ranker_card("scar-ranker", card=old, license="mit"))
    assert selection_card(MANIFEST, card=old, license="old").data.license_link == "https://e.org/old"
    assert license_metadata("Llama3.1") == {"license": "llama3.1"}
    assert license_metadata("House Rules, v1!") == {"license": "other", "license_name": "house-rules-v1"}


def test_texts_of_the_data_are_shown_and_not_obeyed():
    named = MANIFEST | {"data": HOSTILE, "inputs": []}
    card = selection_card(named, counts={HOSTILE: (1, 1)}, reasons={"skipped": {HOSTILE: 10}})
    assert len(re.findall("<!-- /scar-hf:selection -->", card.text)) == 1
    page = html_of(card)
    assert "<img" not in page and "alert(1)" in page and 'href="https://e.org"' not in page and "<h1># " not in page
    cells = re.search(r"<tr>\s*<td>a\|b # \*c\* .*?</tr>", page, re.DOTALL)
    assert cells is not None and cells[0].count("<td") == 5
    again = selection_card(named, card=str(card))
    assert again.text.count("## How these rows were selected") == 1
    str(card).encode("utf-8")


def test_a_card_that_exists_is_amended_between_markers():
    info = {
        "config_name": "other",
        "features": [{"name": "a", "dtype": "int64"}],
        "splits": [{"name": "train", "num_examples": 1}],
    }
    there = DatasetCard(
        "---\nlicense: mit\ntags: [mine]\n"
        f"dataset_info: {json.dumps(info)}\nconfigs:\n- config_name: other\n  data_files: [{{split: train, path: o/*}}]\n"
        "---\n\n# Mine\n\nText.\n"
    )
    card = selection_card(MANIFEST, card=str(there), source={"license": "apache-2.0"})
    assert card.text.startswith("\n# Mine\n\nText.\n") and "licence of the source: mit" in card.text
    metadata = check_metadata(card)
    assert (
        metadata["license"] == "mit"
        and metadata["dataset_info"] == info
        and metadata["tags"] == ["mine", "scar", "data-selection"]
    )
    assert metadata["configs"] == there.data["configs"]
    replaced = selection_card(MANIFEST, card=str(card), data_files=["data/x.parquet"])
    assert [config["config_name"] for config in check_metadata(replaced)["configs"]] == ["default", "other"]
    assert selection_card(MANIFEST, card=str(replaced), data_files=["data/x.parquet"]).content == replaced.content
    bigger = MANIFEST | {"selection": MANIFEST["selection"] | {"kept": 1000, "rows": 9000}}
    assert check_metadata(selection_card(bigger, card=str(card)))["size_categories"] == ["1K<n<10K"]


def test_what_is_no_manifest_or_no_card_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="does not describe a selection"):
        selection_card(MANIFEST | {"selection": {"rows": 3}})
    with pytest.raises(ValueError, match="should be a dict"):
        selection_card(MANIFEST, card="---\n- a\n---\ntext")
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\ntext")
    with pytest.raises(ValueError, match=r"The metadata of .*README.md cannot be read: while parsing"):
        amend_model_card(tmp_path / "README.md", MANIFEST)
    with pytest.raises(ValueError, match="expected 'scar'"):
        ranker_card(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        ranker_card("no-such-folder")


def test_size_categories():
    assert [size_category(n) for n in (0, 999, 1000, 10**6, 10**9)] == ["n<1K", "n<1K", "1K<n<10K", "1M<n<10M", "1B<n<10B"]


def test_the_style_before_and_after(rows):
    before = Dataset.from_list(rows)
    change = compare(before, before.select(range(5)), progress=False, samples=50)
    card = selection_card(MANIFEST, consistency=change, pictures=[("_images/style.png", "Spread | of style")])
    assert (
        "Measured on 10 rows before and 5 rows after" in card.text and "![Spread \\| of style](_images/style.png)" in card.text
    )
    assert re.search(r"\| Words \| [\d.]+ \| [\d.]+ \| [\d.]+ \| [\d.]+ \| -\d+ % \|", card.text)
    assert selection_card(MANIFEST, consistency=change.to_dict()).text == selection_card(MANIFEST, consistency=change).text


def test_the_bundled_rankers_card():
    own = {"licences": {"dolly_qwen": "CC BY-SA 3.0 | and more"}, "license": "apache-2.0"}
    card = ranker_card("scar-ranker", card="---\nlanguage: en\n---\n# Mine\n", **own)
    metadata = check_metadata(card)
    assert metadata["base_model"] == "sentence-transformers/all-MiniLM-L6-v2" and metadata["pipeline_tag"] == "text-ranking"
    results = metadata["model-index"][0]["results"]
    assert results[0]["metrics"][0]["value"] == 0.9352 and results[0]["dataset"]["split"] == "test" and len(results) == 38
    assert "| dolly\\_qwen | CC BY\\-SA 3.0 \\| and more |" in card.text
    assert "| outfox\\_essays | not stated here |" in card.text
    assert "| **all** | 2,045 | 0.935 (0.921 to 0.948) |" in card.text and "| 10% | 5.141 |" in card.text
    assert ranker_card("scar-ranker", card=str(card), **own).content == card.content
    with pytest.raises(ValueError, match="was not trained on"):
        ranker_card("scar-ranker", licences={"nonsense": "MIT"})


def test_what_was_written_by_hand_is_not_said_twice():
    by_hand = ranker_card("scar-ranker")
    assert check_metadata(by_hand)["model-index"][0]["results"]
    assert (
        by_hand.text.count("## Limitations") == 1
        and "merely repeats the question" in by_hand.text
        and "## Uses" in by_hand.text
    )
    assert "not stated here" not in by_hand.text


def test_others_results_stay_and_ours_are_replaced():
    card = ranker_card("scar-ranker")
    other = card.data.eval_results[0].__class__(
        "summarization", "xsum", "XSum", "accuracy", 0.5, metric_args={"low": 0, "high": 1}
    )
    card.data.eval_results = [*card.data.eval_results, other]
    again = ranker_card("scar-ranker", card=str(card))
    assert [result.dataset_type for result in again.data.eval_results].count("xsum") == 1
    assert len(again.data.eval_results) == 39


def test_a_ranker_that_says_nothing_of_its_training_has_a_card(tiny_ranker, tmp_path):
    card = ranker_card(tiny_ranker, repo_id="me/tiny")
    metadata = check_metadata(card)
    assert "model-index" not in metadata and "license" not in metadata and "## Training" not in card.text
    assert 'ScarScorer.from_pretrained("me/tiny")' in card.text
    model = ScarModel.from_pretrained(tiny_ranker)
    model.config.training = {"encoder": "some/encoder", "converted_from": "some/ranker"}
    model.save_pretrained(tmp_path)
    converted = ranker_card(tmp_path).text
    assert "| converted from | some/ranker |" in converted and "rows of training data" not in converted
    assert "None" not in converted


def test_wilson_intervals():
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)  # not 1 to 1
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_a_fine_tuned_models_card(tmp_path):
    path = tmp_path / "README.md"
    amend_model_card(path, MANIFEST | {"inputs": [HUB_INPUT]})
    card = ModelCard.load(path)
    assert check_metadata(card)["datasets"] == ["databricks/dolly"] and "| Rows left out by curation | 40 |" in card.text


def test_a_manifest_cannot_put_markup_links_commands_or_metadata_into_a_card(tmp_path):
    evil = "x](javascript:alert(1)) `<img src=x onerror=alert(2)>`\n\n# Injected\n---\nlicense: mit\n---\n{{ 7 * 7 }}"
    manifest = MANIFEST | {
        "inputs": [{"path": "d", "fingerprint": evil, "files": [f"hf://datasets/{evil}@{evil}/data.jsonl"]}],
        "ranker": {"model": evil, "revision": evil, "weights": "`<img src=y>"},
        "options": {"k": 0.1, "stratify_by": evil},
        "versions": {"scar-hf": "1\nrm -rf ~"},
    }
    style = {"rows_before": 2, "rows_after": 1, "notes": [evil], "measures": {}}
    path = tmp_path / "README.md"
    amend_model_card(path, manifest)
    selection = selection_card(
        manifest, counts={evil: (2, 1)}, reasons={"dropped": {evil: 40}}, consistency=style, pictures=[("_images/a.png", evil)]
    )
    for card in (selection, ModelCard.load(path)):
        page = html_of(card)
        assert not re.search(r'(href|src)="[^"]*javascript', page) and "<img src=x" not in page and "<img src=y" not in page
        assert "Injected" in page and not re.search(r"<h\d>[^<]*Injected", page) and "license" not in check_metadata(card)
        assert "{{ 7 * 7 }}" in page
    assert "source_datasets" not in selection.data.to_dict() and "pip install scar-hf\n" in selection.text


def test_pictures_are_the_same_bytes_for_the_same_scores():
    pytest.importorskip("matplotlib")
    scores = np.random.default_rng(0).normal(size=500)
    scores[3] = np.nan
    histogram = score_histogram(scores, np.flatnonzero(scores > 1))
    assert histogram["threshold"] == pytest.approx(scores[scores > 1].min(), abs=1e-5)
    assert sum(histogram["kept"]) == (scores > 1).sum() and sum(histogram["others"]) == (scores <= 1).sum()
    numbers = {"scores": histogram, "calibration": np.sort(scores[4:]).tolist()}
    images = draw(numbers, "png")
    assert set(images) == {"scores", "calibration"} and images == draw(numbers, "png")
    assert draw({"scores": score_histogram(np.array([np.nan]))}, "png") == {}


def test_the_figure_of_scores_shows_the_rows_kept_of_each_source(tiny_ranker, write_jsonl, tmp_path, monkeypatch):
    drawn: dict = {}
    rows = [{"instruction": f"Q{i}", "response": "So it is. " * (1 + i % 9), "source": "ab"[i % 9 > 3]} for i in range(40)]
    scorer = ScarScorer(str(tiny_ranker), device="cpu", dtype="float32")
    settings = {"all_rows": True, "explain": True, "progress": False, "cache": False}
    select_files(write_jsonl(rows), tmp_path / "out", scorer, Criteria(0.25, stratify_by="source"), **settings)
    monkeypatch.setattr("scar_hf.hub_cards.contents.draw", lambda numbers, _: drawn.update(numbers) or {})
    selection_contents(tmp_path / "out", tmp_path / "made")
    assert [sum(drawn["scores"][name]) for name in ("kept", "others")] == [10, 30]


def test_the_card_command_and_the_command_in_the_card(tiny_ranker, write_jsonl, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_jsonl([{**row, "source": "a|b" if row["id"] % 2 else "c"} for row in rows])
    common = ["--model", str(tiny_ranker), "--device", "cpu", "--dtype", "float32", "--quiet"]
    assert main(["select", data.name, "-k", "3", "-o", "out", "--backend", "torch", *common]) == 0
    assert main(["card", "out", "--group-by", "source", "--style", "--license", "mit"]) == 0
    card = DatasetCard.load(Path("out/README.md"))
    assert check_metadata(card)["configs"][0]["data_files"] == [{"split": "train", "path": "train.parquet"}]
    assert "| a\\|b | 5 |" in card.text and "Consistency of style" in card.text
    assert set(re.findall(r"\]\((_images/[\w.]+)\)", card.text)) == {"_images/scores.png", "_images/spreads.png"}
    assert Path("out/_images/spreads.png").is_file() and len(read_dataset("out")) == 3
    assert main(["verify", "out"]) == 0
    command = shlex.split(next(line for line in card.text.splitlines() if line.startswith("scar-hf select")))
    assert main([*command[1:], *common[:2], "--quiet"]) == 0  # the folder of the ranker is only named in the card
    assert read_dataset("selected.parquet").to_list() == read_dataset("out").to_list()
    capsys.readouterr()
    assert main(["card", "nothing"]) == 1 and main(["card", "out", "--group-by", "nothing"]) == 1
    said = capsys.readouterr().err
    assert "is not a folder" in said and "has no column 'nothing'" in said
    assert card_command.is_ranker(str(tiny_ranker)) and not card_command.is_ranker("out")


def test_the_card_command_on_a_ranker_and_on_a_fine_tuned_model(tiny_ranker, write_jsonl, rows, tmp_path):
    sources = tmp_path / "licences.yaml"
    sources.write_text("outfox_essays: Apache-2.0\n")
    assert main(["card", "scar-ranker", "-o", str(tmp_path / "r.md"), "--licences", str(sources), "--language", "en"]) == 0
    assert "| outfox\\_essays | Apache\\-2.0 |" in ModelCard.load(tmp_path / "r.md").text
    out = tmp_path / "out"
    select = ["select", str(write_jsonl(rows)), "-k", "3", "-o", str(out), "--model", str(tiny_ranker), "--device", "cpu"]
    assert main([*select, "--quiet"]) == 0
    model = tmp_path / "model"
    model.mkdir()
    assert main(["card", str(model), "--manifest", str(out)]) == 0
    assert "| Rows trained on | 3 (30.0%) |" in ModelCard.load(model / "README.md").text


def test_the_manifest_of_a_ranking_makes_a_card(tiny_ranker, rows):
    ranking = scar_rank(Dataset.from_list(rows), model=str(tiny_ranker), device="cpu", progress=False)
    card = selection_card(ranking.manifest(0.3), license="mit")
    assert check_metadata(card)["license"] == "mit" and "3 of 10 rows" in card.text and str(tiny_ranker) not in card.text
    report = ranking.push_to_hub("me/tiny", k=3, dry_run=True, card={"license": "mit"})
    assert {"README.md", "manifest.json", "data/train-00000-of-00001.parquet"} <= set(report.files) and report.commit is None
    with pytest.raises(ValueError, match="`k` must be"):
        ranking.push_to_hub("me/tiny", k=0, dry_run=True)
