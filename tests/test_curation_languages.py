"""What language a row is in, and what has none."""

import time

import pytest
from datasets import Dataset

from scar_hf.curation import Languages, curate

CODE = "def area(width, height):\n    total = width * height\n    return total\n\nfor i in range(10):\n    print(area(i, 2))"
FOREIGN = {
    "de": "Das Wasser kocht auf dem Berg bei einer niedrigeren Temperatur, weil dort der Luftdruck geringer ist.",
    "fr": "L'eau bout à une température plus basse en montagne parce que la pression de l'air y est plus faible.",
    "es": "El agua hierve a menor temperatura en la montaña porque la presión del aire es más baja que en la costa.",
    "ja": "山の上では気圧が低いので、水は低い温度で沸騰します。",
    "zh": "因为山上的气压比较低,所以水在较低的温度下就会沸腾。这就是为什么在高山上煮饭需要更长的时间。",
}
ENGLISH = "Water boils at a lower temperature on a mountain, because the pressure of the air is lower there."
WITHOUT = {
    "Python": CODE,
    "Python in a fence": f"```python\n{CODE}\n```",
    "Java": "public class Punto {\n    private int valor;\n    public int getValor() { return this.valor; }\n}",
    "Java with a comment": "int x = 1;\nint y = 2;\n// Hier wird die Summe der beiden Zahlen berechnet\nreturn x + y;",
    "SQL": "SELECT nombre, edad FROM clientes WHERE edad > 21 ORDER BY nombre;",
    "LaTeX": r"$$\int_0^1 x^2 \, dx = \frac{1}{3}$$ \begin{align} a &= b + c \\ c &= \sqrt{d} \end{align}",
    "sums": "3 * 14 = 42\n42 / 6 = 7\nx = 7",
    "a number": "42",
    "a name": "Paris",
    "yes": "Oui",
    "composers": "Giuseppe Verdi, Giacomo Puccini, Gioachino Rossini, Gaetano Donizetti, Vincenzo Bellini",
    "species": "Caenorhabditis elegans,\nAscaris lumbricoides,\nPristionchus pacificus,\nTrichuris suis",
    "players": "- Ronaldinho\n- Zinedine Zidane\n- Pelé\n- Gianluigi Buffon",
    "months": "January, March, April, May, June, July, August, September",
    "an address": "https://de.wikipedia.org/wiki/Wasser_und_seine_Eigenschaften_in_den_Bergen",
    "signs": "?! ... 😀😀😀",
    "nothing": "",
}


@pytest.fixture(scope="module")
def english() -> Languages:
    return Languages(["en"])


@pytest.mark.parametrize("language", FOREIGN)
def test_prose_has_its_language_also_around_code(english, language):
    for text in (FOREIGN[language], f"{FOREIGN[language]}\n\n```python\n{CODE}\n```\n\n{FOREIGN[language]}"):
        found, confidence = english.identify(text)
        assert found == language and 0.8 <= confidence <= 1


@pytest.mark.parametrize("kind", WITHOUT)
def test_code_math_names_and_short_answers_have_none(english, kind):
    assert english.identify(WITHOUT[kind]) is None


def test_an_address_in_a_text_without_spaces_leaves_the_text(english):
    halves = FOREIGN["zh"].split(",")
    assert english.identify(f"{halves[0]},bees@example.org,{halves[1]}")[0] == "zh"


@pytest.mark.parametrize("text", ["水在较低的温度下就会沸腾。", r"\( x ", r"\[ x ", r"\begin{a} x "])
def test_long_texts_take_linear_time(english, text):
    began = time.process_time()
    english.identify(text * (100_000 // len(text)))
    assert time.process_time() - began < 3


def test_english_around_anything_is_english(english):
    for kind in ("Python in a fence", "LaTeX", "composers", "species"):
        assert english.identify(f"{ENGLISH}\n\n{WITHOUT[kind]}\n\n{ENGLISH}")[0] == "en"


def test_rows_in_other_languages_are_dropped_and_all_else_stays():
    responses = [ENGLISH, FOREIGN["de"], *WITHOUT.values(), FOREIGN["fr"], None]
    ds = Dataset.from_dict({"instruction": ["Why?"] * len(responses), "response": responses})
    curated = curate(ds, [Languages(["en"])])
    assert list(curated.dropped) == [1, len(responses) - 2]
    assert curated.dropped[1].startswith("language: de (0.9") or curated.dropped[1] == "language: de (1.00)"
    assert curated.dataset["response"][:] == [r for i, r in enumerate(responses) if i not in curated.dropped]
    assert list(curate(ds, [Languages(["en", "de"])]).dropped) == [len(responses) - 2]


def test_the_response_decides_and_the_instruction_where_it_cannot():
    ds = Dataset.from_dict(
        {
            "instruction": [f"Translate into English: {FOREIGN['de']}", f"Auf Deutsch bitte: {ENGLISH}", FOREIGN["de"]],
            "response": [ENGLISH, FOREIGN["de"], "100"],
        }
    )
    assert list(curate(ds, [Languages(["en"])]).dropped) == [1, 2]


def test_how_sure_it_must_be_and_how_much_it_must_read():
    ds = Dataset.from_dict({"instruction": ["Why?"], "response": [FOREIGN["de"]]})
    assert not curate(ds, [Languages(["en"], letters=500)]).dropped
    assert list(curate(ds, [Languages(["en"], letters=60)]).dropped) == [0]


def test_errors_say_what_came_in():
    for settings, words in (
        ({"languages": "en"}, "a list of language codes"),
        ({"languages": []}, "a list of language codes"),
        ({"languages": ["English"]}, r"Unknown languages \['English'\]. Known: .*de, .*en"),
        ({"languages": ["en"], "confidence": 0}, r"`confidence` must be in \(0, 1\]"),
        ({"languages": ["en"], "letters": 0}, "`letters` at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            Languages(**settings)
