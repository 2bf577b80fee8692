"""
Measure the structure of the code, as a Markdown table: python tools/architecture.py [CHECKOUT ...] [--trace]

Prints the numbers of modules, lines, imports between modules and import cycles of one checkout (by default this one), or of
several side by side:

    git worktree add ../before 2622d99 && python tools/architecture.py ../before . --trace

Imports inside functions count; imports for type checkers do not. `--trace` selects from a small file, on the command line and
with `ds.filter(scar_filter(k=.5))`. A module holds a text if a local variable, an argument, or a returned or yielded value of
one of its functions contains the text of a row: as a string, in a list, dictionary or Arrow table, or in an object of
`scar_hf.rows`.
Numbers that were computed from a text, such as token ids and scores, do not count.
"""

import argparse
import ast
import configparser
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# A word that occurs in the texts of the traced rows and nowhere else.
MARKER = "zorbs"
TRACED = """
import json, sys, threading
from collections.abc import Mapping
root, way, data, out, marker = sys.argv[1:6]
holding, running = set(), set()

def holds(value, depth=0):
    # Whether a value is or contains the text: in strings, bytes, containers, tables, and small objects of the package.
    if isinstance(value, (str, bytes)):
        return (marker if isinstance(value, str) else marker.encode()) in value
    if depth > 4 or value is None or isinstance(value, (int, float, type)):
        return False
    if isinstance(value, Mapping):
        return any(holds(item, depth + 1) for item in list(value.values())[:50])
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(holds(item, depth + 1) for item in list(value)[:50])
    kind = type(value)
    if kind.__module__.startswith("pyarrow") and hasattr(value, "slice"):
        return holds(value.slice(0, 50).to_pylist(), depth + 1)
    if kind.__module__.startswith("scar_hf.rows") or kind.__name__ == "Chunk":
        names = getattr(kind, "__slots__", ()) or list(getattr(value, "__dict__", ()))
        return any(holds(getattr(value, name, None), depth + 1) for name in names)
    return False

def see(frame, event, returned):
    code = frame.f_code
    if event not in ("call", "return") or not code.co_filename.startswith(root) or code.co_name == "<module>":
        return
    if "site-packages" in code.co_filename:  # a virtual environment in the checkout
        return
    if not code.co_flags & 2:  # the body of a class, not a function
        return
    running.add(code.co_filename)
    if code.co_filename in holding:
        return
    found = holds(returned) or any(holds(value) for name, value in frame.f_locals.items() if name not in ("self", "cls"))
    if found:
        holding.add(code.co_filename)

if way == "select":
    from scar_hf.cli import main
    threading.setprofile(see); sys.setprofile(see)
    main(["select", data, "-k", "0.5", "-o", out, "--quiet"])
else:
    from datasets import Dataset
    from scar_hf import scar_filter
    ds = Dataset.from_json(data, cache_dir=out)
    threading.setprofile(see); sys.setprofile(see)
    ds.filter(scar_filter(k=0.5, progress=False))
sys.setprofile(None)
print(json.dumps([sorted(holding), sorted(running)]))
"""


def modules(root: Path) -> dict[str, Path]:
    """Return the modules by dotted name, including those in mapped folders."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    found = {}
    for line in config["options"]["package_dir"].strip().splitlines():
        package, folder = line.split(" = ")
        for file in sorted((root / folder).rglob("*.py")):
            parts = [package, *file.relative_to(root / folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imports(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a module imports, including imports inside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typed = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(child) for node in typed for child in ast.walk(node)}
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found |= {n for n in (f"{target}.{alias.name}", target) if n in known and n != name} and {
                    next(n for n in (f"{target}.{alias.name}", target) if n in known)
                }
    return found - {name}


def circles(arrows: dict[str, set[str]]) -> int:
    """Count the groups of modules that import each other in a cycle."""
    reached = {}
    for start in arrows:
        seen, waiting = set(), [start]
        while waiting:
            for other in arrows[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        reached[start] = seen
    return len({frozenset(b for b in reached[a] if a in reached[b]) for a in arrows if a in reached[a]})


def entered(root: Path, way: str) -> tuple[list[str], list[str]]:
    """Return the modules that hold a row's text on one path through the code, and those that run any function on it."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        rows = [{"instruction": f"What do {MARKER} eat?", "response": f"{n} of the {MARKER} eat nectar."} for n in range(4)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        env = os.environ | {"PYTHONPATH": str(root), "SCAR_HF_CACHE": folder}
        out = str(Path(folder) / "out.jsonl")
        command = [sys.executable, "-c", TRACED, str(root), way, str(data), out, MARKER]
        run = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    found = json.loads(run.stdout.splitlines()[-1])
    return tuple([str(Path(file).relative_to(root)) for file in files if ".venv" not in file] for files in found)


def code_lines(file: Path) -> int:
    """Count the lines that are neither blank, comments nor docstrings."""
    text = file.read_text(encoding="utf-8")
    prose = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if line.strip() and not line.lstrip().startswith("#") and number not in prose)


def measure(root: Path, trace: bool) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the measurements of a checkout, and the modules that hold a text on each path."""
    known = modules(root)
    arrows = {name: imports(name, file, known) for name, file in known.items()}
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in known.items()}
    largest = max(lines, key=lambda name: lines[name])
    sizes = f"{statistics.median(lines.values()):g}, {lines[largest]} (`{largest.removeprefix('scar_hf.')}`)"
    found = {
        "modules, of which under 60 lines": f"{len(known)}, {sum(count < 60 for count in lines.values())}",
        "lines": f"{sum(lines.values()):,}",
        "lines of code, without docstrings, comments and blank lines": f"{sum(map(code_lines, known.values())):,}",
        "lines of a module: median, largest": sizes,
        "import arrows": f"{sum(map(len, arrows.values()))}",
        "circles of imports": f"{circles(arrows)}",
    }
    ways = {}
    for way in ("select", "filter") if trace else ():
        holding, running = entered(root, way)
        found[f"modules that hold a text on the way of `{way}`"] = f"{len(holding)}"
        found[f"modules of which any function runs on the way of `{way}`"] = f"{len(running)}"
        ways[way] = holding
    return found, ways


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", default=[Path(__file__).parent.parent], type=Path, metavar="CHECKOUT")
    parser.add_argument("--trace", action="store_true", help="also trace a selection from a small file")
    args = parser.parse_args()
    measured = [measure(root.resolve(), args.trace) for root in args.checkouts]
    print(f"| |{'|'.join(f' {root.resolve().name} ' for root in args.checkouts)}|\n|---|{'---:|' * len(measured)}")
    for name in measured[0][0]:
        print(f"| {name} | {' | '.join(numbers[name] for numbers, _ in measured)} |")
    for root, (_, ways) in zip(args.checkouts, measured, strict=True):
        for way, files in ways.items():
            print(f"\n{root.resolve().name}, {way}: {', '.join(files)}")


if __name__ == "__main__":
    main()
