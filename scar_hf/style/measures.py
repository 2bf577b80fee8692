"""The measures of style by name: titles, units and requirements."""

from dataclasses import dataclass

from .diversity import MATTR_WINDOW
from .readability import flesch_problem

# Languages written without spaces between words, for which measures based on words make no sense.
_WITHOUT_BLANKS = {"bo", "dz", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"}


@dataclass(frozen=True)
class Measure:
    """
    A measure of style.

    Args:
        name (`str`): name in columns and tables.
        title (`str`): title for readers.
        unit (`str`): unit.
        kind (`str`): `"linguistic form"` or `"instructional surprisal"`.
    """

    name: str
    title: str
    unit: str
    kind: str = "linguistic form"


_SURPRISAL = "instructional surprisal"
MEASURES = {
    measure.name: measure
    for measure in (
        Measure("words", "Words", "words"),
        Measure("ttr", "Type-token ratio (TTR)", "distinct words / words"),
        Measure("mattr", "Moving-average TTR", f"distinct words / words, in windows of {MATTR_WINDOW}"),
        Measure("mtld", "MTLD", "words"),
        Measure("flesch", "Flesch reading ease", "points"),
        Measure("sentence_length", "Sentence length", "words / sentence"),
        Measure("punctuation", "Punctuation", "marks / word"),
        Measure("function_words", "Function words", "share of words"),
        Measure("headings", "Headings", "per 100 words"),
        Measure("list_items", "List items", "per 100 words"),
        Measure("code", "Code", "pieces / 100 words"),
        Measure("bold", "Bold", "pieces / 100 words"),
        Measure("ppl", "Perplexity given the instruction, PPL(y|x)", "", _SURPRISAL),
        Measure("ppl_alone", "Perplexity alone, PPL(y)", "", _SURPRISAL),
        Measure("ifd", "Instruction-following difficulty, PPL(y|x) / PPL(y)", "ratio", _SURPRISAL),
        Measure("surprisal", "Surprisal, log PPL(y|x)", "nats / token", _SURPRISAL),
    )
}
LINGUISTIC_FORM = tuple(name for name, measure in MEASURES.items() if measure.kind == "linguistic form")
SURPRISAL = tuple(name for name, measure in MEASURES.items() if measure.kind == _SURPRISAL)


def root_of(language: str) -> str:
    """
    Reduce a language code to its first part: `"pt-BR"` to `"pt"`.

    Args:
        language (`str`): a code such as `"en"` or `"de-AT"`.

    Returns:
        `str`: the first part in lower case.

    Raises:
        `ValueError`: if the code is unknown.
    """
    root = str(language).replace("_", "-").partition("-")[0].lower()
    if not (root.isascii() and root.isalpha() and 2 <= len(root) <= 3):
        raise ValueError(f'`language` must be a code such as "en", "de" or "pt-BR", got {language!r}.')
    return root


def form_measures(language: str = "en") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Return the measures of linguistic form that are available for a language, given the installed packages.

    Args:
        language (`str`, *optional*, defaults to `"en"`): language code.

    Returns:
        `tuple`: the names of the measures, and notes on which are left out and why.
    """
    root = root_of(language)
    if root in _WITHOUT_BLANKS:
        why = f"The language {root!r} has no blanks between words, so that nothing that counts words is measured."
        return (), (why,)
    left_out: dict[str, str] = {}
    problem = flesch_problem(root)
    if problem is not None:
        left_out["flesch"] = f"{problem}."
    if root != "en":
        left_out["function_words"] = f"Function words are listed for English only, not for {root!r}."
    return tuple(name for name in LINGUISTIC_FORM if name not in left_out), tuple(left_out.values())
