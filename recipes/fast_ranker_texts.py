"""Gather texts for the fast ranker from all available data, with some degraded on purpose, and run the teacher on them."""

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from scar_hf import ScarScorer
from scar_hf.files import atomic_write, read_dataset, read_json_rows
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import RowSource
from scar_hf.training.augmentation import cut_to, strip_comments, strip_markdown
from scar_hf.training.negatives import TRAINING_REFUSALS, echo, loop, refusal, truncated

TRIPLES = (
    *("pairs.jsonl", "pairs_more.jsonl", "triples_rewrites.jsonl", "triples_new.jsonl", "triples_multilingual.jsonl"),
    *("qwen_triples.jsonl.gz", "qwen_triples_more.jsonl.gz"),
)
DOLLY = "dolly15k.jsonl"
# Sources that neither ranker has seen. They and the last rows of Dolly serve only for evaluation.
HELD_OUT = ("validation_sources.jsonl", "octocoder_selected_2500.json")
DOLLY_TRAINED, DOLLY_HELD_OUT = 12_000, 2_000
# Probability of each change to a text; otherwise it stays as it is.
CHANGES = {"mismatch": 0.08, "window": 0.07, "truncated": 0.03, "plain": 0.05, "echo": 0.02, "refusal": 0.02, "loop": 0.01}
CHANGES |= {"no_instruction": 0.02}
_TEXTS_PER_SOURCE = 3000
# Licensed for non-commercial use only; the bundled ranker leaves it out, too.
_LEFT_OUT = ("sdft_alpaca",)
_BLOCK = 500


@dataclass(frozen=True)
class Text:
    """A response to an instruction, its source and domain, and the group that must stay together in a split."""

    instruction: str
    response: str
    source: str
    domain: str
    group: str
    change: str = "none"

    @property
    def key(self) -> str:
        """A hash that identifies the pair by its content."""
        return sha256(json.dumps([self.instruction, self.response]).encode()).hexdigest()[:24]


def training_texts(folder: Path, count: int, seed: int = 13) -> list[Text]:
    """
    Gather texts to train on, in random order.

    Args:
        folder (`Path`): the data that `recipes/README.md` describes; missing files are left out.
        count (`int`): number of texts. The rest of Dolly follows, as it is most like the rows that users select from.
        seed (`int`, *optional*, defaults to 13): seed of the order and the changes.

    Returns:
        `list[Text]`: distinct pairs, about a third of them changed.
    """
    rng = random.Random(seed)
    by_source: dict[str, list[Text]] = defaultdict(list)
    here = Path(__file__).parent
    for path in [place / name for name in TRIPLES for place in (folder, here) if (place / name).is_file()]:
        for text in _members(path):
            by_source[text.source].append(text)
    dolly = read_json_rows(folder / DOLLY) if (folder / DOLLY).is_file() else []
    for row in list(dolly)[:DOLLY_TRAINED]:
        text = Text(row["instruction"], row["response"], "dolly15k", row["category"], row["instruction"])
        by_source["dolly15k"].append(text)
    texts = []
    for source, found in by_source.items():
        rng.shuffle(found)
        texts += found if source == "dolly15k" else found[:_TEXTS_PER_SOURCE]
    rng.shuffle(texts)
    changed = (_changed(text, by_source[text.source], rng) for text in texts)
    distinct = {text.key: text for text in changed if text.response.strip()}
    ordered = [text for text in distinct.values() if text.source not in _LEFT_OUT]
    return ordered[:count] + [text for text in ordered[count:] if text.source == "dolly15k"]


def held_out_texts(folder: Path) -> dict[str, list[Text]]:
    """Return the texts to measure on, by file."""
    found = {}
    for name in HELD_OUT:
        path = folder / name
        if path.is_file() and path.suffix == ".jsonl":
            found[path.stem] = list(_members(path))
        elif path.is_file():
            rows = RowSource(read_dataset(path), PairReader()).rows()
            pairs = [pair for row in rows if row.problem is None for pair in row.pairs]
            found[path.stem] = [Text(x, y, path.stem, "code" if _is_code(y) else "open", x) for x, y in pairs]
    dolly = list(read_json_rows(folder / DOLLY))[-DOLLY_HELD_OUT:]
    found["dolly15k"] = [Text(r["instruction"], r["response"], "dolly15k", r["category"], r["instruction"]) for r in dolly]
    return found


def licences_of(folder: Path) -> dict[str, str]:
    """Return the licence of each source, in the words of its rows."""
    found = {"dolly15k": "CC BY-SA 3.0", "dolly_qwen": "CC BY-SA 3.0, answers Apache-2.0", "mbpp_qwen": "CC BY 4.0"}
    found["stackoverflow_qwen"] = "CC BY-SA"
    for path in [folder / name for name in TRIPLES if (folder / name).is_file()]:
        for row in read_json_rows(path):
            if row.get("source") and row.get("licence"):
                found.setdefault(row["source"], str(row["licence"]))
    return found


def teacher_scores(texts: Sequence[Text], path: Path, teacher: str, dtype: str) -> list[float]:
    """
    Score texts with the teacher. Scores are appended to a file as they are computed, so that an interrupted run can resume.

    Args:
        texts (`Sequence[Text]`): n texts.
        path (`Path`): the file of scores; those of another teacher or precision are not used.
        teacher (`str`): name, folder or Hub id of the ranker.
        dtype (`str`): its precision, as in `ScarScorer`.

    Returns:
        `list[float]`: n scores.
    """
    scorer = ScarScorer(teacher, dtype=dtype)
    ranker = _identity(scorer)
    known = {row["key"]: row["score"] for row in read_json_rows(path) if row["ranker"] == ranker} if path.is_file() else {}
    missing = [text for text in texts if text.key not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with open(path, "a", encoding="utf-8") as out:
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            scores = scorer.score([text.instruction for text in block], [text.response for text in block])
            for text, score in zip(block, scores.tolist(), strict=True):
                known[text.key] = score
                out.write(json.dumps({"key": text.key, "score": score, "ranker": ranker}) + "\n")
            out.flush()
            rate = (start + len(block)) / (time.monotonic() - begin)
            print(f"{path.name}: {start + len(block):,} of {len(missing):,} texts, {rate:.0f} a second", flush=True)
    return [known[text.key] for text in texts]


def teacher_vectors(texts: Sequence[Text], folder: Path, teacher: str, dtype: str) -> np.ndarray:
    """
    Encode texts with the teacher. Each block of vectors is a file, so that an interrupted run can resume.

    Args:
        texts (`Sequence[Text]`): n texts.
        folder (`Path`): the folder of vectors; those of another teacher, precision or block are not used.
        teacher (`str`): name, folder or Hub id of the ranker.
        dtype (`str`): its precision, as in `ScarScorer`.

    Returns:
        `np.ndarray` of shape `(n, 3, H)`, float16; see `ScarScorer.encode_rows`.
    """
    scorer = ScarScorer(teacher, dtype=dtype)
    ranker = _identity(scorer)
    folder.mkdir(parents=True, exist_ok=True)
    begin, made, parts = time.monotonic(), 0, []
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        name = sha256(" ".join([ranker, *(text.key for text in block)]).encode()).hexdigest()[:24]
        path = folder / f"{name}.npy"
        if not path.is_file():
            columns = {side: [getattr(text, side) for text in block] for side in ("instruction", "response")}
            vectors = scorer.encode_rows(PairReader().read(columns)).astype(np.float16)
            with atomic_write(path) as out:
                np.save(out, vectors)
            made += len(block)
            rate = made / (time.monotonic() - begin)
            print(f"{folder.name}: {start + len(block):,} of {len(texts):,} texts, {rate:.0f} a second", flush=True)
        parts.append(np.load(path))
    return np.concatenate(parts)


def _identity(scorer: ScarScorer) -> str:
    return sha256(json.dumps(scorer.identity(), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _members(path: Path) -> Iterator[Text]:
    """Yield every response of every row: human, direct and referenced."""
    for row in read_json_rows(path):
        source, domain = row.get("source") or path.stem, row.get("domain") or "open"
        group = str(row.get("group") or row["instruction"])
        for member in ("human", "direct", "referenced"):
            value = row.get(member)
            for response in value.values() if isinstance(value, dict) else [value]:
                if isinstance(response, str) and response.strip():
                    yield Text(row["instruction"], response, source, domain, group)


def _is_code(response: str) -> bool:
    return "```" in response or "def " in response or "{" in response


def _changed(text: Text, of_source: Sequence[Text], rng: random.Random) -> Text:
    """Change some texts, so that the fast ranker sees flaws that are rare in good data."""
    names = [*CHANGES, "none"]
    change = rng.choices(names, [*CHANGES.values(), 1 - sum(CHANGES.values())])[0]
    x, y = text.instruction, text.response
    made: str | None = y
    if change == "mismatch":
        x = rng.choice(of_source).instruction
    elif change == "no_instruction":
        x = ""
    elif change == "window":
        made = cut_to(y, int(80 * 2 ** rng.uniform(0, 4)))
    elif change == "plain":
        made = strip_comments(y) if text.domain == "code" else strip_markdown(y)
    elif change == "truncated":
        made = truncated(y, rng)
    elif change == "echo":
        made = echo(x, rng)
    elif change == "refusal":
        made = refusal(rng.choice(TRAINING_REFUSALS), x, rng)
    elif change == "loop":
        made = loop(y, rng)
    return text if made is None else replace(text, instruction=x, response=made, change=change)
