"""The wheel that people install."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        ROOT,
    ]
    subprocess.run([str(word) for word in command], check=True)
    (path,) = folder.glob("fmnist-*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"fmnist/evaluation/report.html", "fmnist/demo/page.html"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fmnist"}
    generated = [name for name in names if name.endswith((".pyc", ".png", ".onnx", ".gz"))]
    assert generated == ["fmnist/pretrained/model-int8.onnx"]


def test_the_wheel_installs_in_a_clean_environment_and_runs(wheel, tmp_path):
    """Over the packages that are installed already, since a test may not fetch any."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run([str(word) for word in install], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(f"{Path(pytest.__file__).parent.parent}\n")
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "fmnist", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout
    where = subprocess.run(
        [python, "-c", "import fmnist; print(fmnist.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
