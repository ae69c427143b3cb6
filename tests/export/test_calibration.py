"""Calibration of a run on all training images, by a run with the same settings that has a validation split."""

import json
import shutil

import pytest
from msgspec.structs import replace

import fmnist
from fmnist.export.calibration import find_calibration_run
from fmnist.export.onnx import export_run
from fmnist.runs.run import open_run


@pytest.fixture(scope="module")
def runs_folder(small, small_folder, tmp_path_factory):
    """A folder of two runs: `split` with validation, `full` without. Not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    config = fmnist.Config.from_preset("textbook", epochs=1, data=str(small_folder))
    fmnist.train(config, dataset=small, folder=folder / "split")
    fmnist.train(replace(config, full=True, seed=1), dataset=small, folder=folder / "full")
    return folder


@pytest.fixture
def runs(runs_folder, tmp_path):
    """Copies of both runs, which a test may change."""
    copied = shutil.copytree(runs_folder, tmp_path / "runs")
    return open_run(copied / "split"), open_run(copied / "full")


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_config(run, **changes):
    rewrite(run.folder / "config.json", config={**run.config.to_json(), **changes})


def test_full_run_takes_temperature_and_threshold_from_the_run_with_validation(runs_folder):
    split, full = (open_run(runs_folder / name).manifest() for name in ("split", "full"))
    assert full.calibrated_by == split.calibrated_by == "split"
    assert full.temperature == split.temperature
    for name in ("midpoint", "scale", "threshold"):
        assert getattr(full.rejection_rule, name) == getattr(split.rejection_rule, name)
    assert full.rejection_rule.class_means != split.rejection_rule.class_means
    assert full.validation is None


def test_full_run_without_such_a_run_is_not_calibrated(runs_folder, small, tmp_path, caplog):
    run = open_run(shutil.copytree(runs_folder / "full", tmp_path / "runs" / "full"))
    manifest = export_run(run, small)
    assert (manifest.calibrated_by, manifest.temperature, manifest.rejection_rule) == (None, 1.0, None)
    assert "probabilities are not calibrated" in caplog.text


def own(part):
    return {"part": part, "name": "own.py:function", "sha256": "0" * 64}


UNSUITABLE = {
    "environment is not JSON": lambda run: (run.folder / "environment.json").write_text("{"),
    "graph truncated": lambda run: run.onnx_path.write_bytes(run.onnx_path.read_bytes()[:1000]),
    "history damaged and graph missing": lambda run: (run.history_path.write_text("x"), run.onnx_path.unlink()),
    "not calibrated": lambda run: rewrite(run.manifest_path, rejection_rule=None),
    "exported before its last epoch": lambda run: rewrite(run.manifest_path, epochs_trained=0),
    "other settings": lambda run: rewrite_config(run, learning_rate=0.5),
    "another network of the user's own": lambda run: rewrite(run.folder / "config.json", custom=[own("network")]),
    "no validation": lambda run: rewrite_config(run, full=True),
    "other data": lambda run: rewrite(
        run.folder / "environment.json", data_sha256={"t10k-labels-idx1-ubyte": "0" * 64}
    ),
}


@pytest.mark.parametrize("case", UNSUITABLE)
def test_unsuitable_run_does_not_calibrate(runs, small, case):
    split, full = runs
    assert find_calibration_run(full, small.sha256) == split
    UNSUITABLE[case](split)
    assert find_calibration_run(full, small.sha256) is None


def test_newest_suitable_run_calibrates(runs, small):
    split, full = runs
    for year in (2098, 2099, 2097):
        folder = shutil.copytree(split.folder, split.folder.with_name(str(year)))
        rewrite(folder / "config.json", created=f"{year}-01-01T00:00:00+00:00")
    assert find_calibration_run(full, small.sha256).name == "2099"


def test_own_optimizer_may_differ(runs, small):
    """Its schedule counts the steps, and with all images there are more."""
    split, full = runs
    rewrite(split.folder / "config.json", custom=[own("optimizer")])
    assert find_calibration_run(full, small.sha256).folder == split.folder
