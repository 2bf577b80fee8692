"""Finds, loads, checks and identifies rankers on disk and on the Hub."""

import json
import os
import re
import time
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCard, try_to_load_from_cache
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..modeling import ScarConfig, ScarModel
from ..progress import no_loading_bars
from .settings import BUNDLED_RANKERS

_CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
# Types of files from which transformers may read weights, config or tokenizer.
_READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".tiktoken")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken")
# Seconds since the last change below which a file may change again without a new timestamp.
_SETTLED = 2.0
# More than any encoder has; each costs time and memory before it shows that there are no weights for it.
_LIMITS = {"num_hidden_layers": 1000, "n_layers": 1000, "n_layer": 1000, "num_layers": 1000, "num_labels": 100_000}
_LONGEST_REASON = 400
_LANGUAGE_CODE = re.compile("[a-z]{2,3}")


def resolve_checkpoint(model: str) -> str:
    """Return the folder of a bundled ranker for its name; return any other folder or Hub id unchanged."""
    return str(_CHECKPOINTS / model) if model in BUNDLED_RANKERS else model


def read_config(path: str, revision: str | None = None) -> ScarConfig:
    """
    Read a ranker's configuration.

    Args:
        path (`str`): a folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Returns:
        [`ScarConfig`].

    Raises:
        `ValueError`: if nothing is found there, or it is not a SCAR ranker.
    """
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ValueError(
            f"{path!r} is not a SCAR ranker: the folder has no config.json. `scar-hf export scar-ranker` writes one."
        )
    try:
        values, _ = ScarConfig.get_config_dict(path, revision=revision)
        kind = values.get("model_type")
    except Exception as error:  # transformers raises OSError for a missing file, and various exceptions for other JSON
        if Path(path).is_dir():
            raise ValueError(f"The config of {path!r} is invalid: {reason_of(error)}") from error
        if not isinstance(error, OSError):
            raise
        raise ValueError(
            f"No SCAR ranker found at {path!r}: it is neither a folder nor a reachable model id. "
            f"The bundled rankers are called {' and '.join(map(repr, BUNDLED_RANKERS))}."
        ) from error
    if kind != ScarConfig.model_type:
        raise ValueError(
            f"{path!r} is a model of type {kind!r}, not a SCAR ranker (type {ScarConfig.model_type!r}). "
            f"Use {BUNDLED_RANKERS[0]!r}, or train a ranker from this encoder with `scar-hf train --encoder {path}`."
        )
    try:
        _check_limits(values)
        return ScarConfig.from_dict(values)
    except Exception as error:  # config options raise various exceptions for values of the wrong type
        raise ValueError(f"The config of {path!r} is invalid: {reason_of(error)}") from error


def _check_limits(values: dict[str, Any]) -> None:
    for part in (values, values.get("encoder_config")):
        for name, most in _LIMITS.items():
            given = part.get(name) if isinstance(part, dict) else None
            if isinstance(given, int) and given > most:
                raise ValueError(f"`{name}` is {given:,}, more than {most:,}.")


def check_ranker_folder(output: str | Path, overwrite: bool = False) -> Path:
    """
    Check that a ranker can be written to a folder.

    Args:
        output (`str` or `Path`): the folder.
        overwrite (`bool`, *optional*, defaults to `False`): whether an existing ranker may be replaced.

    Returns:
        `Path`: the same folder.

    Raises:
        `ValueError`: if the path is not a folder, or the folder holds anything that may not be replaced.
    """
    output = Path(output)
    if output.suffix or output.is_file():
        raise ValueError(f"The output must be a folder, got {output}.")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise ValueError(f"The output {output} exists. Pass --overwrite to replace it, or choose another path.")
        try:
            read_config(str(output))
        except ValueError as error:
            raise ValueError(
                f"The folder {output} is not replaced because it does not hold a ranker. Choose another folder."
            ) from error
    return output


def load_ranker(
    path: str, revision: str | None = None, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None
) -> ScarModel:
    """
    Load a ranker in evaluation mode and check that its weights are complete.

    Args:
        path (`str`): a folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): precision of the weights in memory.
        attn_implementation (`str`, *optional*): see `AutoModel.from_pretrained`.

    Returns:
        [`ScarModel`]: in evaluation mode.

    Raises:
        `ValueError`: if it is not a SCAR ranker, or a weight is missing, unexpected, unreadable or of the wrong shape.
    """
    read_config(path, revision)
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    try:
        with no_loading_bars(report=False):  # what does not fit is checked below
            model, info = ScarModel.from_pretrained(
                path, revision=revision, dtype=dtype, output_loading_info=True, trust_remote_code=False, **options
            )
    except Exception as error:  # transformers raises various exceptions for damaged files
        raise ValueError(f"The weights of {path!r} cannot be loaded: {reason_of(error)}. Save the ranker again.") from error
    wrong = {
        name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(name)
    }
    if wrong:
        listed = "; ".join(f"{len(keys)} {name.replace('_', ' ')}: {', '.join(keys[:4])}" for name, keys in wrong.items())
        raise ValueError(
            f"The checkpoint {path!r} does not match its config ({listed}). Its scores would be wrong: save it again."
        )
    return model.eval()


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """
    Load a ranker's tokenizer without running code from the checkpoint.

    Args:
        path (`str`): a folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Returns:
        [`~transformers.PreTrainedTokenizerBase`].

    Raises:
        `ValueError`: if its files are missing or damaged.
    """
    if Path(path).is_dir() and not any(file.is_file() for name in _TOKENIZER_FILES for file in Path(path).glob(name)):
        raise ValueError(
            f"{path!r} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}). Save the ranker again, with its tokenizer."
        )
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception for unreadable files
        raise ValueError(f"The tokenizer of {path!r} cannot be loaded: {reason_of(error)}. Save the ranker again.") from error


def reason_of(error: Exception) -> str:
    """Say in a line why a checkpoint cannot be read; libraries write pages, some with unsafe advice."""
    text = str(error)
    if "weights_only" in text:
        return "its weights are in a pickle file that holds more than tensors, which could run code when it is read"
    if "ignore_mismatched_sizes" in text:
        return "weights have other shapes than its config says"
    line = " ".join(text.split())
    line = line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} [...]"
    return line if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {line}"


def ranker_languages(path: str, revision: str | None = None) -> list[str]:
    """
    Read from a ranker's card which languages it was trained on.

    Args:
        path (`str`): a folder or Hub id; nothing is downloaded.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Returns:
        `list[str]`: language codes such as `["en"]`; empty if there is no card, or the card does not give codes.
    """
    card = Path(path, "README.md")
    if not card.is_file():
        cached = None if Path(path).is_dir() else try_to_load_from_cache(path, "README.md", revision=revision)
        card = Path(cached) if isinstance(cached, str) else card
    try:
        found = ModelCard.load(card, ignore_metadata_errors=True).data.language if card.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return []
    codes = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return codes if all(isinstance(code, str) and _LANGUAGE_CODE.fullmatch(code) for code in codes) else []


def checkpoint_identity(path: str, revision: str | None = None) -> str:
    """
    Identify a checkpoint by its content.

    Args:
        path (`str`): a folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Returns:
        `str`:
            For a folder, SHA-256 over all files that config, tokenizer or weights may be read from; for a Hub id, the commit
            that the revision currently points to.

    Raises:
        `ValueError`: if a Hub id cannot be reached and is not in the local cache.
    """
    folder = Path(path)
    if folder.is_dir():
        digest = sha256()
        for file in _files_read(folder):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + _hash_of(file))
        return digest.hexdigest()
    read_config(path, revision)
    config = cached_file(path, "config.json", revision=revision)
    return Path(str(config)).parent.name


def _files_read(folder: Path) -> list[Path]:
    """List the files that a checkpoint may be read from, including weights that an index refers to."""
    files = {file for file in folder.iterdir() if file.suffix in _READ and file.is_file()}
    for index in folder.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            files |= {folder / name for name in names if (folder / name).is_file()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # loading reports the problem
    return sorted(files)


def _hash_of(file: Path) -> bytes:
    """Return the SHA-256 of a file, cached until the file changes."""
    stat = file.stat()
    # ctime cannot be set back, unlike mtime. Windows has no such time.
    if os.name == "nt" or time.time() - max(stat.st_mtime, stat.st_ctime) < _SETTLED:
        return _read_hash(str(file))
    return _known_hash(str(file), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=256)
def _known_hash(file: str, *stat: int) -> bytes:
    return _read_hash(file)


def _read_hash(file: str) -> bytes:
    with open(file, "rb") as stream:
        return file_digest(stream, "sha256").digest()
