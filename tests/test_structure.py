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
    "Dataset",
    "FmnistClassifier",
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
    "score",
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
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["predict", "picture.png", "--model", "run"],
        ["predict", "picture.png", "--model", "run", "--out", "answers"],
        ["runs", "."],
    ],
    ids=" ".join,
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


def run_script(script, **variables):
    unset = {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**environment, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["fmnist.inference.classifier", "fmnist.export.quantize"])
def test_onnx_runtime_sends_no_telemetry(tmp_path, module):
    """With telemetry on, it leaves an identifier in the temporary folder as soon as it is imported."""
    run_script(f"import {module}, fmnist; fmnist.Classifier.load()", TMPDIR=str(tmp_path), HOME=str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if "onnxruntime" in str(path)] == []


UNCHANGED = """
import io, logging, os, random, signal, sys, warnings
import keras, matplotlib, numpy as np, onnxruntime, tensorflow
from PIL import Image, ImageFile
def state():
    return {
        "environment": dict(os.environ), "warnings": list(warnings.filters), "random": random.getstate(),
        "numpy": str(np.random.get_state()), "policy": keras.config.dtype_policy().name,
        "format": keras.config.image_data_format(), "floatx": keras.config.floatx(),
        "log": (logging.root.level, list(logging.root.handlers), logging.getLogger("fmnist").handlers),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "matplotlib": (matplotlib.get_backend(), dict(matplotlib.rcParams)), "pillow": Image.MAX_IMAGE_PIXELS,
        "truncated": ImageFile.LOAD_TRUNCATED_IMAGES, "stdout": sys.stdout, "folder": os.getcwd(),
        "eager": tensorflow.executing_eagerly(),
    }
matplotlib.use("agg")
before = state()
import importlib, pkgutil, fmnist
for module in pkgutil.walk_packages(fmnist.__path__, "fmnist."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from fmnist.models.networks import build_network
build_network(fmnist.Config.from_preset("fast"), 10, "bfloat16")
picture = io.BytesIO()
Image.new("RGB", (40, 40), "red").save(picture, "PNG")
fmnist.Classifier.load().classify(picture.getvalue())
after = state()
print([name for name in before if before[name] != after[name]])
"""


def test_the_package_leaves_the_process_as_it_is():
    assert run_script(UNCHANGED) == "[]\n"


def test_public_names():
    assert fmnist.__all__ == PUBLIC_NAMES
    assert dir(fmnist) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(fmnist, name).__doc__
        assert getattr(fmnist, name) == getattr(fmnist, name)
    with pytest.raises(AttributeError, match="nonsense"):
        fmnist.nonsense  # noqa: B018
