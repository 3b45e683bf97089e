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


def reached(path: Path) -> list[str]:
    """Private attributes of anything but ``self``, ``cls``, ``super()`` or the module's own classes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)} | {"self", "cls", "other"}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.endswith("__"):
            continue
        if node.attr in ("_replace", "_asdict", "_fields"):  # the public face of a named tuple
            continue
        if not (isinstance(node.value, ast.Name) and node.value.id in own):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("icstn"):
            found += [
                f"{path.relative_to(ROOT)}:{node.lineno} imports {alias.name}"
                for alias in node.names
                if alias.name.startswith("_") and not alias.name.endswith("__")
            ]
    return found


def test_no_private_attribute_of_another_is_reached_for(tmp_path: Path) -> None:
    assert [line for path in SOURCES for line in reached(path)] == []


@pytest.mark.parametrize("text", ["pool._processes", "from icstn.x import _y", "self.task._wrong(1)"])
def test_and_would_be_noticed(text: str) -> None:
    path = ROOT / "tests" / "test_house.py"
    assert reached(path) == []
    probe = path.with_name("probe.py")
    try:
        probe.write_text(text)
        assert len(reached(probe)) == 1
    finally:
        probe.unlink()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_experiments_are_told_apart_in_one_file(path: Path) -> None:
    """No ``spec.experiment == "table_1"``: what differs is a value of the experiment."""
    names = {"table_1", "table_2", "table_3", "baselines"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            compared = {s.value for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, str)}
            assert not compared & names, f"line {node.lineno}: {ast.unparse(node)}"
