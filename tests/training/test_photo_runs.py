"""A run that is trained on photos too: its epochs, its graph, and how it is resumed."""

import json
import shutil

import numpy as np
import pytest

import fmnist
from fmnist.data.photos import PhotoSet
from fmnist.errors import FmnistError
from fmnist.models.networks import build_network
from fmnist.runs.run import open_run
from fmnist.training.epochs import EpochSampler, one_hot


def write_photos(path, seed=0):
    rng = np.random.default_rng(seed)
    accepted = np.zeros((60, 10), bool)
    accepted[:30, 3] = True
    accepted[30:40, [5, 7, 9]] = True
    np.savez_compressed(
        path,
        images=rng.integers(0, 256, (60, 28, 28), np.uint8),
        accepted=accepted,
        category=np.repeat(["dress", "shoes", "hat"], [30, 10, 20]),
        is_held_out=np.arange(60) % 5 == 0,
    )
    return path


@pytest.fixture(scope="module")
def photos_path(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "photos.npz")


@pytest.fixture(scope="module")
def config(photos_path, small_folder):
    return fmnist.Config.from_preset(
        "photo",
        epochs=2,
        batch_size=64,
        hard_example_fraction=1.0,
        cutmix=0.0,
        photos=str(photos_path),
        data=str(small_folder),
        precision="float32",
    )


@pytest.fixture(scope="module")
def finished(config, small, tmp_path_factory):
    return fmnist.train(config, dataset=small, folder=tmp_path_factory.mktemp("runs") / "run")


def test_an_epoch_mixes_photos_with_images_of_the_data_set(small, config):
    gray = np.full((8, 28, 28), 77, np.uint8)
    photos = PhotoSet(gray, np.zeros((8, 10), bool), np.array(["hat"] * 8), np.zeros(8, bool), "0" * 64)
    labels = one_hot(small.train_labels, 11)
    sampler = EpochSampler(small.train_images, labels, small.class_names, config, photos)
    sampler.set_model(build_network(config, 11, "float32"))
    sampler.on_epoch_begin(0)
    assert len(sampler.batches.images) == 1_600  # 1,200 images and a third as many photos
    is_photo = np.isin(np.arange(1_600), np.flatnonzero(sampler.order >= 1_200))
    assert (sampler.batches.labels[is_photo, 10] == 1).all()
    first_batches = [is_photo[start : start + 64].mean() for start in range(0, 1_600, 64)]
    assert 0.1 < min(first_batches) <= max(first_batches) < 0.45


def test_losses_belong_to_the_images_also_among_photos(small, config):
    photos = PhotoSet(
        small.test_images[:8], np.zeros((8, 10), bool), np.array(["hat"] * 8), np.zeros(8, bool), "0" * 64
    )
    sampler = EpochSampler(small.train_images, one_hot(small.train_labels, 11), small.class_names, config, photos)
    sampler.set_model(build_network(config, 11, "float32"))
    sampler.on_epoch_begin(0)
    position = np.arange(len(sampler.order), dtype=np.float32)
    sampler.loss_recorder.losses.assign(position)
    sampler.loss_recorder.position.assign(len(position))
    sampler.on_test_begin()
    for place in (0, 700, 1_599):
        if sampler.order[place] < 1_200:
            assert sampler.losses[sampler.selected[sampler.order[place]]] == place
    assert np.isfinite(sampler.losses).all()


def test_graph_has_the_probability_of_none_of_the_classes(finished, small):
    outputs = fmnist.Classifier.load(finished).outputs(small.test_images[:20])
    assert outputs["none_probability"].shape == (20, 1)
    assert ((outputs["none_probability"] >= 0) & (outputs["none_probability"] <= 1)).all()
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert outputs["probabilities"].shape == (20, 10)


def test_environment_has_the_hash_of_the_photos(finished, photos_path):
    from fmnist.files import sha256

    assert finished.environment().photos_sha256 == sha256(photos_path.read_bytes())


class StopError(Exception):
    """End a training as a kill would, after an epoch."""


def interrupt(config, small, folder):
    import keras

    def stop(epoch, logs):
        raise StopError

    with pytest.raises(StopError):
        fmnist.train(
            config,
            [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: stop(epoch, logs) if epoch else None)],
            dataset=small,
            folder=folder,
        )


def test_an_interrupted_run_ends_like_an_uninterrupted_one(config, small, finished, tmp_path):
    interrupt(config, small, tmp_path / "run")
    resumed = fmnist.resume(tmp_path / "run", dataset=small)
    assert resumed.weights_path.read_bytes() == finished.weights_path.read_bytes()


def test_other_photos_do_not_resume_a_run(config, small, tmp_path):
    path = write_photos(tmp_path / "photos.npz")
    interrupt(fmnist.Config.from_preset("photo", epochs=2, photos=str(path), data=config.data), small, tmp_path / "run")
    write_photos(path, seed=1)
    with pytest.raises(FmnistError, match="the photos are not those that"):
        fmnist.resume(tmp_path / "run", dataset=small)


def test_missing_photos_stop_a_run_before_it_has_a_folder(config, small, tmp_path):
    from msgspec.structs import replace

    with pytest.raises(FmnistError, match="--photos"):
        fmnist.train(replace(config, photos=str(tmp_path / "none.npz")), dataset=small, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_has_no_photos_of_garments(small, small_folder, tmp_path):
    config = fmnist.Config.from_preset("photo", data=str(small_folder)).resolve(is_fashion_mnist=False)
    assert (config.photo_fraction, config.num_outputs(10)) == (0, 10)
    config = fmnist.Config.from_preset("photo").resolve(is_fashion_mnist=True)
    assert (config.photo_fraction, config.num_outputs(10)) == (0.25, 11)


def test_configuration_before_photos_is_read(finished, tmp_path):
    document = json.loads((finished.folder / "config.json").read_text())
    del document["config"]["photo_fraction"], document["config"]["photos"]
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert open_run(tmp_path).config.num_outputs(10) == 10


def test_other_formats_have_the_classes(finished, small, tmp_path):
    import keras

    from fmnist.export.keras_file import export_keras
    from fmnist.export.plain import export_plain
    from fmnist.export.quantize import quantize_run

    run = open_run(shutil.copytree(finished.folder, tmp_path / "run"))
    export_plain(run)
    plain = fmnist.Classifier.load(run.folder / "model-plain.onnx")
    assert plain.predict(small.test_images[:3]).shape == (3, 10)
    export_keras(run)
    assert keras.models.load_model(run.folder / "model.keras").output_shape == (None, 11)
    quantize_run(run, small)
    assert "none_probability" in fmnist.Classifier.load(run, int8=True).outputs(small.test_images[:3])


@pytest.mark.parametrize("path", [r"\\\\host\share\photos.npz", "//host/share/photos.npz"])
def test_photos_on_another_computer_are_not_asked_for(config, small, tmp_path, path):
    """A run of another person must not make Windows send the user's name to a host of theirs."""
    from msgspec.structs import replace

    from fmnist.runs.run import create_run

    run = create_run(replace(config, photos=path), tmp_path / "run")
    with pytest.raises(FmnistError, match="are on another computer"):
        fmnist.resume(run, dataset=small)


def test_photos_that_are_held_out_are_not_trained_on(small, config):
    images = np.zeros((8, 28, 28), np.uint8)
    images[:, 6:22, 6:22] = np.array([60, 200] * 4)[:, np.newaxis, np.newaxis]
    accepted = np.zeros((8, 10), bool)
    accepted[:4, 2] = True
    is_held_out = np.array([False, True] * 4)
    photos = PhotoSet(images, accepted, np.array(["dress", "hat"] * 4), is_held_out, "0" * 64)
    sampler = EpochSampler(small.train_images, one_hot(small.train_labels, 11), small.class_names, config, photos)
    sampler.set_model(build_network(config, 11, "float32"))
    sampler.on_epoch_begin(0)
    drawn = sampler.batches.images[sampler.order >= 1_200]
    assert len(drawn) == 400
    assert drawn.max() < 120  # the bright ones are held out
