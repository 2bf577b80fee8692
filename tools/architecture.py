"""
The shape of the code in numbers: python tools/architecture.py [CHECKOUT] [--trace]

Prints modules, lines, the median and the largest module, import arrows and circles of a checkout (by default this one). With
`--trace` it also selects from a small file, on the command line and with `ds.filter(scar_filter(k=.1))`, and counts the modules
whose functions run between reading a text and writing it. Imports inside functions count, those for type checkers do not.
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
    """Every module by its dotted name, mapped folders included."""
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
    """The modules of the package that one imports, inside functions too."""
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
    """The groups of modules that import each other in a loop."""
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
    """The modules that hold a row's text on one way, and those of which any function runs."""
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", default=Path(__file__).parent.parent, type=Path)
    parser.add_argument("--trace", action="store_true", help="also run a selection both ways, and count the modules entered")
    args = parser.parse_args()
    root = args.checkout.resolve()
    known = modules(root)
    arrows = {name: imports(name, file, known) for name, file in known.items()}
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in known.items()}
    largest = max(lines, key=lambda name: lines[name])
    print(f"modules {len(known)}, under 60 lines {sum(count < 60 for count in lines.values())}")
    print(f"lines {sum(lines.values())}, median {statistics.median(lines.values()):g}, largest {lines[largest]} ({largest})")
    print(f"import arrows {sum(map(len, arrows.values()))}, circles {circles(arrows)}")
    for way in ("select", "filter") if args.trace else ():
        files = entered(root, way)
        print(f"modules entered by {way}: {len(files)}\n  {' '.join(files)}")


if __name__ == "__main__":
    main()
