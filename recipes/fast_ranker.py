"""Train the fast ranker, a static encoder that learns the scores of the bundled ranker, with `make fast-ranker DATA=...`."""

import argparse
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fast_ranker_texts import Text, held_out_texts, licences_of, teacher_scores, teacher_vectors, training_texts
from scar_hf.hub_cards import ranker_card
from scar_hf.modeling import ScarStaticConfig
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerBase

from scar_hf import ScarConfig, ScarModel, ScarScorer, __version__
from scar_hf.ranks import mean_ranks
from scar_hf.scoring.checkpoints import load_ranker, load_tokenizer, resolve_checkpoint
from scar_hf.scoring.tokenization import tokenize
from scar_hf.training.saving import calibration, save_ranker

# Width of a token's vector and state.
SIZES = {"embedding_size": 128, "hidden_size": 128}
HEADS = {"head_size": 128, "surprisal_size": 64}
BATCH, EPOCHS, RATE, WORD_DROPOUT = 64, 4, 2e-3, 0.1
# Decay of the exponential moving average of the weights, which becomes the final model.
DECAY = 0.998
# Loss weights of pairs exchanged within a batch, and of the teacher's vectors.
EXCHANGED, VECTORS = 0.5, 0.3
_MAX_LENGTH = 512
# Pairs of shares: how much of the teacher's best share lies in the fast ranker's best share.
RECALLS = ((0.01, 0.1), (0.05, 0.2), (0.1, 0.3), (0.25, 0.5))
CARD = """---
license: apache-2.0
---

# {name}

A ranker that scores thousands of rows a second on two CPU cores. It learned the scores of [`{teacher}`](../{teacher}), and
finds the rows that are unlikely to be selected: with `prefilter=0.3`, it scores all rows, and `{teacher}` scores the best 30 %
and a random sample of the rest.

## How it works

Each word piece has a vector of {embedding_size} numbers, looked up, mixed with those of its neighbours, and projected once
together with its position and whether it occurred before in the text. The means over instruction and response, their products
and differences, and the maximum over the response go through the same two heads as in `{teacher}`, so it is a `ScarModel` like
any other.

The vectors start from those that `{teacher}` gives to single word pieces, reduced by principal components. Training compares
three things with `{teacher}`: the score of each text, its score with the instruction of another text, and its vectors, which
are not part of the ranker.

## Agreement with its teacher

On sources that neither ranker was trained on, and on the last {dolly} rows of Dolly: Spearman's correlation with the scores of
`{teacher}`, and the share of its best rows that are among the best rows of this ranker.

{tables}
"""


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids."""

    instructions: list[list[int]]
    responses: list[list[int]]

    @classmethod
    def of(cls, texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase) -> "Tokens":
        """Tokenise texts."""
        x, y = ([getattr(text, name) for text in texts] for name in ("instruction", "response"))
        return cls(*(tokenize(tokenizer, side, _MAX_LENGTH).token_ids for side in (x, y)))

    def batch(self, rows: Sequence[int], unknown: int) -> tuple[torch.Tensor, ...]:
        """Pad some of the texts, and replace a share of their tokens with the unknown token."""
        made: list[torch.Tensor] = []
        for side in (self.instructions, self.responses):
            ids = torch.zeros(len(rows), max(len(side[i]) for i in rows), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(rows):
                ids[row, : len(side[i])] = torch.tensor(side[i])
                mask[row, : len(side[i])] = 1
            ids[(torch.rand(ids.shape) < WORD_DROPOUT) & mask.bool()] = unknown
            made += [ids, mask]
        return tuple(made)


class Teacher:
    """
    Holds the teacher's vectors of texts, and scores any pair of them.

    Args:
        model ([`ScarModel`]): the ranker whose heads score pairs.
        vectors (`np.ndarray` of shape `(n, 3, H)`): as returned by [`teacher_vectors`].
    """

    def __init__(self, model: ScarModel, vectors: np.ndarray) -> None:
        self.model, self.vectors = model, vectors
        every = np.arange(len(vectors))
        self.scores = np.concatenate([self._score(part, part) for part in np.array_split(every, 1 + len(every) // 4096)])
        self.mean, self.spread = float(self.scores.mean()), float(self.scores.std())
        self._ordered = np.sort(self.scores)
        sample = vectors[:4096].astype(np.float32)
        self._center, self._scale = sample.mean(axis=0), sample.std(axis=(0, 2))[:, None]

    def _score(self, instructions: np.ndarray, responses: np.ndarray) -> np.ndarray:
        x, y, form = self.vectors[instructions, 0], self.vectors[responses, 1], self.vectors[responses, 2]
        with torch.no_grad():
            return self.model.rank(*(torch.from_numpy(v).float() for v in (x, y, form)))[0].numpy()

    def wanted(self, instructions: np.ndarray, responses: np.ndarray) -> torch.Tensor:
        """Return target scores of pairs, means of z-scores and standardized ranks; ranks alone would blur the best rows."""
        scores = self._score(instructions, responses)
        low, high = (np.searchsorted(self._ordered, scores, side=side) for side in ("left", "right"))
        standing = ((low + high) / 2 / len(self._ordered) - 0.5) * math.sqrt(12)
        return torch.from_numpy(((scores - self.mean) / self.spread + standing) / 2).float()

    def targets(self, rows: np.ndarray) -> torch.Tensor:
        """Return the vectors of some texts, of shape `(m, 3, H)`, each kind centred and with unit variance."""
        return torch.from_numpy((self.vectors[rows] - self._center) / self._scale).float()


def main() -> None:
    """Encode the texts with the teacher, train and measure the fast ranker, and write it with its card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="the files that recipes/README.md lists")
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help="folder of the ranker; what the teacher computes is kept next to it",
    )
    parser.add_argument("--teacher", default="scar-ranker", help="name, folder or Hub id of the ranker to learn from")
    parser.add_argument("--teacher_dtype", default="int8", help="precision of the teacher for training (default: int8)")
    parser.add_argument("--texts", type=int, default=50_000, help="texts to train on, and the rest of Dolly (default: 50000)")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=13)
    args = parser.parse_args()
    texts = training_texts(args.data_dir, args.texts, args.seed)
    stored = args.output_dir.with_name(f"{args.output_dir.name}-scores.jsonl")
    vectors = teacher_vectors(
        texts, args.output_dir.with_name(f"{args.output_dir.name}-vectors"), args.teacher, args.teacher_dtype
    )
    held_out = held_out_texts(args.data_dir)
    measured = {name: teacher_scores(found, stored, args.teacher, "auto") for name, found in held_out.items()}

    torch.manual_seed(args.seed)
    teacher = load_ranker(resolve_checkpoint(args.teacher))
    tokenizer = load_tokenizer(resolve_checkpoint(args.teacher))
    model = new_model(teacher, tokenizer)
    train(model, Tokens.of(texts, tokenizer), Teacher(teacher, vectors), tokenizer.unk_token_id or 0, args.epochs, args.seed)
    save_ranker(model, tokenizer, args.output_dir)
    for copied in args.output_dir.glob("*_scar.py"):  # only needed without scar-hf installed; `scar-hf export` adds them
        copied.unlink()

    scorer = ScarScorer.from_pretrained(str(args.output_dir), dtype="float32", device="cpu")
    agreement = {name: agreements(found, np.array(measured[name]), _scores(scorer, found)) for name, found in held_out.items()}
    unchanged = [text for text in texts if text.change == "none"][:10_000]
    config = ScarConfig.from_pretrained(args.output_dir)
    sides = [[getattr(text, name) for text in unchanged] for name in ("instruction", "response")]
    config.calibration = calibration(scorer, *sides, "unchanged texts of its training data")
    config.training = {
        "scar_hf": __version__,
        "teacher": args.teacher,
        "sources": sorted({text.source for text in texts}),
        "rows": len(texts),
        "learning_rate": RATE,
        "epochs": args.epochs,
        "seed": args.seed,
    }
    config.save_pretrained(args.output_dir)
    for copied in args.output_dir.glob("*_scar.py"):
        copied.unlink()
    (args.output_dir / "agreement.json").write_text(json.dumps(agreement, indent=1) + "\n", encoding="utf-8")
    text = CARD.format(
        name=args.output_dir.name,
        teacher=args.teacher,
        embedding_size=SIZES["embedding_size"],
        dolly=f"{len(held_out['dolly15k']):,}",
        tables=tables(agreement),
    )
    licences = {name: found for name, found in licences_of(args.data_dir).items() if name in config.training["sources"]}
    card = ranker_card(args.output_dir, license="apache-2.0", language="en", licences=licences, card=text)
    card.save(args.output_dir / "README.md")
    print(json.dumps({name: found["all"] for name, found in agreement.items()}, indent=1))


def new_model(teacher: ScarModel, tokenizer: PreTrainedTokenizerBase) -> ScarModel:
    """Make a model whose embeddings are the principal components of the teacher's vectors of single word pieces."""
    vocabulary = teacher.config.encoder_config.vocab_size
    encoder = ScarStaticConfig(vocab_size=vocabulary, pad_token_id=tokenizer.pad_token_id, **SIZES)
    config = ScarConfig(
        encoder_config=encoder, pooling="mean", surprisal_features="interaction", max_length=_MAX_LENGTH, **HEADS
    )
    model = ScarModel(config)
    with torch.no_grad():
        pieces = torch.arange(vocabulary)[:, None]
        begin, end = (torch.full_like(pieces, token) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id))
        blocks = torch.cat([begin, pieces, end], dim=1).split(512)
        vectors = torch.cat([teacher.encoder(input_ids=block).last_hidden_state[:, 1] for block in blocks])
        vectors = vectors - vectors.mean(dim=0)
        _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
        reduced = vectors @ directions[: encoder.embedding_size].T
        weight = model.encoder.embeddings.weight
        weight.copy_(reduced / reduced.std())
        weight[tokenizer.pad_token_id] = 0
        model.encoder.neighbours.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, nn.Linear):  # PyTorch's default weights are larger than those for fine-tuning
            module.reset_parameters()
    return model


def train(model: ScarModel, tokens: Tokens, teacher: Teacher, unknown: int, epochs: int, seed: int) -> None:
    """Fit the teacher's scores and vectors by least squares."""
    width, teacher_width = model.config.hidden_size, teacher.vectors.shape[-1]
    to_text, to_form = nn.Linear(width, teacher_width), nn.Linear(2 * width, teacher_width)
    weights = [*model.parameters(), *to_text.parameters(), *to_form.parameters()]
    steps = math.ceil(len(tokens.responses) / BATCH) * epochs
    optimizer = torch.optim.Adam(weights, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for batch in _batches(tokens, rng):
            x, x_mask, y, y_mask = tokens.batch(batch, unknown)
            (h_x, _), (h_y, form) = model.encode(x, x_mask), model.encode(y, y_mask)
            rows, other = np.array(batch), numbers.permutation(len(batch))
            own = F.mse_loss(model.rank(h_x, h_y, form)[0], teacher.wanted(rows, rows))
            exchanged = F.mse_loss(model.rank(h_x[other], h_y, form)[0], teacher.wanted(rows[other], rows))
            made = torch.stack([to_text(h_x), to_text(h_y), to_form(torch.cat([h_y, form], dim=-1))], dim=1)
            vectors = F.mse_loss(made, teacher.targets(rows))
            optimizer.zero_grad()
            (own + EXCHANGED * exchanged + VECTORS * vectors).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += own.item() * len(batch)
        print(f"epoch {epoch + 1} of {epochs}: mean squared error {total / len(tokens.responses):.4f}", flush=True)
    model.load_state_dict(average.module.state_dict())
    model.eval()
    with torch.no_grad():  # give scores the teacher's mean and spread
        model.score_head.out_proj.weight *= teacher.spread
        model.score_head.out_proj.bias.mul_(teacher.spread).add_(teacher.mean)


def _batches(tokens: Tokens, rng: random.Random) -> Iterator[list[int]]:
    """Yield all rows once, in batches of similar length in random order."""
    order = list(range(len(tokens.responses)))
    rng.shuffle(order)
    batches = []
    for start in range(0, len(order), BATCH * 16):
        block = sorted(order[start : start + BATCH * 16], key=lambda i: len(tokens.responses[i]))
        batches += [block[i : i + BATCH] for i in range(0, len(block), BATCH)]
    rng.shuffle(batches)
    yield from batches


def _scores(scorer: ScarScorer, texts: Sequence[Text]) -> np.ndarray:
    return scorer.score([text.instruction for text in texts], [text.response for text in texts])


def agreements(texts: Sequence[Text], teacher: np.ndarray, fast: np.ndarray) -> dict[str, Any]:
    """Measure the agreement over all texts, by domain, and by thirds of length."""
    words = np.array([len(text.response.split()) for text in texts])
    thirds = np.digitize(words, np.quantile(words, [1 / 3, 2 / 3]))
    domains = np.array([text.domain for text in texts])
    found: dict[str, Any] = {"all": agreement_of(teacher, fast), "domain": {}, "length": {}}
    for name in sorted(set(domains.tolist())):
        if np.count_nonzero(domains == name) >= 100:
            found["domain"][name] = agreement_of(teacher[domains == name], fast[domains == name])
    for third in range(3):
        inside = thirds == third
        span = f"{words[inside].min()} to {words[inside].max()} words"
        found["length"][span] = agreement_of(teacher[inside], fast[inside])
    return found


def agreement_of(teacher: np.ndarray, fast: np.ndarray) -> dict[str, float]:
    """Return Spearman's correlation, and for each of `RECALLS` the share of the teacher's best rows that is found."""
    result = {"rows": len(teacher), "spearman": round(float(np.corrcoef(mean_ranks(teacher), mean_ranks(fast))[0, 1]), 4)}
    for k, share in RECALLS:
        best, looked = (
            set(np.argsort(-scores, kind="stable")[: max(1, int(part * len(teacher)))].tolist())
            for scores, part in ((teacher, k), (fast, share))
        )
        result[f"recall_{k:g}_in_{share:g}"] = round(len(best & looked) / len(best), 4)
    return result


def tables(agreement: Mapping[str, Any]) -> str:
    """Write the agreement as a Markdown table."""
    names = [f"best {k:.0%} in {share:.0%}" for k, share in RECALLS]
    lines = [f"| | rows | Spearman | {' | '.join(names)} |", f"|---|{'---:|' * (2 + len(names))}"]
    for name, found in agreement.items():
        parts = [(f"**{name}**", found["all"]), *found["domain"].items(), *found["length"].items()]
        for part, values in parts:
            cells = [f"{values[f'recall_{k:g}_in_{share:g}']:.3f}" for k, share in RECALLS]
            lines.append(f"| {part} | {values['rows']:,} | {values['spearman']:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
