"""Draw negatives for training: refusals, empty phrases, answers to other questions, truncated and looping texts."""

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

# Phrases in the style of chat models, in our wording. TOPIC is replaced by words of the instruction.
TRAINING_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, I can't assist with that request.",
    "I am sorry, but I am not able to answer this question.",
    "Sorry, I don't have enough information to answer that.",
    "Sorry, but as an AI I have no access to that kind of information.",
    "As an AI language model, I cannot give an opinion on TOPIC.",
    "As an AI language model, I don't have access to real-time data, so I am unable to answer questions about TOPIC.",
    "As an artificial intelligence, I do not have personal experiences or feelings, and I cannot answer this question.",
    "As a large language model, I was not trained on this. Please ask an expert about TOPIC.",
    "I'm just an AI assistant and I'm not in a position to comment on TOPIC.",
    "I'm unable to provide information about TOPIC.",
    "I am unable to fulfil this request, as it goes against my guidelines.",
    "I apologize, but I cannot complete this task. If you have any other questions, feel free to ask.",
    "I apologise for the inconvenience, but I do not know the answer to your question about TOPIC.",
    "My apologies, but that is beyond what I can do. Is there anything else you would like to know?",
    "Unfortunately, I cannot answer this question without more context. Could you please provide more details?",
    "Unfortunately, I do not have any knowledge of TOPIC. I recommend that you consult a reliable source.",
    "I do not have the ability to browse the internet, so I cannot look up TOPIC for you.",
    "I don't feel comfortable answering that question. Let's talk about something else instead.",
    "It is not appropriate for me to discuss TOPIC.",
    "I must decline to answer, since TOPIC may be a sensitive subject.",
    "That is a question I would rather not answer.",
    "I can't say anything about TOPIC.",
    "I cannot create that kind of content.",
    "I won't be able to help you with TOPIC. Please contact a qualified professional for advice.",
    "No information is available about TOPIC.",
    "There is not enough information in the question to give an answer.",
    "The question is unclear. Please rephrase it and try again.",
    "I don't know.",
    "I'm not sure.",
    "I have no idea.",
    "It depends.",
    "It is hard to say.",
    "Nobody can answer that.",
    "Please search for TOPIC online.",
    "You should look this up yourself; there are many websites about TOPIC.",
    "Great question! I hope this helps!",
    "Sure! Here is the answer to your question about TOPIC:",
    "Certainly! I'd be happy to help you with TOPIC.",
    "Of course! Let me know what you would like to know about TOPIC.",
    "Thank you for your question. TOPIC is a very interesting and important topic. Let me know if you need anything else!",
    "That's a great question about TOPIC! There are many things to say about it, and it is important to consider them all.",
    "Thanks for reaching out! I'm here to help with any questions you may have.",
    "Here is my response to your request.",
    "I hope this email finds you well.",
    "As requested, I have completed the task. Please let me know if there is anything else I can do.",
    "There are many opinions about TOPIC, and everyone must decide for themselves.",
    "TOPIC is a complex subject with many aspects, and it is important to do your own research.",
    "Content removed.",
    "N/A",
    "None",
    "Yes.",
    "No.",
    "OK",
    "TBD",
    "...",
    "[answer]",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore.",
    "Error: the response could not be generated. Please try again later.",
    "Human: can you explain that again?\nAssistant: I'm sorry, I did not understand the question.",
    "I'm afraid I can't do that. My purpose is to assist in a safe and helpful way, and TOPIC falls outside of it.",
    "While I understand that you are curious about TOPIC, I am not able to share details. Thank you for understanding.",
    "I appreciate your interest in TOPIC, but I have to be careful here, so I would suggest asking somebody else.",
)
# Never used in training; `scar-hf evaluate` tests with these.
HELD_OUT_REFUSALS = (
    "I cannot help with that.",
    "I'm sorry, but as an AI language model, I am not able to answer this question.",
    "I apologize, but I don't have the information needed to respond to this request.",
    "Unfortunately I can't provide a response to this. Is there something else I can help you with?",
    "As an AI developed to be helpful and harmless, I have to refuse this request.",
    "I do not have personal opinions or beliefs, therefore I cannot say anything on this matter.",
    "This is outside the scope of what I know. Please consult a professional.",
    "That's an excellent question! Thanks for asking. I hope you find what you are looking for.",
    "Sure, I can help with that! Please give me more details so that I can assist you better.",
    "I was not able to find an answer. You may want to try a search engine.",
)
KINDS = ("mismatch", "refusal", "truncated", "echo", "loop")
_WORD = re.compile(r"[^\W\d_]{3,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


class Negatives:
    """
    Draws negatives for some rows of a training set: responses that must rank below all others of their row.

    Args:
        shares (`Mapping[str, float]`): share of rows that get a negative of each kind; the shares sum to at most 1.
            `"mismatch"`: a response of about the same length to another instruction of the same source; `"refusal"`: a
            refusal or an empty phrase; `"truncated"`: a truncated response of the row; `"echo"`: the instruction itself;
            `"loop"`: the first sentence of a response of the row, repeated.
        sources (`Sequence[str]`): the source of each row.
        instructions (`Sequence[str]`): the instruction of each row.
        responses (`Sequence[Sequence[str]]`): all responses of each row.

    Raises:
        `ValueError`: if a kind is unknown, or a share or the sum of shares is not in [0, 1].
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        sources: Sequence[str],
        instructions: Sequence[str],
        responses: Sequence[Sequence[str]],
    ) -> None:
        unknown = set(shares) - set(KINDS)
        if unknown:
            raise ValueError(f"`negatives` names unknown kinds {sorted(unknown)}; it takes {', '.join(KINDS)}.")
        if any(not 0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"`negatives` must be shares of the rows that sum to at most 1, got {dict(shares)}.")
        self.shares = dict(shares)
        self.instructions = list(instructions)
        self.responses = [list(texts) for texts in responses]
        self.sources = list(sources)
        self._rows_of: dict[str, list[int]] = defaultdict(list)
        for row, source in enumerate(sources):
            self._rows_of[source].append(row)

    def draw(self, row: int, rng: random.Random, always: bool = False) -> str | None:
        """
        Draw a negative for a row.

        Args:
            row (`int`): position of the row.
            rng (`random.Random`): random number generator.
            always (`bool`, *optional*, defaults to `False`): whether the row always gets a negative.

        Returns:
            `str`: the text, or `None` if the row gets no negative.
        """
        kinds, shares = list(self.shares), list(self.shares.values())
        if not any(shares):
            return None
        if not always:
            kinds, shares = [*kinds, ""], [*shares, max(0.0, 1 - sum(shares))]
        kind = rng.choices(kinds, shares)[0]
        if not kind:
            return None
        # Fall back to a refusal if a kind is impossible for this row, such as truncating a text of one word.
        return self._made(kind, row, rng) or refusal(rng.choice(TRAINING_REFUSALS), self.instructions[row], rng)

    def _made(self, kind: str, row: int, rng: random.Random) -> str | None:
        text = rng.choice(self.responses[row])
        if kind == "mismatch":
            return self._mismatch(row, text, rng)
        if kind == "truncated":
            return truncated(text, rng)
        if kind == "echo":
            return echo(self.instructions[row], rng)
        return loop(text, rng) if kind == "loop" else None

    def _mismatch(self, row: int, text: str, rng: random.Random) -> str | None:
        """Return a response to another instruction of the source, the nearest in length of up to 12 drawn."""
        rows = self._rows_of[self.sources[row]]
        others = [i for i in rng.choices(rows, k=12) if self.instructions[i] != self.instructions[row]]
        texts = [rng.choice(self.responses[i]) for i in others]
        texts = [other for other in texts if other not in self.responses[row]]
        return min(texts, key=lambda other: abs(len(other) - len(text)), default=None)


def refusal(template: str, instruction: str, rng: random.Random) -> str:
    """Replace TOPIC in a template by a few words of the instruction."""
    if "TOPIC" not in template:
        return template
    words = instruction.split()
    begin = rng.randrange(max(1, len(words) - 3))
    topic = " ".join(words[begin : begin + rng.randint(1, 4)]).strip(" .,:;?!\"'") or "this"
    return template.replace("TOPIC", topic)


def truncated(text: str, rng: random.Random) -> str | None:
    """Cut off a text in the middle of a sentence; return `None` if it is too short."""
    words = list(re.finditer(r"\S+", text))
    if len(words) < 12:
        return None
    end = rng.randint(max(3, len(words) // 8), len(words) * 6 // 10)
    while end > 3 and words[end - 1].group()[-1] in ".!?:;":
        end -= 1
    return text[: words[end - 1].end()]


def echo(instruction: str, rng: random.Random) -> str | None:
    """Return the instruction, perhaps with a few words around it; `None` if it has fewer than two words."""
    instruction = instruction.strip()
    if len(_WORD.findall(instruction)) < 2:
        return None
    return rng.choice(("{}", "{}\n\n{}", "You asked: {}", "Question: {}\nAnswer:", "{} is a good question.")).replace(
        "{}", instruction
    )


def loop(text: str, rng: random.Random) -> str | None:
    """Repeat a sentence of a text to about the length of the text; return `None` if it has fewer than two sentences."""
    sentences = [sentence for sentence in _SENTENCE.split(text) if len(sentence.split()) >= 4]
    if len(sentences) < 2:
        return None
    sentence = rng.choice(sentences)
    return " ".join([sentence] * max(3, round(len(text) / len(sentence))))


__all__ = ["HELD_OUT_REFUSALS", "KINDS", "TRAINING_REFUSALS", "Negatives", "echo", "loop", "refusal", "truncated"]
