"""Imports point strictly downwards, and third parties stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tailprune"

#: package -> (packages of ours it may import, third parties it may import)
ALLOWED = {
    "core": (set(), set()),
    "waves": ({"core"}, {"numpy"}),
    "steps": ({"core"}, {"numpy"}),
    "tables": ({"core"}, set()),
    "filling": ({"core", "steps", "tables"}, {"numpy"}),
    "planning": ({"core", "steps"}, {"numpy"}),
    "survey": ({"core", "waves", "steps"}, set()),
    "tracing": ({"core"}, {"torch"}),
    "timing": ({"core", "tables"}, {"torch", "onnxruntime", "pynvml"}),
    "pruning": (
        {"core", "steps", "tables", "planning", "filling", "tracing", "timing"},
        {"torch", "safetensors", "onnx", "onnxruntime", "numpy"},
    ),
    "reports": ({"core", "steps", "survey"}, {"rich", "matplotlib", "jinja2", "markupsafe", "numpy"}),
    "cli": (
        {
            "core",
            "waves",
            "steps",
            "tables",
            "filling",
            "planning",
            "survey",
            "tracing",
            "timing",
            "pruning",
            "reports",
        },
        {"typer", "rich", "click", "torch", "torchvision", "safetensors", "timm"},
    ),
}
#: third parties that only one file of a package may import
ONLY_IN = {
    "torch_pruning": {"tracing/dependency.py", "pruning/wrap.py"},
    "scipy": {"planning/milp.py", "steps/recurrence.py"},
    "sqlite3": None,
}


def imports_of(source: str, package: str) -> list[tuple[int, str]]:
    """(line, absolute module name) of every import, relative ones resolved against tailprune.<package>."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                found.append((node.lineno, node.module or ""))
            else:
                base = ["tailprune", package][: 3 - node.level]
                if node.module:
                    found.append((node.lineno, ".".join([*base, node.module])))
                else:
                    found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return found


def violations(source: str, package: str, path: str) -> list[str]:
    ours, third = ALLOWED[package]
    wrong = []
    for line, module in imports_of(source, package):
        top = module.split(".")[0]
        if top == "tailprune":
            parts = module.split(".")
            target = parts[1] if len(parts) > 1 else ""
            if target == package or module == "tailprune.__version__":
                continue
            if target not in ours:
                wrong.append(
                    f"{path}:{line} imports {module}; `{package}` may import only {', '.join(sorted(ours)) or 'nothing of ours'}."
                )
        elif top in ONLY_IN and ONLY_IN[top] is not None:
            if path not in ONLY_IN[top]:
                wrong.append(f"{path}:{line} imports {module}; only {', '.join(sorted(ONLY_IN[top]))} may.")
        elif top not in sys.stdlib_module_names and top not in third:
            wrong.append(
                f"{path}:{line} imports {module}; `{package}` may use only {', '.join(sorted(third)) or 'the standard library'}."
            )
    return wrong


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_downwards(package):
    wrong = []
    for file in sorted((PACKAGE / package).rglob("*.py")):
        wrong += violations(file.read_text(), package, file.relative_to(PACKAGE).as_posix())
    assert not wrong, "\n".join(wrong)


def test_every_package_has_a_row():
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert packages == set(ALLOWED), f"packages without a row, or rows without a package: {packages ^ set(ALLOWED)}"


@pytest.mark.parametrize(
    ("source", "package", "path"),
    [
        ("from ..planning import plan_widths", "waves", "waves/x.py"),
        ("import torch", "core", "core/x.py"),
        ("def f():\n    from ..timing.machine import x", "tracing", "tracing/x.py"),
        ("import torch_pruning as tp", "pruning", "pruning/apply.py"),
        ("from scipy.optimize import milp", "planning", "planning/snap.py"),
        ("from .. import cli", "reports", "reports/x.py"),
    ],
)
def test_the_gate_can_fail(source, package, path):
    assert violations(source, package, path)


def test_sqlite_lives_in_one_file():
    users = [
        f.relative_to(PACKAGE).as_posix()
        for f in PACKAGE.rglob("*.py")
        if any(m.split(".")[0] == "sqlite3" for _, m in imports_of(f.read_text(), f.parent.name))
    ]
    assert len(users) == 1, f"sqlite3 is imported by {users}; one file holds it."
    assert users[0].startswith("tables/")


def test_files_are_short():
    long = [
        f"{f.relative_to(ROOT)} has {n} lines"
        for f in [*PACKAGE.rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
        if (n := len(f.read_text().splitlines())) > 300
    ]
    assert not long, "; ".join(long)


def test_recipes_use_public_names_only():
    import tailprune

    wrong = []
    for file in (ROOT / "recipes").rglob("*.py"):
        for line, module in imports_of(file.read_text(), "recipes"):
            if module.startswith("tailprune.") and not file.name.startswith("_") and module != "tailprune.reports":
                wrong.append(f"{file.name}:{line} imports {module}")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tailprune":
                if node.attr not in (*tailprune.__all__, "reports", "__version__"):
                    wrong.append(f"{file.name}:{node.lineno} uses tailprune.{node.attr}, which is not public")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "statement",
    ["import tailprune", "import tailprune.planning, tailprune.filling, tailprune.survey", "import tailprune.cli.main"],
)
def test_the_decision_path_needs_no_torch(statement):
    code = f"{statement}; import sys; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
