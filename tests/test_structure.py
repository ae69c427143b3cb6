"""The house keeps its floors, its public names and its light commands."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmnist

PACKAGE = Path(fmnist.__file__).parent

FLOORS = [
    {"errors", "config", "atomic", "locks", "environment", "idx", "sources", "data", "metrics", "acceptance"}
    | {"untrusted", "forms", "graph"},
    {"augment", "photolike", "runs", "photo", "layers", "optimizers"},
    {"plots", "model", "checkpoints"},
    {"classifier"},
    {"export", "quantise", "report", "protocol", "gate"},
    {"training", "evaluation", "explore", "live", "server", "doctor"},
    {"terminal", "cli", "__main__"},
]
WITHIN_A_FLOOR = {
    # ground floor: what they stand on, in this order
    "config": {"errors"}, "idx": {"errors"}, "sources": {"errors", "idx", "atomic"},
    "data": {"errors", "idx", "sources"}, "locks": {"errors"}, "untrusted": {"errors"}, "graph": {"errors"},
    "forms": {"errors", "config", "sources", "data"}, "photolike": {"augment"},
    # the top
    "cli": {"terminal"}, "__main__": {"cli"},
}  # fmt: skip
KERAS_MODULES = {"layers", "optimizers", "model", "training", "export", "live"}
HEAVY = {"keras", "tensorflow", "jax", "matplotlib", "sklearn", "onnx", "fastapi", "uvicorn"}


def imports_of(module: str, top_level_only: bool = False) -> set[str]:
    """Every module that a module of the package names, inside functions too."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "fmnist":
            found |= {f"fmnist.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def test_every_module_has_a_floor():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set.union(*FLOORS)


@pytest.mark.parametrize("module", sorted(set.union(*FLOORS)))
def test_imports_point_down(module):
    floor = next(number for number, modules in enumerate(FLOORS) if module in modules)
    below = set().union(*FLOORS[:floor])
    ours = {name.removeprefix("fmnist.") for name in imports_of(module) if name.startswith("fmnist.")}
    assert ours - below - WITHIN_A_FLOOR.get(module, set()) == set()


@pytest.mark.parametrize("module", sorted(set.union(*FLOORS)))
def test_keras_stays_in_its_rooms(module):
    names = {name.split(".")[0] for name in imports_of(module, top_level_only=True)}
    assert (names & {"keras", "tensorflow"} == set()) or module in KERAS_MODULES


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["predict", "picture.png", "--model", "run"]], ids=" ".join
)
def test_light_commands_import_nothing_heavy(arguments, small_run, tmp_path):
    from PIL import Image

    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    (tmp_path / "run").symlink_to(small_run.folder)
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('IMPORTED', *{name.split('.')[0] for name in sys.modules}))\n"
        f"sys.argv = ['fmnist', *{arguments}]\n"
        "from fmnist.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert "fmnist" in imported
    assert imported & HEAVY == set()


def test_predict_stays_small(small_run, tmp_path):
    """Under 250 MB resident, as a whole process."""
    from PIL import Image

    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'fmnist', *sys.argv[1:]], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, "predict", tmp_path / "picture.png", "--model", small_run.folder]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    assert 20_000 < int(done.stdout) < 250_000  # in kB


def test_nothing_is_reported_to_anyone(tmp_path):
    """ONNX Runtime, which would report, leaves an identifier in the temporary folder as soon as it is imported."""
    unset = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", "import fmnist.classifier, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"]
    done = subprocess.run(
        command, env={**environment, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []


def test_public_names():
    names = [
        "Classifier",
        "Config",
        "FmnistError",
        "LiveCurves",
        "errors_as_text",
        "evaluate",
        "load",
        "load_model",
        "resume",
        "train",
    ]
    assert fmnist.__all__ == names
    assert dir(fmnist) == names
    for name in names:
        assert getattr(fmnist, name).__doc__
        assert getattr(fmnist, name) is getattr(fmnist, name)
    with pytest.raises(AttributeError, match="nonsense"):
        fmnist.nonsense  # noqa: B018
