"""Each setting of a scorer reaches every place that shows or takes settings, without being named there."""

import argparse
import inspect
import pickle
import shlex

import pytest

from scar_hf import ScarScorer, scar_filter, scar_rank, scar_score
from scar_hf.manifest.commands import select_command, select_snippet
from scar_hf.options import add_options, prefixed_fields
from scar_hf.scoring.settings import (
    BY_NAME,
    OPTIONS,
    RANKER,
    ROWS,
    SCORES,
    ScorerSettings,
    settings_that_decide,
)

# A value other than the default for each setting that a command line can express, and how it is written there.
OTHER = {
    "model": ("{ranker}", "--model {ranker}"),
    "revision": ("v2", "--revision v2"),
    "device": ("cpu", "--device cpu"),
    "dtype": ("float32", "--dtype float32"),
    "backend": ("torch", "--backend torch"),
    "max_length": (48, "--max-length 48"),
    "truncation": (False, "--no-truncation"),
    "columns": (("ask", "reply"), "--columns ask,reply"),
    "turn": ("last", "--turn last"),
    "preference": ("margin", "--preference margin"),
    "strict": (True, "--strict"),
    "tokens_per_batch": (64, "--tokens-per-batch 64"),
    "attn_implementation": ("eager", "--attn-implementation eager"),
}


def test_every_option_has_a_value_here():
    assert list(OTHER) == list(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_setting_is_everywhere(name, tiny_ranker):
    value, written = OTHER[name]
    if name == "model":
        value, written = str(tiny_ranker), f"--model {tiny_ranker}"
    for taking in (ScarScorer, ScarScorer.from_pretrained, scar_score, scar_rank, scar_filter):
        assert inspect.signature(taking).parameters[name].default == BY_NAME[name].default
    for documented in (ScorerSettings, ScarScorer):
        assert BY_NAME[name].metadata["help"] in documented.__doc__
    parser = argparse.ArgumentParser()
    add_options(parser, BY_NAME.values())
    assert ScorerSettings.from_options(parser.parse_args([])) == ScorerSettings()
    assert ScorerSettings.from_options(parser.parse_args(shlex.split(written))) == ScorerSettings(**{name: value})
    assert f"scar_{name}" in {field for field, _, _ in prefixed_fields("scar_", BY_NAME.values())}
    scorer = ScarScorer(**{"model": str(tiny_ranker), "device": "cpu", name: value})
    described = scorer.describe()
    if name in settings_that_decide(RANKER, SCORES, ROWS):
        assert described[name] == value
        assert (name in scorer.identity()) == (name not in settings_that_decide(RANKER))
        assert getattr(pickle.loads(pickle.dumps(scorer)).settings, name) == value
        ranker = {part: described[part] for part in ("model", "revision", "weights")}
        manifest = {"data": "d.jsonl", "ranker": ranker, "settings": described, "options": {"k": 3}}
        assert written in select_command(manifest, None) and f"{name}={value!r}" in select_snippet(manifest)
    else:
        assert name not in described


def test_trainer_arguments_parse_them():
    pytest.importorskip("trl")
    from scar_hf.trainer_callbacks import ScarArguments
    from transformers import HfArgumentParser

    line = "--scar_dtype float32 --scar_max_length 48 --no_scar_truncation --scar_columns ask reply --scar_strict --scar_k 3"
    (found,) = HfArgumentParser(ScarArguments).parse_args_into_dataclasses(line.split())
    settings = found.scorer().settings
    assert (settings.dtype, settings.max_length, settings.truncation, settings.strict) == ("float32", 48, False, True)
    assert list(settings.columns) == ["ask", "reply"] and found.scar_k == 3
    assert all(f"scar_{name} (" in ScarArguments.__doc__ for name in OPTIONS)


def test_what_is_no_setting_is_refused():
    with pytest.raises(TypeError, match=r"no setting 'max_lenght'. Did you mean 'max_length'\? Settings: model, revision"):
        scar_score(max_lenght=3)
    with pytest.raises(ValueError, match=r"`turn` must be one of \('first', 'last', 'all'\), got 'second'"):
        ScorerSettings(turn="second")
