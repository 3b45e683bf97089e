"""The house: names that mean one thing, modules that keep to themselves, and a guide that runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

import icstn

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "icstn").rglob("*.py"))


def modules() -> list[ModuleType]:
    names = [m.name for m in pkgutil.walk_packages(icstn.__path__, "icstn.") if "__main__" not in m.name]
    return [importlib.import_module(name) for name in names]


def test_no_two_public_classes_of_one_name() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                places[name].add(module.__name__)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_and_function_of_one_name() -> None:
    """``from icstn.experiments import status`` is a module or a function, and not either by turns."""
    clashes = [
        f"{module.__name__}.{name}"
        for module in modules()
        if hasattr(module, "__path__")
        for name in (m.name for m in pkgutil.iter_modules(module.__path__))
        if not inspect.ismodule(getattr(module, name, importlib.import_module(f"{module.__name__}.{name}")))
    ]
    within = [
        f"{module.__name__}.{module.__name__.rsplit('.', 1)[-1]}"
        for module in modules()
        if inspect.isfunction(vars(module).get(module.__name__.rsplit(".", 1)[-1]))
    ]
    assert clashes + within == []


PUBLIC = ("_replace", "_asdict", "_fields", "_exit")  # of named tuples, and os._exit: documented names


def reached(path: Path) -> list[str]:
    """Private names of another module or library: attributes that no class of this file has, and imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)} | set(PUBLIC)
    own |= {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in ("self", "cls")
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            inherited = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if node.attr not in own and not inherited:
                found.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("icstn"):
            inside = (node.module or "").split(".") == ["icstn", path.parent.name]
            names = [alias.name for alias in node.names if alias.name.startswith("_")]
            found += [
                f"{path.name}:{node.lineno} imports {n}" for n in names if not (inside or n.endswith("__"))
            ]
    return found


def test_no_private_attribute_of_another_is_reached_for() -> None:
    assert [line for path in SOURCES for line in reached(path)] == []


@pytest.mark.parametrize(
    "text", ["pool._processes", "from icstn.x import _y", "self.task._wrong(1)", "t = torch._C"]
)
def test_and_would_be_noticed(text: str, tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(text)
    assert len(reached(probe)) == 1


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_experiments_are_told_apart_in_one_file(path: Path) -> None:
    """No ``spec.experiment == "table_1"``: what differs is a value of the experiment."""
    names = {"table_1", "table_2", "table_3", "baselines", "two_images", "two_images_classical"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            compared = {s.value for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, str)}
            assert not compared & names, f"line {node.lineno}: {ast.unparse(node)}"
