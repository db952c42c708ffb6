"""What the design forbids, checked: who imports whom, what a diagnosis costs to import, how large a module may be."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import lossdoctor

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lossdoctor"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
MAX_LINES = 320
SAYS_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
HEAVY = ("torch", "scipy", "matplotlib", "tensorboard", "sklearn")
RUNS_CODE = {"eval", "exec", "__import__"}
UNSAFE_MODULES = {"dill", "joblib", "marshal", "pickle", "shelve"}
# `eval` of a tree that passed the whitelist is how an expression of a rule is evaluated.
MAY_EVALUATE = {"lossdoctor/expressions.py"}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imported_by(code: str) -> set[str]:
    """The top-level modules that are loaded once `code` ran in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environment = os.environ | {"NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.splitlines()[-1].split())


def test_the_import_contracts_are_kept(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda _: None)  # it switches all our loggers off
    assert lint_imports(no_cache=True, no_logo=True) == 0, capsys.readouterr().out


def test_importing_lossdoctor_imports_nothing_heavy():
    assert not _imported_by("import lossdoctor").intersection(HEAVY)


def test_a_command_line_without_a_verb_imports_nothing_heavy():
    assert not _imported_by("import lossdoctor.cli").intersection(HEAVY)


@pytest.mark.parametrize("output", ["text", "json", "html"])
def test_analyze_imports_neither_torch_nor_scipy_nor_matplotlib(output):
    run = min((ROOT / "sample_runs").glob("*/run.json")).parent
    loaded = _imported_by(
        "import lossdoctor.cli\n"
        f"code = lossdoctor.cli.main(['analyze', {str(run)!r}, '--format', {output!r}, '--fail-on', 'never'])\n"
        "assert code == 0, code"
    )
    assert "pyarrow" in loaded, "nothing was read"
    assert not loaded.intersection(HEAVY)


def test_the_public_api_is_sorted_and_complete():
    names = lossdoctor.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    assert {"Monitor", "analyze", "__version__"} <= set(names)
    assert all(getattr(lossdoctor, name) is not None for name in names)
    assert set(names) <= set(dir(lossdoctor))
    ours = {
        name for name, value in vars(lossdoctor).items() if getattr(value, "__module__", "").startswith("lossdoctor")
    }
    assert {name for name in ours if not name.startswith("_")} <= set(names)


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lossdoctor.__version__ == project["version"]


def test_an_unknown_name_of_lossdoctor_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Moniter"):
        _ = lossdoctor.Moniter


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_module_says_what_it_is_and_what_it_offers(path):
    assert ast.get_docstring(_tree(path)), "no docstring"
    if path.stem == "__main__":
        return
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    assert hasattr(module, "__all__"), "no __all__"
    assert not [name for name in module.__all__ if not hasattr(module, name)]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_module_is_longer_than_a_sitting(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, "split it by what it does"


def test_no_module_has_a_name_that_says_nothing():
    python = [path for folder in ("lossdoctor", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in python if path.stem in SAYS_NOTHING]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_nothing_read_from_a_log_or_a_rule_can_run_code(path):
    name = str(path.relative_to(ROOT))
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            assert not UNSAFE_MODULES & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").partition(".")[0] not in UNSAFE_MODULES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in RUNS_CODE or name in MAY_EVALUATE, f"line {node.lineno}: {node.func.id}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load"), f"line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_only_the_command_line_prints_and_only_the_demo_shows_the_log(path):
    name = str(path.relative_to(PACKAGE))
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert called not in {"basicConfig", "StreamHandler"}, f"line {node.lineno}"
            assert called != "addHandler" or name == "demo.py", f"line {node.lineno}"
            if isinstance(node.func, ast.Name) and not name.startswith("cli/"):
                assert called != "print", f"line {node.lineno}"
