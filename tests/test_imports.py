"""Imports go one way, along the layers of imports.toml, including imports inside functions."""

import ast
import configparser
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, mapped folders included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = dict(line.split(" = ") for line in config["options"]["package_dir"].strip().splitlines())
    found = {}
    for package, folder in folders.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = [package, *file.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imported(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The modules that one imports; not those under `if TYPE_CHECKING:`, which no run imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
              for n in ast.walk(node)}  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in typing:
            continue
        package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        base = package[: len(package) - node.level + 1] if node.level else []
        target = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            found |= {next((c for c in (f"{target}.{alias.name}", target) if c in known), name)}
    return found - {name}


def package(name: str) -> str:
    return name.partition(".")[2].split(".")[0] or "__init__"


def arrows(known: dict[str, Path]) -> set[tuple[str, str]]:
    return {(name, other) for name, file in known.items() for other in imported(name, file, known)}


def test_imports_go_one_way():
    layers = tomllib.loads((ROOT / "imports.toml").read_text(encoding="utf-8"))["layers"]
    layer = {name: level for level, names in enumerate(layers) for name in names}
    known = modules()
    assert {package(name) for name in known} == set(layer)
    pairs = {(name, other) for name, other in arrows(known) if package(name) != package(other)}
    upwards = {f"{name} -> {other}" for name, other in pairs if layer[package(other)] >= layer[package(name)]}
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    graph = {name: imported(name, file, known) for name, file in known.items()}
    assert list(TopologicalSorter(graph).static_order())  # a circle raises CycleError, which names it


def test_an_import_inside_a_function_is_seen(tmp_path):
    file = tmp_path / "lower.py"
    file.write_text("def f():\n    from .ranking import ScarRanking\n")
    assert imported("scar_hf.lower", file, {"scar_hf.ranking": file}) == {"scar_hf.ranking"}
