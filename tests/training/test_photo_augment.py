"""Images disturbed as photos would show them: pure, still images, and honest about what they are labelled."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fmnist
from fmnist.data.dataset import CLASS_NAMES
from fmnist.runs import run as runs
from fmnist.training import photo_augment as photolike

OTHER_NAMES = tuple(f"class {number}" for number in range(10))
SHOES = [5, 7, 9]
GARMENTS_THAT_ARE_CUT = [0, 1, 2, 3, 4, 6]


@pytest.fixture(scope="module")
def epoch(fashion):
    """Images and one-hot labels of an epoch. Not to be changed."""
    images, labels = fashion.train_images[:6_000].copy(), np.eye(10, dtype=np.float32)[fashion.train_labels[:6_000]]
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


@pytest.fixture(scope="module")
def disturbed(epoch):
    return photolike.disturb(*epoch, CLASS_NAMES, seed=1, epoch=0)


def boxes(images):
    """Height and width of what is not black, (n, 2)."""
    has_ink = images > 0
    return np.stack([has_ink.any(axis=2).sum(axis=1), has_ink.any(axis=1).sum(axis=1)], axis=1)


def is_changed(images, others):
    return (images != others).any(axis=(1, 2))


def test_the_same_seed_and_epoch_give_the_same_and_others_give_others(epoch, disturbed):
    again = photolike.disturb(*epoch, CLASS_NAMES, seed=1, epoch=0)
    assert all((once == twice).all() for once, twice in zip(disturbed, again, strict=True))
    for key in ({"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}):
        images, labels = photolike.disturb(*epoch, CLASS_NAMES, **key)
        assert is_changed(images, disturbed[0]).mean() > 0.5
        assert (labels != disturbed[1]).any()


def test_images_stay_images_on_black_ground(epoch, disturbed):
    images, labels = disturbed
    assert (images.shape, images.dtype) == (epoch[0].shape, np.uint8)
    assert (labels.shape, labels.dtype) == (epoch[1].shape, np.float32)
    assert images.any(axis=(1, 2)).all()
    # Of nearly every garment at least two corners are ground.
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (np.median(corners, axis=1) == 0).mean() > 0.95


def test_the_longer_edge_is_28_as_in_the_data_set(epoch, disturbed):
    images, _ = disturbed
    longer = boxes(images[is_changed(images, epoch[0])]).max(axis=1)
    assert (longer >= photolike.SIZE - 1).mean() > 0.98
    # A thin tip may become faint, and is ground then.
    assert longer.min() >= photolike.SIZE - 4


def test_the_shares_are_those_of_the_settings(epoch, disturbed):
    (images, labels), (originals, true_labels) = disturbed, epoch
    is_fragment = labels.max(axis=1) < 1
    can_be_cut = np.isin(true_labels.argmax(axis=1), GARMENTS_THAT_ARE_CUT)
    assert not is_fragment[~can_be_cut].any()
    assert is_fragment[can_be_cut].mean() == pytest.approx(photolike.FRAGMENT_SHARE, abs=0.025)
    changed = is_changed(images, originals)
    assert changed[is_fragment].all()
    assert changed[~is_fragment].mean() == pytest.approx(photolike.DISTURBED_SHARE, abs=0.025)


def test_only_the_labels_of_fragments_change_and_say_none_of_these(epoch, disturbed):
    _, labels = disturbed
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    is_fragment = labels.max(axis=1) < 1
    np.testing.assert_allclose(labels[is_fragment], 0.1, rtol=1e-6)
    assert (labels[~is_fragment] == epoch[1][~is_fragment]).all()


def test_shoes_come_in_pairs_and_point_anywhere(epoch, disturbed):
    (images, _), (originals, labels) = disturbed, epoch
    chosen = np.isin(labels.argmax(axis=1), SHOES) & is_changed(images, originals)
    height, width = boxes(images[chosen]).T
    before_height, before_width = boxes(originals[chosen]).T
    assert (before_height > before_width).mean() < 0.05
    assert (height > width).mean() > 0.3


def test_a_data_set_with_other_classes_has_no_pairs_and_no_fragments(epoch):
    originals, labels = epoch
    images, new_labels = photolike.disturb(originals, labels, OTHER_NAMES, seed=1, epoch=0)
    assert (new_labels == labels).all()
    chosen = np.isin(labels.argmax(axis=1), SHOES) & is_changed(images, originals)
    assert chosen.sum() > 800
    height, width = boxes(images[chosen]).T
    assert (height > width).mean() < 0.1


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(0, 2**784 - 1),
    num_images=st.integers(0, 3),
    num_classes=st.integers(1, 10),
    seed=st.integers(0, 2**31 - 1),
)
def test_whatever_an_image_holds_it_stays_an_image(bits, num_images, num_classes, seed):
    """Empty ones, single pixels, noise: nothing divides by zero, and black stays black."""
    ink = np.unpackbits(np.frombuffer(bits.to_bytes(98, "big"), np.uint8)).reshape(28, 28)
    images = np.stack([ink * 255, np.zeros_like(ink), np.eye(28, dtype=np.uint8)])[:num_images].astype(np.uint8)
    labels = np.eye(num_classes, dtype=np.float32)[np.zeros(num_images, int)]
    found, new_labels = photolike.disturb(images, labels, CLASS_NAMES[:num_classes], seed, 0)
    assert (found.shape, found.dtype) == (images.shape, np.uint8)
    np.testing.assert_allclose(new_labels.sum(axis=1), 1, rtol=1e-6)
    assert not found[1:2].any()


def test_a_turn_and_a_stretch_do_what_they_say():
    bar = np.zeros((1, 28, 28), np.float32)
    bar[:, 4:24, 9:19] = 200
    upright, lying, square = (
        boxes(photolike._reshaped(bar, **shape) > 100)[0]
        for shape in ({}, {"angle": np.array([np.pi / 2])}, {"log_aspect": np.log([2.0])})
    )
    np.testing.assert_allclose(upright, (28, 14), atol=1)
    np.testing.assert_allclose(lying, (14, 28), atol=1)
    np.testing.assert_allclose(square, (28, 28), atol=1)


def test_the_preset_photo_trains_resumes_to_the_same_end_and_exports(small, small_folder, tmp_path):
    config = fmnist.Config.from_preset("photo", epochs=2, batch_size=64, data=str(small_folder))
    whole = fmnist.train(config, dataset=small, folder=tmp_path / "whole")

    class CutOff(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [CutOff()], dataset=small, folder=tmp_path / "cut")
    resumed = fmnist.resume(tmp_path / "cut", dataset=small)
    assert resumed.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert [{**row, "seconds": 0} for row in resumed.history()] == [{**row, "seconds": 0} for row in whole.history()]
    assert runs.open_run(whole.folder).config.photolike
    assert fmnist.Classifier.load(whole).predict(small.test_images).shape == (200, 10)


def test_without_photolike_no_image_is_disturbed(small, monkeypatch):
    from fmnist.models import networks as model
    from fmnist.training import train as training

    labels = np.eye(10, dtype=np.float32)[small.train_labels]
    found = {}
    for photolike_ in (False, True):
        config = fmnist.Config.from_preset("photo", flip=False, shift=0, photolike=photolike_)
        preparing = training.PrepareEpoch(small.train_images, labels, small.class_names, config)
        preparing.set_model(model.textbook(10))
        preparing.on_epoch_begin(0)
        order = preparing.visited
        found[photolike_] = (
            is_changed(preparing.batches.images, small.train_images[order]).mean(),
            (preparing.batches.labels != labels[order]).any(axis=1).mean(),
        )
    assert found[False] == (0, 0)
    assert found[True][0] == pytest.approx(0.65, abs=0.06)
    assert found[True][1] == pytest.approx(0.12, abs=0.04)
    assert (preparing.images == small.train_images).all()
