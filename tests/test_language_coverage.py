"""Rows in languages that a ranker was not trained on are counted in a warning."""

import shutil
import sys

import pytest
from datasets import Dataset

from scar_hf import ScarScorer, scar_filter, scar_rank
from scar_hf.curation.languages import LanguageCoverage
from scar_hf.rows.pairs import RowPairs
from scar_hf.runs import select_files
from scar_hf.scoring.checkpoints import ranker_languages, resolve_checkpoint

ENGLISH = "The capital of France is Paris, and it lies on the banks of the river Seine."
GERMAN = "Die Hauptstadt von Frankreich ist Paris, und sie liegt an den Ufern der Seine."
RUSSIAN = "Столица Франции - Париж, и этот город стоит на берегах реки Сены."


def rows_of(*texts: str) -> list[RowPairs]:
    return [RowPairs((("Q?", text),)) for text in texts]


@pytest.fixture
def english(tiny_ranker, tmp_path):
    """A ranker whose card says what it was trained on."""

    def make(metadata: str) -> ScarScorer:
        folder = tmp_path / "ranker"
        shutil.copytree(tiny_ranker, folder)
        (folder / "README.md").write_text(f"---\n{metadata}\n---\nA ranker.\n")
        return ScarScorer(str(folder), device="cpu")

    return make


@pytest.mark.parametrize(
    ("metadata", "languages"),
    [
        ("language: en", ["en"]),
        ("language:\n- en\n- de", ["en", "de"]),
        ("license: mit", []),
        ("language: multilingual", []),
        ("language: {a: b}", []),
        ("language: [en", []),
    ],
)
def test_the_card_says_what_a_ranker_was_trained_on(metadata, languages, english):
    assert ranker_languages(english(metadata).model_name) == languages


def test_the_bundled_ranker_is_english_and_one_without_a_card_says_nothing(tiny_ranker):
    assert ranker_languages(resolve_checkpoint("scar-ranker")) == ["en"]
    assert ranker_languages(str(tiny_ranker)) == [] and ranker_languages("nobody/has-this") == []


def test_rows_in_other_languages_are_said_once(english, caplog):
    pytest.importorskip("py3langid")
    texts = [ENGLISH] * 5 + [GERMAN] * 3 + [RUSSIAN, "42", None]
    ds = Dataset.from_dict({"instruction": ["Q?"] * len(texts), "response": texts})
    scar_rank(ds, model=english("language: en"), progress=False)
    assert caplog.text.count("languages that the ranker was not trained on") == 1
    assert "4 of 11 rows are in languages that the ranker was not trained on (3 de, 1 ru)" in caplog.text
    assert "it was trained on en. Languages(['en']) (--languages en)" in caplog.text


def test_filter_and_files_count_alike(english, tmp_path, write_jsonl, caplog):
    pytest.importorskip("py3langid")
    rows = [{"instruction": "Q?", "response": text} for text in [ENGLISH] * 5 + [GERMAN] * 3]
    scorer = english("language: en")
    for use in (
        lambda: Dataset.from_list(rows).filter(scar_filter(k=2, model=scorer, progress=False)),
        lambda: select_files(write_jsonl(rows), tmp_path / "out.jsonl", scorer, 2, progress=False),
    ):
        caplog.clear()
        use()
        assert caplog.text.count("3 of 8 rows are in languages that the ranker was not trained on (3 de)") == 1


def test_without_the_library_the_script_tells(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    coverage = LanguageCoverage(["en"])
    coverage.see(rows_of(ENGLISH, GERMAN, RUSSIAN, "да"))
    coverage.report()
    assert "1 of 4 rows are in languages that the ranker was not trained on (1 in another script)" in caplog.text
    mixed = LanguageCoverage(["en", "ru"])
    mixed.see(rows_of(RUSSIAN, GERMAN))
    assert not mixed.counts()


def test_of_many_rows_some_are_looked_at(monkeypatch, caplog):
    monkeypatch.setattr("scar_hf.curation.languages._SAMPLE", 10)
    coverage = LanguageCoverage(["en"])
    coverage.see(rows_of(*[ENGLISH, RUSSIAN, RUSSIAN] * 20))
    looked_at = len(coverage._found)
    assert 5 <= looked_at <= 10 and 0 < coverage.counts().total() < looked_at
    coverage.report()
    assert f"of {looked_at} rows examined, out of 60, are in languages" in caplog.text


def test_streams_and_other_engines_count_their_first_rows(english, tmp_path, caplog):
    pytest.importorskip("py3langid")
    scorer = english("language: en")
    ds = Dataset.from_dict({"instruction": ["Q?"] * 40, "response": [f"{GERMAN} ({i})" for i in range(40)]})
    assert list(ds.to_iterable_dataset().filter(scar_filter(k=0.5, model=scorer, progress=False), batched=True))
    assert "40 of 40 rows are in languages that the ranker was not trained on (40 de)" in caplog.text
    caplog.clear()
    ds.to_json(tmp_path / "d.jsonl")

    def elsewhere(source, scorer, cache, progress):
        from scar_hf.scoring.datasets import score_each

        return score_each(scorer, source, None, None)

    select_files(tmp_path / "d.jsonl", tmp_path / "o.jsonl", scorer, 2, engine=elsewhere, progress=False)
    assert caplog.text.count("40 of 40 rows are in languages that the ranker was not trained on") == 1
