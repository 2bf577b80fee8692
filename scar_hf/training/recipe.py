"""Train, evaluate, calibrate and save a ranker according to a recipe from a YAML file or the command line."""

import json
import logging
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, EarlyStoppingCallback, PreTrainedTokenizerBase, set_seed

from .._version import __version__
from ..files import read_dataset, without_local_folders
from ..modeling import ScarConfig, ScarModel
from ..progress import no_loading_bars
from ..rows.pairs import PairReader
from ..scoring.checkpoints import load_ranker, reason_of, resolve_checkpoint
from ..scoring.scorer import ScarScorer
from .augmentation import Augmentation
from .evaluation import evaluate_ranker
from .saving import calibration, save_ranker
from .trainer import ScarTrainer, ScarTrainingArguments
from .triples import MEMBERS, Triple, TripleDataset, load_triples, same_instruction, split_by_prompt, unrelated

logger = logging.getLogger(__name__)

# Enough for thresholds of 0.1 %; scoring them takes minutes on a CPU.
_CALIBRATION_ROWS = 10_000
# Options that the config stores under other names, or that only make sense on this machine.
_UNPUBLISHED = ("encoder", "encoder_name", "data_dir")
_FORM = ("use_pooler", "pooling", "surprisal_features")
_MODEL_SETTINGS = (*("max_length", "alpha", "triplet_margin", "triplet_weight", "cross_instruction_weight", "sigma"), *_FORM)


@dataclass
class RecipeArguments:
    """
    Settings for training a ranker, in addition to [`ScarTrainingArguments`].

    Args:
        encoder (`str`): folder or Hub id of a pretrained encoder, or of a ranker to continue training (`"scar-ranker"` for
            the bundled one). A ranker keeps its pooling and its heads.
        trust_remote_code (`bool`, *optional*, defaults to `False`): whether to run code from the encoder's repository.
        encoder_name (`str`, *optional*): name of the encoder to store in the ranker's config, if `encoder` is a folder.
        train_files (`list[str]`): files of triples in a format of [`load_triples`].
        data_dir (`str`, *optional*, defaults to `"."`): folder in which file names are looked up first.
        split (`list[float]`, *optional*, defaults to the paper's .8, .1, .1): shares of the instructions for training,
            validation (early stopping, choice of settings) and test (metrics stored with the ranker).
        split_seed (`int`): seed of the split.
        held_out_sources (`list[str]`): sources used for evaluation only.
        excluded_files (`list[str]`): instruction sets reserved for later tests; their instructions are not trained on.
        rows_per_source (`dict[str, int]`): number of rows per epoch from a source, 0 to leave it out; sources not named
            contribute all their rows.
        max_eval_rows (`int`): maximum number of rows per source for evaluation.
        instruction_files (`list[str]`): instruction sets whose responses are only trained to rank above negatives; the
            source of their rows is the file name without its extension.
        negatives (`dict[str, float]`): share of rows that get a negative of each kind; see
            [`~scar_hf.training.negatives.Negatives`].
        strip_markdown, strip_comments, equal_length, window (`float`): probabilities of [`Augmentation`].
        early_stopping_patience (`int`, *optional*): stop training after this many evaluations without improvement.
        dropout (`float`, *optional*): dropout probability of the encoder in training; by default that of the encoder's
            config. On a CPU, training with 0 is three times as fast as with 0.1.
        max_length (`int`): maximum number of tokens that the ranker reads, stored in its config.
        use_pooler, pooling, surprisal_features, alpha, triplet_margin, triplet_weight, cross_instruction_weight, sigma: see
            [`ScarConfig`].
        calibration_files (`list[str]`): instruction sets whose responses form the calibration set, together with LLM
            responses of the training data; if empty, the ranker has no calibration.
    """

    encoder: str = field(metadata={"help": "folder or Hub id of an encoder, or of a ranker to continue from"})
    train_files: list[str] = field(metadata={"help": "files of triples"})
    trust_remote_code: bool = field(default=False, metadata={"help": "run code from the encoder's repository"})
    encoder_name: str | None = field(default=None, metadata={"help": "name of the encoder in the config"})
    data_dir: str = field(default=".", metadata={"help": "folder in which file names are looked up first"})
    split: list[float] = field(default_factory=lambda: [0.8, 0.1, 0.1], metadata={"help": "train, validation and test shares"})
    split_seed: int = field(default=13, metadata={"help": "seed of the split"})
    held_out_sources: list[str] = field(default_factory=list, metadata={"help": "sources used for evaluation only"})
    excluded_files: list[str] = field(default_factory=list, metadata={"help": "instruction sets excluded from training"})
    rows_per_source: dict | str | None = field(default=None, metadata={"help": "rows per epoch by source, as JSON"})
    max_eval_rows: int = field(default=200, metadata={"help": "maximum rows per source for evaluation"})
    instruction_files: list[str] = field(
        default_factory=list, metadata={"help": "instruction sets whose responses rank above negatives"}
    )
    negatives: dict | str | None = field(default=None, metadata={"help": "share of rows with a negative, by kind, as JSON"})
    strip_markdown: float = field(default=0.0, metadata={"help": "probability of stripping Markdown from a row"})
    strip_comments: float = field(default=0.0, metadata={"help": "probability of stripping comments from a row of code"})
    equal_length: float = field(default=0.0, metadata={"help": "probability of cutting a row's responses to equal length"})
    window: float = field(default=0.0, metadata={"help": "probability of keeping only the beginning of a row's responses"})
    early_stopping_patience: int | None = field(default=None, metadata={"help": "evaluations without improvement"})
    dropout: float | None = field(default=None, metadata={"help": "dropout of the encoder in training"})
    max_length: int = field(default=512, metadata={"help": "tokens that the ranker reads"})
    use_pooler: bool = field(default=True, metadata={"help": "take the encoder's pooler output as first-token vector"})
    pooling: str = field(default="first_token", metadata={"help": "vector of a text: first_token or mean"})
    surprisal_features: str = field(default="concat", metadata={"help": "input of the surprisal head: concat or interaction"})
    alpha: float = field(default=0.5, metadata={"help": "margin of the ranking loss"})
    triplet_margin: float = field(default=1.0, metadata={"help": "margin of the triplet losses"})
    triplet_weight: float = field(default=0.1, metadata={"help": "weight lambda of the triplet losses"})
    cross_instruction_weight: float = field(default=0.0, metadata={"help": "weight of the loss across instructions"})
    sigma: float = field(default=5.0, metadata={"help": "quality that both responses of a rated pair must exceed"})
    calibration_files: list[str] = field(default_factory=list, metadata={"help": "instruction sets for the calibration"})


def train_ranker(recipe: RecipeArguments, args: ScarTrainingArguments) -> dict[str, Any]:
    """
    Train a ranker and save it to `args.output_dir`, with its calibration and provenance in the config.

    Args:
        recipe ([`RecipeArguments`]): the data and the ranker's settings.
        args ([`ScarTrainingArguments`]): the training arguments.

    Returns:
        `dict`: the metrics of [`evaluate_ranker`] on `test` and, if sources are held out, on `held_out`. They are also
        written to `metrics.json`.
    """
    set_seed(args.seed)
    parts = read_parts(recipe)
    train = parts["train"]
    quotas = _rows_per_source(recipe)
    train = [triple for triple in train if quotas.get(triple.source) != 0]
    tokenizer, model = _load(recipe, args)
    dataset = TripleDataset(
        [*train, *only_above_negatives(recipe, parts)],
        {source: rows for source, rows in quotas.items() if rows},
        Augmentation(recipe.strip_markdown, recipe.strip_comments, recipe.equal_length, recipe.window),
        args.seed,
        _mapping(recipe.negatives),
    )
    logger.info("%d rows an epoch from %d sources", len(dataset), len({triple.source for triple in train}))
    patience = recipe.early_stopping_patience
    trainer = ScarTrainer(
        model,
        args,
        train_dataset=dataset,
        eval_dataset=_at_most(parts["validation"], recipe.max_eval_rows),
        processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(patience)] if patience else None,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    ranker = trainer.merged_ranker().eval()
    if not trainer.is_world_process_zero():
        return {}
    save_ranker(ranker, tokenizer, args.output_dir)
    return _finish(recipe, args, {name: parts[name] for name in ("test", "held_out")}, train)


def read_parts(recipe: RecipeArguments) -> dict[str, list[Triple]]:
    """
    Read the triples of a recipe and split them.

    Args:
        recipe ([`RecipeArguments`]): the data.

    Returns:
        `dict[str, list[Triple]]`: `train`, `validation`, `test`, and `held_out` with all rows of the held-out sources. No
        instruction or human response of one part is in another; rows that held-out sources have, too, are in none of the rest.
    """
    files = [_found(Path(recipe.data_dir), name) for name in recipe.train_files]
    triples = _not_excluded(recipe, [triple for file in files for triple in load_triples(file)])
    unknown = set(recipe.held_out_sources) - {triple.source for triple in triples}
    if unknown:
        raise ValueError(f"`held_out_sources` names sources that the data does not have: {sorted(unknown)}.")
    held_out = [triple for triple in triples if triple.source in recipe.held_out_sources]
    rest = unrelated([triple for triple in triples if triple.source not in recipe.held_out_sources], held_out)
    train, validation, test = split_by_prompt(rest, recipe.split, recipe.split_seed)
    return {"train": train, "validation": validation, "test": test, "held_out": held_out}


def _not_excluded(recipe: RecipeArguments, triples: list[Triple]) -> list[Triple]:
    """Leave out the instructions of the excluded files."""
    files = [_found(Path(recipe.data_dir), name) for name in recipe.excluded_files]
    excluded = {same_instruction(row.instruction) for file in files for row in PairReader().read(read_dataset(file)[:])}
    return [triple for triple in triples if same_instruction(triple.instruction) not in excluded]


def only_above_negatives(recipe: RecipeArguments, parts: Mapping[str, list[Triple]]) -> list[Triple]:
    """
    Read the instruction files of a recipe, whose human responses are only ranked above negatives.

    Args:
        recipe ([`RecipeArguments`]): the data.
        parts (`Mapping[str, list[Triple]]`): from [`read_parts`].

    Returns:
        `list[Triple]`: the rows that are neither excluded nor in a part that is measured on.
    """
    files = [_found(Path(recipe.data_dir), name) for name in recipe.instruction_files]
    rows = _not_excluded(recipe, [triple for file in files for triple in _human_rows(file)])
    return unrelated(rows, [triple for name, part in parts.items() if name != "train" for triple in part])


def _finish(
    recipe: RecipeArguments, args: ScarTrainingArguments, parts: Mapping[str, list[Triple]], train: list[Triple]
) -> dict[str, Any]:
    """Evaluate and calibrate the ranker as stored, in half precision, and write both to its config."""
    folder = Path(args.output_dir)
    # Use the precision of training: the error of bfloat16 is below the sampling error of these metrics.
    scorer = ScarScorer.from_pretrained(str(folder), dtype="bfloat16" if args.bf16 else "float32")
    metrics = {
        name: evaluate_ranker(scorer, _at_most(rows, recipe.max_eval_rows), progress=True)
        for name, rows in parts.items()
        if rows
    }
    config = ScarConfig.from_pretrained(folder)
    if recipe.calibration_files:
        config.calibration = calibration(scorer, *_calibration_set(recipe, train))
    config.training = {
        "scar_hf": __version__,
        "encoder": recipe.encoder_name or without_local_folders(recipe.encoder),
        "sources": sorted({triple.source for triple in train}),
        "rows": len(train),
        "recipe": without_local_folders({name: value for name, value in vars(recipe).items() if name not in _UNPUBLISHED}),
        "learning_rate": args.learning_rate,
        "epochs": args.num_train_epochs,
        "seed": args.seed,
        "metrics": {name: {**values["all"], "macro": values.get("macro")} for name, values in metrics.items()},
    }
    config.save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def _load(recipe: RecipeArguments, args: ScarTrainingArguments) -> tuple[PreTrainedTokenizerBase, ScarModel]:
    """Load the tokenizer, and a ranker or an encoder with new heads."""
    settings = {name: getattr(recipe, name) for name in _MODEL_SETTINGS}
    config, path = ScarConfig(**settings), resolve_checkpoint(recipe.encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=recipe.trust_remote_code)
        with no_loading_bars():
            model = _new_ranker(recipe, args, config, settings)
    except Exception as error:  # transformers raises various exceptions for damaged files
        raise ValueError(f"The encoder {recipe.encoder!r} cannot be loaded: {reason_of(error)}") from error
    limit = getattr(model.config.encoder_config, "max_position_embeddings", None)
    if limit and model.config.max_length > limit:
        logger.warning("The encoder %r reads at most %d tokens, and so will the ranker.", recipe.encoder, limit)
        model.config.max_length = limit
    for name in ("instruction_max_length", "response_max_length"):
        given = getattr(args, name)
        if given is not None and not 3 <= given <= (limit or given):
            raise ValueError(f"--{name} must be at least 3 and at most what the encoder reads, {limit or 'any'}, got {given}.")
    return tokenizer, model


def _new_ranker(
    recipe: RecipeArguments, args: ScarTrainingArguments, config: ScarConfig, settings: dict[str, Any]
) -> ScarModel:
    # In bfloat16 on a CPU, the backward pass of fused attention is slower than eager attention (3.4 vs 2.4 s for 24 texts).
    options: dict[str, Any] = {"attn_implementation": "eager"} if args.use_cpu and args.bf16 else {}
    start = resolve_checkpoint(recipe.encoder)
    options["trust_remote_code"] = recipe.trust_remote_code
    if AutoConfig.from_pretrained(start, trust_remote_code=recipe.trust_remote_code).model_type == ScarConfig.model_type:
        # Rankers are stored in half precision, but optimisers need float32.
        model = load_ranker(start, attn_implementation=options.get("attn_implementation"))
        for name in settings.keys() - set(_FORM):
            setattr(model.config, name, settings[name])
    else:
        model = ScarModel.from_encoder(start, config, **options)
    if recipe.dropout is not None:
        for module in model.encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = recipe.dropout
    return model


def _rows_per_source(recipe: RecipeArguments) -> dict[str, int]:
    """Return the quotas, without those of held-out sources."""
    return {name: int(count) for name, count in _mapping(recipe.rows_per_source).items() if name not in recipe.held_out_sources}


def _mapping(option: dict[str, Any] | str | None) -> dict[str, Any]:
    """Return an option that is a mapping in YAML and JSON on the command line (`dict`)."""
    return json.loads(option) if isinstance(option, str) else option or {}


def _found(data_dir: Path, name: str) -> Path:
    """Return the path of a file in the data folder, or the path as given if only that exists."""
    file = data_dir / name
    return Path(name) if not file.exists() and Path(name).exists() else file


def _human_rows(file: Path) -> list[Triple]:
    """Return the readable rows of an instruction set, with their responses as human ones."""
    rows = PairReader().read(read_dataset(file)[:])
    return [
        Triple(row.instruction, {"human": [row.response]}, source=file.stem, domain="open")
        for row in rows
        if row.problem is None
    ]


def _at_most(triples: list[Triple], rows: int) -> list[Triple]:
    """Return the first rows of each source."""
    seen: dict[str, int] = {}
    kept = []
    for triple in triples:
        seen[triple.source] = seen.get(triple.source, 0) + 1
        if seen[triple.source] <= rows:
            kept.append(triple)
    return kept


def _calibration_set(recipe: RecipeArguments, train: list[Triple]) -> tuple[list[str], list[str], str]:
    """Return pairs of the instruction sets and an LLM response per training row, at most 10,000, and their description."""
    instructions, responses = [], []
    for name in recipe.calibration_files:
        usable = [row for row in PairReader().read(read_dataset(_found(Path(recipe.data_dir), name))[:]) if row.problem is None]
        instructions += [row.instruction for row in usable]
        responses += [row.response for row in usable]
    files = ", ".join(recipe.calibration_files)
    pairs = [(f"responses of {files}", x, y) for x, y in zip(instructions, responses, strict=True)]
    for triple in train:
        texts = [text for member in MEMBERS[:2] for text in triple.responses.get(member, ())]
        pairs += [("LLM responses of the training data", triple.instruction, text) for text in texts[:1]]
    if len(pairs) > _CALIBRATION_ROWS:
        pairs = random.Random(recipe.split_seed).sample(pairs, _CALIBRATION_ROWS)
    counts = Counter(kind for kind, _, _ in pairs)
    described = " and ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return [x for _, x, _ in pairs], [y for _, _, y in pairs], described
