"""The architecture: layers, public names, and commands that stay light."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmnist

ROOT = Path(__file__).parents[1]

HEAVY = {"keras", "tensorflow", "jax", "matplotlib", "sklearn", "onnx", "fastapi", "uvicorn"}


def test_imports_follow_the_layers():
    """The contracts are in pyproject.toml."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


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
    command = [
        sys.executable,
        "-c",
        "import fmnist.inference.classifier, os; print(os.environ['ORT_DISABLE_TELEMETRY'])",
    ]
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
