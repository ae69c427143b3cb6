"""The architecture: layers, public names, and commands that stay light."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmnist

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fmnist.__file__).parent
HEAVY = {"keras", "tensorflow", "jax", "matplotlib", "sklearn", "scipy", "onnx", "fastapi", "uvicorn", "requests"}
PUBLIC_NAMES = [
    "Classifier",
    "Config",
    "FmnistError",
    "LiveCurves",
    "Run",
    "__version__",
    "errors_as_text",
    "evaluate",
    "load",
    "load_model",
    "open_run",
    "resume",
    "train",
]


def test_imports_follow_the_layers():
    """The contracts are in pyproject.toml."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_module_is_over_300_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_packages_import_nothing_by_themselves():
    assert [path for path in PACKAGE.glob("*/__init__.py") if path.read_text()] == []


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
        "from fmnist.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert "fmnist" in imported
    assert imported & HEAVY == set()


def test_predict_takes_less_than_250_mb(small_run, tmp_path):
    """Resident memory of the whole process."""
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


def test_onnx_runtime_sends_no_telemetry(tmp_path):
    """With telemetry on, it leaves an identifier in the temporary folder as soon as it is imported."""
    unset = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    script = "import fmnist.inference.classifier, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []


def test_public_names():
    assert fmnist.__all__ == PUBLIC_NAMES
    assert dir(fmnist) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(fmnist, name).__doc__
        assert getattr(fmnist, name) == getattr(fmnist, name)
    with pytest.raises(AttributeError, match="nonsense"):
        fmnist.nonsense  # noqa: B018
