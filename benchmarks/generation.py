"""
Compare the tokens per second of llama.cpp, OpenVINO GenAI and transformers for a GGUF model on a CPU.

    python benchmarks/generation.py MODEL.gguf --ways llama.cpp openvino transformers -o generation.json

Each library answers the same prompts with the same number of new tokens. They run in separate processes, one after the other,
on the same machine. llama.cpp answers one prompt at a time, the others all at once. Prints one line for each, with its ratio
to the first.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROMPTS = [
    "Name three large rivers of Africa and the countries that they cross.",
    "Write a Python function that returns the second largest number of a list.",
    "Why does bread rise when it is baked?",
    "Explain the difference between a process and a thread.",
    "Give four ideas for a birthday party on a rainy day.",
    "Write a regular expression that matches a date such as 2024-05-31, and explain it.",
    "What is the difference between weather and climate?",
    "How do I remove a file from the last Git commit?",
]


def with_llama_cpp(path: str, prompts: list[str], tokens: int, threads: int) -> tuple[int, float]:
    """Return tokens and seconds of llama.cpp, one prompt at a time."""
    from llama_cpp import Llama

    model = Llama(path, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
    made, start = 0, time.perf_counter()
    for prompt in prompts:
        messages = [{"role": "user", "content": prompt}]
        answer = model.create_chat_completion(messages, max_tokens=tokens, temperature=0.0)
        made += answer["usage"]["completion_tokens"]
    return made, time.perf_counter() - start


def with_openvino(path: str, prompts: list[str], tokens: int, threads: int) -> tuple[int, float]:
    """Return tokens and seconds of OpenVINO GenAI's continuous batching."""
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_seqs = 1, len(prompts)
    model = genai.LLMPipeline(path, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=threads)
    settings = genai.GenerationConfig(max_new_tokens=tokens, do_sample=False)
    start = time.perf_counter()
    result = model.generate(prompts, settings)
    seconds = time.perf_counter() - start
    tokenizer = model.get_tokenizer()
    return sum(tokenizer.encode(text).input_ids.shape[1] for text in result.texts), seconds


def with_transformers(path: str, prompts: list[str], tokens: int, threads: int) -> tuple[int, float]:
    """Return tokens and seconds of transformers in bfloat16, all prompts in one batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    folder, name = str(Path(path).parent), Path(path).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, trust_remote_code=False, dtype=torch.bfloat16)
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
        for p in prompts
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    start = time.perf_counter()
    answers = model.generate(**batch, max_new_tokens=tokens, do_sample=False)
    seconds = time.perf_counter() - start
    new = answers[:, batch["input_ids"].shape[1] :]
    return int((new != tokenizer.pad_token_id).sum()), seconds


WAYS = {"llama.cpp": with_llama_cpp, "openvino": with_openvino, "transformers": with_transformers}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="in the order in which they run")
    parser.add_argument(
        "--python", nargs="*", default=[], metavar="WAY=PYTHON", help="interpreters of ways that are installed elsewhere"
    )
    parser.add_argument("--tokens", type=int, default=96, help="new tokens for each prompt (default: 96)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("-o", "--output", help="JSON file with the results")
    return parser.parse_args(arguments)


def main() -> None:
    """Time each library in a separate process, and print the results."""
    args = parse()
    interpreters = dict(pair.split("=", 1) for pair in args.python)
    results: list[dict[str, float | str]] = []
    for way in args.ways:
        command = [interpreters.get(way, sys.executable), __file__, args.model, "--tokens", str(args.tokens)]
        command += ["--threads", str(args.threads), "--ways", way]
        run = subprocess.run(command, env=os.environ | {"SCAR_HF_ONE_WAY": "1"}, capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{way}: failed: {run.stderr.strip().splitlines()[-1:]}")
            continue
        result = json.loads(run.stdout.strip().splitlines()[-1])
        results.append(result)
        ratio = result["tokens_per_second"] / results[0]["tokens_per_second"]
        made = f"{result['tokens']} tokens in {result['seconds']:.1f} s"
        print(f"{way}: {made} = {result['tokens_per_second']:.1f} a second, x{ratio:.2f}")
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if os.environ.get("SCAR_HF_ONE_WAY"):
        one = parse()
        tokens, seconds = WAYS[one.ways[0]](one.model, PROMPTS, one.tokens, one.threads)
        print(json.dumps({"way": one.ways[0], "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}))
    else:
        main()
