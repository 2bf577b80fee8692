"""`scar-hf synthesize`: have language models answer instructions and rewrite human responses."""

import argparse
from pathlib import Path
from typing import Any

from .terminal import UsageError, usage

HELP = "create triples for training a ranker: language models answer instructions and rewrite human responses"
EXAMPLE = "scar-hf synthesize human.jsonl -o triples.jsonl --base-url http://127.0.0.1:8000/v1 --model Qwen/Qwen2.5-7B-Instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "data", metavar="HUMAN", help="instructions with human responses, in any format that scar-hf select reads"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="triples: .jsonl(.gz, .zst) or a folder; rerun the command to continue an interrupted run",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that this command did not write")
    parser.add_argument("--split", help="split of a Hub dataset (default: train) or of a saved DatasetDict")
    parser.add_argument("--columns", metavar="INSTRUCTION,RESPONSE", help="the two columns, for data of an unknown format")
    parser.add_argument(
        "--turn",
        default="first",
        choices=("first", "last"),
        help="assistant turn of a conversation to use (default: %(default)s)",
    )
    add_backend_arguments(parser)
    add_sampling_arguments(parser, temperature=0.7, max_tokens=512)
    group = parser.add_argument_group("responses")
    group.add_argument("--kinds", default="direct,referenced", metavar="KINDS", help="kinds of response (default: %(default)s)")
    group.add_argument("--direct-prompt", metavar="FILE", help="prompt file with {instruction}; replaces the bundled one")
    group.add_argument("--referenced-prompt", metavar="FILE", help="prompt file with {response} and, optionally, {instruction}")
    group.add_argument(
        "--trim",
        action="store_true",
        help="trim responses cut off at --max-tokens to their last whole sentence; by default they are dropped",
    )
    group = parser.add_argument_group("rows")
    group.add_argument(
        "--rows", type=int, metavar="N", help="use N random rows; a later run with a larger N keeps these and adds more"
    )
    group.add_argument("--draw-seed", type=int, default=0, metavar="N", help="seed for choosing them (default: %(default)s)")
    group.add_argument("--max-instruction-words", type=int, metavar="N", help="skip rows with longer instructions")
    group.add_argument("--min-response-words", type=int, metavar="N", help="skip rows with shorter human responses")
    group.add_argument("--max-response-words", type=int, metavar="N", help="skip rows with longer human responses")
    group = parser.add_argument_group("columns of the output", "by default taken from the data, if it has them")
    for name in ("source", "domain", "licence"):
        group.add_argument(f"--{name}", metavar="TEXT", help=f"{name} of all rows")


def add_backend_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the options for models and their budget."""
    group = parser.add_argument_group("models")
    group.add_argument(
        "--model",
        action="append",
        required=required,
        metavar="NAME",
        help="model name at the endpoint; or, without an endpoint, a folder or GGUF file to run on this machine; repeatable",
    )
    group.add_argument(
        "--base-url",
        action="append",
        metavar="URL",
        help="OpenAI-compatible endpoint, e.g. http://127.0.0.1:8000/v1; one for all models, or one for each",
    )
    group.add_argument(
        "--provider", metavar="NAME", help="inference provider known to huggingface_hub, or auto; instead of --base-url"
    )
    group.add_argument(
        "--key-variable",
        default="SCAR_HF_API_KEY",
        metavar="NAME",
        help="environment variable that holds the API key (default: %(default)s)",
    )
    group.add_argument("--concurrency", type=int, default=4, metavar="N", help="concurrent requests (default: %(default)s)")
    group.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="timeout of a request in seconds (default: %(default)s)"
    )
    group.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="batch size of models on this machine (default: %(default)s)"
    )
    group.add_argument(
        "--max-requests", type=int, metavar="N", help="stop after N requests; 0 only writes the answers collected so far"
    )
    group.add_argument(
        "--max-total-tokens", type=int, metavar="N", help="stop before prompts and answers together exceed N tokens"
    )


def add_sampling_arguments(parser: argparse.ArgumentParser, temperature: float, max_tokens: int) -> None:
    """Add the sampling options."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--temperature", type=float, default=temperature, metavar="T", help="sampling temperature (default: %(default)s)"
    )
    group.add_argument("--top-p", type=float, metavar="P", help="probability mass for nucleus sampling")
    group.add_argument(
        "--max-tokens", type=int, default=max_tokens, metavar="N", help="maximum length of an answer (default: %(default)s)"
    )
    group.add_argument("--seed", type=int, metavar="N", help="sampling seed, sent with each request")


def backends_of(args: argparse.Namespace) -> list[Any]:
    """Return the models that the arguments name."""
    from ..synthesis import EndpointBackend, local_backend

    if not args.base_url and not args.provider:
        missing = [model for model in args.model if not Path(model).exists()]
        if missing:
            raise UsageError(
                f"No endpoint, and no such file or folder: {', '.join(missing)}. Pass --base-url with the address of an "
                "OpenAI-compatible server, such as http://127.0.0.1:8000/v1, or --provider; or as --model a model's folder or "
                "GGUF file."
            )
        return [local_backend(model, args.batch_size) for model in args.model]
    urls = args.base_url or [None]
    if len(urls) not in (1, len(args.model)):
        raise UsageError(f"Pass --base-url once, or once for each --model; got {len(urls)} for {len(args.model)} models.")
    urls = urls * len(args.model) if len(urls) == 1 else urls
    settings = {"key_variable": args.key_variable, "concurrency": args.concurrency, "timeout": args.timeout}
    with usage():
        return [
            EndpointBackend(model, url, provider=args.provider, **settings) for model, url in zip(args.model, urls, strict=True)
        ]


def sampling_of(args: argparse.Namespace, **settings: Any) -> Any:
    """Return the sampling settings from the arguments."""
    from ..synthesis import Sampling

    return Sampling(args.temperature, args.top_p, args.max_tokens, args.seed, **settings)


def run(args: argparse.Namespace) -> int:
    """Query the models, filter, write, and report dropped responses."""
    from ..rows.pairs import PairReader
    from ..synthesis import RowChoice, Usage, synthesize_files
    from ..synthesis.synthesizing import load_prompts

    result = synthesize_files(
        args.data,
        args.output,
        backends_of(args),
        load_prompts(args.direct_prompt, args.referenced_prompt, args.kinds.split(",")),
        reader=PairReader(args.columns.split(",") if args.columns else None, args.turn),
        sampling=sampling_of(args),
        choice=RowChoice(
            args.rows, args.draw_seed, args.max_instruction_words, args.min_response_words, args.max_response_words
        ),
        usage=Usage(args.max_requests, args.max_total_tokens),
        kept={name: getattr(args, name) for name in ("source", "domain", "licence") if getattr(args, name)},
        split=args.split,
        overwrite=args.overwrite,
        trim=args.trim,
    )
    print(summary(result))
    print(f"Wrote {len(result.triples):,} triples to {args.output}.")
    return 0


def summary(result: Any) -> str:
    """Summarise the results for rows and responses, one line each."""
    lines = []
    for kind, models in result.counts.items():
        for model, counts in models.items():
            left_out = {r: n for r, n in sorted(counts.items(), key=lambda item: -item[1]) if r not in ("kept", "missing")}
            reasons = "".join(f", {reason} {n:,}" for reason, n in left_out.items())
            missing = f"; not answered yet: {counts['missing']:,}" if counts.get("missing") else ""
            lines.append(
                f"{kind}, {model}: kept {counts.get('kept', 0):,}; left out {sum(left_out.values()):,}{reasons}{missing}"
            )
    if result.trimmed:
        lines.append(f"of those kept, {result.trimmed:,} were cut off and end at their last whole sentence")
    if result.passed_over:
        lines.append("rows passed over: " + ", ".join(f"{reason} {n:,}" for reason, n in result.passed_over.items()))
    usage = result.usage
    lines.append(f"this run: {usage.requests:,} requests, {usage.tokens:,} tokens")
    lines += [f"{n:,} requests failed: {error}" for error, n in usage.failed.items()]
    if usage.exhausted:
        lines.append("The budget is used up. Rerun the command with a larger budget to continue.")
    elif result.missing:
        lines.append("Some requests failed. Rerun the command to retry them.")
    return "\n".join(lines)
