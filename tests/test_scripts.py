"""The scripts that rebuild generated files, on small inputs, and the comparison of weights."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import fmnist
from fmnist.runs.run import INT8_FILE, open_run

SCRIPTS = Path(__file__).parents[1] / "scripts"

WEIGHTS = {
    "conv/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "head/bias": np.zeros(4, np.float32),
    "head/kernel": np.full((3, 4), np.nan, np.float32),
}


def compare(first, second):
    command = [sys.executable, SCRIPTS / "compare_weights.py", first, second]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def without(name):
    return {other: array for other, array in WEIGHTS.items() if other != name}


@pytest.mark.parametrize(
    ("second", "code", "message"),
    [
        (WEIGHTS, 0, "3 arrays: identical"),
        ({name.replace("head", "dense"): array for name, array in WEIGHTS.items()}, 0, "3 arrays: identical"),
        ({**WEIGHTS, "head/bias": np.array([0, 0, 0, -0.0], np.float32)}, 1, "head/bias has other values"),
        ({**without("head/bias"), "bias": np.ones(4, np.float32)}, 1, "head/bias (second: bias) has other values"),
        ({**WEIGHTS, "head/bias": np.zeros(4, np.float16)}, 1, "head/bias has dtype F32 in the first file and F16 in"),
        ({**WEIGHTS, "head/bias": np.zeros(5, np.float32)}, 1, "head/bias has shape [4] in the first file and [5] in"),
        (without("head/bias"), 1, "head/bias of shape [4] has no counterpart in the second file"),
        ({**WEIGHTS, "more": np.zeros(2, np.float32)}, 1, "more of shape [2] has no counterpart in the first file"),
    ],
    ids=["same", "renamed", "sign of zero", "renamed and changed", "dtype", "shape", "missing", "added"],
)
def test_compare_weights_of_files(second, code, message, tmp_path):
    save_file(WEIGHTS, tmp_path / "first.safetensors")
    save_file(second, tmp_path / "second.safetensors")
    found_code, output = compare(tmp_path / "first.safetensors", tmp_path / "second.safetensors")
    assert message in output
    assert found_code == code


def test_compare_weights_of_runs(small_run, tmp_path):
    shutil.copyfile(small_run.weights_path, tmp_path / "weights.safetensors")
    code, output = compare(small_run.folder, tmp_path)
    assert (code, output) == (0, "19 arrays: identical\n")


def test_compare_weights_reports_a_missing_file(small_run, tmp_path):
    code, output = compare(small_run.folder, tmp_path / "none")
    assert code == 2
    assert "expected a safetensors file, or a run folder with weights.safetensors" in output


@pytest.mark.slow
def test_pretrained_model_is_built(small, small_folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import build_pretrained

    config = fmnist.Config.from_preset("photo", epochs=1, data=str(small_folder))
    manifest = build_pretrained.build(config, small, "abc", tmp_path / "pretrained")
    run = open_run(tmp_path / "pretrained")
    assert {path.name for path in run.folder.iterdir()} == {*build_pretrained.KEPT_FILES, "manifest.json"}
    assert run.manifest() == manifest
    assert (manifest.provenance.commit, manifest.provenance.preset) == ("abc", "photo")
    # The rule is fitted on the int8 graph: 6 % of its own validation images are rejected.
    classifier = fmnist.Classifier(run.read_graph(INT8_FILE), manifest.class_names)
    outputs = classifier.outputs(run.split(small).val_images)
    rule = build_pretrained.RejectionRule.from_record(manifest.rejection_rule)
    confidence = rule.confidence(outputs)
    assert rule.threshold == pytest.approx(np.quantile(confidence, 0.06), rel=1e-3)


def test_figures_are_drawn(copied_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import draw_figures

    fmnist.evaluate(copied_run, seed=0)
    (tmp_path / "docs").mkdir()
    draw_figures.draw_figures(copied_run, tmp_path / "docs")
    draw_figures.draw_samples(tmp_path / "docs")
    drawn = {path.name for path in (tmp_path / "docs").iterdir()}
    assert drawn == {"curves.png", "samples.png", "photo.png", "bottle.jpg", "samples"}


def write_wheel(folder, name, tags, *files):
    """Write a wheel with modules that say which wheel they are of."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-{tags}.whl", "w") as wheel:
        for file in files:
            wheel.writestr(file, f"VALUE = {tags!r}")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", "")


def test_gpu_bundle_unpacks_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    import gpu_bundle

    monkeypatch.setattr(gpu_bundle, "BUNDLE", tmp_path)
    assert gpu_bundle.unpack() == [gpu_bundle.REPOSITORY / "src"]
    this, other = (f"cp3{sys.version_info.minor + more}" for more in (0, 1))
    packages = tmp_path / "packages"
    write_wheel(packages, "missing_pure", "py3-none-any", "missing_pure/__init__.py")
    write_wheel(packages, "missing_module", "py2.py3-none-any", "missing_module.py", "missing_module-1.0.data/x")
    write_wheel(packages, "missing_binary", f"{this}-{this}-linux_x86_64", "missing_binary.py")
    write_wheel(packages, "missing_binary", f"{other}-{other}-linux_x86_64", "missing_binary.py")
    write_wheel(packages, "missing_abi3", "cp39-abi3-linux_x86_64", "missing_abi3.py")
    write_wheel(packages, "newer_abi3", f"{other}-abi3-linux_x86_64", "newer_abi3.py")
    write_wheel(packages, "numpy", "py3-none-any", "numpy/__init__.py")
    assert gpu_bundle.unpack() == [gpu_bundle.REPOSITORY / "src", tmp_path / "site"]
    found = {path.stem if path.suffix else path.name for path in (tmp_path / "site").iterdir()}
    modules = {name for name in found if not name.endswith("dist-info") and "-" not in name}
    assert modules == {"missing_pure", "missing_module", "missing_binary", "missing_abi3"}
    assert this in (tmp_path / "site" / "missing_binary.py").read_text()
