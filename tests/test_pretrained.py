"""The pretrained model: small, as accurate as its manifest says, and usable without a run."""

import numpy as np
import pytest
from PIL import Image

import fmnist
from fmnist.config import Config
from fmnist.data.dataset import split_dataset
from fmnist.data.photos import PHOTOS_FILE
from fmnist.errors import FmnistError
from fmnist.files import sha256
from fmnist.inference.color import CLASS_OF, ColorNetwork
from fmnist.runs.run import PRETRAINED_FOLDER, open_pretrained
from fmnist.runs.schemas import COLOR_FILE, INT8_FILE

MAX_BYTES = 150_000
MAX_COLOR_BYTES = 4_500_000


@pytest.fixture(scope="module")
def pretrained():
    return open_pretrained()


def test_pretrained_model_is_small():
    assert sum(path.stat().st_size for path in PRETRAINED_FOLDER.iterdir()) < 5_000_000
    assert (PRETRAINED_FOLDER / INT8_FILE).stat().st_size <= MAX_BYTES
    assert (PRETRAINED_FOLDER / COLOR_FILE).stat().st_size <= MAX_COLOR_BYTES


def test_photos_belong_to_the_repositorys_file(pretrained):
    record = ColorNetwork.load(PRETRAINED_FOLDER).record
    assert record.photos_sha256 == pretrained.environment().photos_sha256 == sha256(PHOTOS_FILE.read_bytes())
    assert not record.commit.endswith("-dirty")
    assert set(record.outputs) >= {*CLASS_OF, "shoes"}


def test_manifest_has_the_provenance(pretrained, fashion):
    provenance = pretrained.manifest().provenance
    assert provenance.commit != "unknown"
    assert not provenance.commit.endswith("-dirty")
    assert (provenance.preset, provenance.seed) == (pretrained.config.preset, pretrained.config.seed)
    assert provenance.data_sha256 == fashion.sha256
    config = pretrained.config
    assert config == Config.from_preset(config.preset, seed=config.seed).resolve(True)


def test_accuracy_is_that_of_the_manifest(pretrained, fashion):
    """On the validation images, which it was not trained on."""
    images = pretrained.split(fashion)
    probabilities = fmnist.Classifier.load().predict(images.val_images)
    accuracy = (probabilities.argmax(axis=1) == images.val_labels).mean()
    assert accuracy == pytest.approx(pretrained.manifest().int8.accuracy, abs=0.002)
    assert accuracy > 0.93


def test_loading_its_network_is_refused(pretrained):
    with pytest.raises(FmnistError, match="is a graph without weights; `make pretrained` trains its network"):
        fmnist.load_model(pretrained)


def test_predict_uses_it_without_runs(cli, tmp_path, monkeypatch, fashion):
    monkeypatch.chdir(tmp_path)
    images = split_dataset(fashion, 0)
    (boot,) = np.flatnonzero(images.val_labels == 9)[:1]
    Image.fromarray(images.val_images[boot]).save("boot.png")
    code, out, err = cli("predict", "boot.png")
    assert code == 0
    assert "the pretrained model" in err
    assert "Ankle boot" in out


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        ([], "the pretrained model"),
        (["--model", "pretrained"], "the pretrained model"),
        (["--model", "runs/mine"], "runs/mine"),
    ],
)
def test_predict_uses_it_unless_a_run_is_named(arguments, model, cli, tmp_path, monkeypatch, small_run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(small_run.folder)
    Image.new("L", (28, 28)).save("black.png")
    code, _, err = cli("predict", "black.png", *arguments)
    assert code == 0
    assert model in err


def test_predict_does_not_replace_a_missing_run_by_it(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("predict", "boot.png", "--model", "none")
    assert code == 1
    assert "no run folder none" in err
