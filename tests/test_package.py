"""The wheel that people install, in an environment with the base dependencies and nothing else."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *map(str, options)], check=True)
    (path,) = folder.glob("fmnist-*.whl")
    return path


def base_distributions():
    """The installed distributions that the base needs, directly or indirectly."""
    found, names = {}, ["fmnist"]
    while names:
        for text in metadata.requires(names.pop()) or []:
            requirement = Requirement(text)
            is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if is_needed and requirement.name not in found:
                found[requirement.name] = metadata.distribution(requirement.name)
                names.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory):
    """The folder of the programs of a clean environment: the wheel, and links to the base dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    options = ["--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", *map(str, options)], check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for distribution in base_distributions().values():
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(distribution.locate_file(name))
    return folder / "bin"


def run(program, *arguments, cwd):
    command = [str(word) for word in (program, *arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_contains_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    pages = {f"fmnist/evaluation/{name}" for name in ("report.html", "compare.html", "style.css")}
    assert pages | {"fmnist/demo/page.html", "fmnist/py.typed"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fmnist"}
    generated = [name for name in names if name.endswith((".pyc", ".png", ".onnx", ".gz"))]
    assert generated == ["fmnist/pretrained/color.onnx", "fmnist/pretrained/model-int8.onnx"]
    assert {"fmnist/pretrained/NOTICE.txt", "fmnist/pretrained/LICENSE-Apache-2.0.txt"} <= set(names)
    assert not any("photos.npz" in name for name in names)


def test_the_base_is_light():
    assert {"numpy", "onnxruntime", "pillow", "opencv-python-headless", "typer", "rich", "msgspec"} <= set(
        base_distributions()
    )
    heavy = {"keras", "tensorflow", "tensorflow-cpu", "jax", "scipy", "scikit-learn", "matplotlib", "onnx", "requests"}
    assert heavy & set(base_distributions()) == set()


def test_the_base_classifies_a_photo(base, tmp_path):
    picture = Image.new("RGB", (300, 400), (230, 220, 210))
    picture.paste((30, 30, 80), (100, 50, 200, 350))
    picture.save(tmp_path / "photo.jpg")
    done = run(base / "fmnist", "predict", "photo.jpg", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)
    assert item["model"] == "the pretrained model"
    script = "import fmnist; print(fmnist.Classifier.load().classify('photo.jpg').label, fmnist.__file__)"
    in_python = run(base / "python", "-c", script, cwd=tmp_path)
    assert in_python.stdout.startswith(item["label"]), in_python.stderr
    assert str(base.parent) in in_python.stdout


def test_the_base_says_what_is_missing_for_training(base, tmp_path):
    doctor = run(base / "fmnist", "doctor", cwd=tmp_path)
    assert doctor.returncode == 1
    assert "can predict but not train" in doctor.stdout, doctor.stdout + doctor.stderr
    for arguments in (("train",), ("explore",), ("evaluate", "run"), ("demo",)):
        done = run(base / "fmnist", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert "pip install 'fmnist[" in done.stderr or "no run folder" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    in_python = run(base / "python", "-c", "import fmnist; fmnist.train", cwd=tmp_path)
    assert "ImportError: fmnist.train needs the package keras; `pip install" in in_python.stderr
