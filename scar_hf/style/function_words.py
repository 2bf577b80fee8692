"""English function words: articles, pronouns, prepositions, conjunctions, auxiliaries, particles."""

_LIST = """
a an the this that these those each every either neither another other both all any some such no none few many much more most
several own same enough
i you he she it we they me him her us them my your his its our their mine yours hers ours theirs
myself yourself himself herself itself ourselves yourselves themselves oneself one
who whom whose which what whatever whichever whoever whomever
someone somebody something anyone anybody anything everyone everybody everything nobody nothing
about above across after against along alongside amid among amongst around as at before behind below beneath beside besides
between beyond by despite down during except for from in inside into like near of off on onto opposite out outside over past per
regarding round since than through throughout till to toward towards under underneath unlike until unto up upon via versus with
within without
and but or nor so yet if because although though unless while whereas whether when whenever where wherever once lest
how why however therefore thus hence moreover furthermore nevertheless nonetheless otherwise then there here
am is are was were be been being have has had having do does did doing done
will would shall should can cannot could may might must ought
not never also too just only even still already again ever rather quite very almost perhaps maybe
"""
_SUBJECTS = (
    *("i", "you", "he", "she", "it", "we", "they", "that", "this", "there", "here"),
    *("who", "what", "where", "when", "how"),
)
_BEFORE_NOT = (
    *("is", "are", "was", "were", "have", "has", "had", "do", "does", "did"),
    *("wo", "would", "should", "could", "must", "might", "need"),
)

# Words as `lexical_words` gives them: it parts contractions at an ASCII apostrophe, and leaves them whole at a curly one.
FUNCTION_WORDS = frozenset(
    [
        *_LIST.split(),
        *("t", "s", "d", "m", "ll", "ve", "re", "can’t"),
        *(f"{word}n" for word in _BEFORE_NOT),
        *(f"{word}n’t" for word in _BEFORE_NOT),
        *(f"{word}’{ending}" for word in _SUBJECTS for ending in ("s", "d", "m", "ll", "ve", "re")),
    ]
)
