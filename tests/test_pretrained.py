"""The model that comes with the package: small, as good as its manifest says, and enough on its own."""

import numpy as np
import pytest

import fmnist
from fmnist.config import PRESETS, Config
from fmnist.data import dataset as data
from fmnist.errors import FmnistError
from fmnist.runs import run as runs

MAX_BYTES = 150_000


@pytest.fixture(scope="module")
def box():
    return runs.packaged()


def test_it_is_small():
    assert sum(path.stat().st_size for path in runs.PACKAGED_FOLDER.iterdir()) < MAX_BYTES + 50_000
    assert (runs.PACKAGED_FOLDER / runs.INT8_FILE).stat().st_size <= MAX_BYTES


def test_it_says_where_it_comes_from(box, fashion):
    made_by = box.manifest()["made_by"]
    assert made_by["commit"] != "unknown"
    assert not made_by["commit"].endswith("-dirty")
    assert (made_by["preset"], made_by["seed"]) == (box.config.preset, box.config.seed)
    assert made_by["data_sha256"] == fashion.sha256
    assert box.config == Config.from_json({**PRESETS[box.config.preset].to_json(), "seed": box.config.seed})


def test_it_is_as_good_as_it_says(box, fashion):
    """On the validation images of its own split, which it was not trained on."""
    parts = data.split(fashion, box.config.seed)
    answers = fmnist.Classifier.load().predict(parts.val_images)
    accuracy = (answers.argmax(axis=1) == parts.val_labels).mean()
    assert accuracy == pytest.approx(box.manifest()["int8"]["accuracy"], abs=0.002)
    assert accuracy > 0.925


def test_it_has_no_network_to_go_on_with(box):
    with pytest.raises(FmnistError, match="is a graph alone; `make pretrained` trains its network"):
        fmnist.load_model(box)


def test_it_answers_where_there_is_no_run(cli, tmp_path, monkeypatch, fashion):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    parts = data.split(fashion, 0)
    (boot,) = np.flatnonzero(parts.val_labels == 9)[:1]
    Image.fromarray(parts.val_images[boot]).save("boot.png")
    code, out, err = cli("predict", "boot.png")
    assert code == 0
    assert "comes with fmnist" in err
    assert "Ankle boot" in out


def test_it_can_be_named_where_there_are_runs(cli, tmp_path, monkeypatch, small_run):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(small_run.folder)
    Image.new("L", (28, 28)).save("black.png")
    for arguments, named in (([], "runs/mine"), (["--model", "packaged"], "comes with fmnist")):
        code, _, err = cli("predict", "black.png", *arguments)
        assert code == 0
        assert named in err


def test_a_run_that_was_named_is_not_replaced_by_it(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("predict", "boot.png", "--model", "none")
    assert code == 1
    assert "no run folder none" in err
