"""Photo augmentation: reproducible, with valid images and correct labels as the result."""

import random

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fmnist
from fmnist.config import IMAGE_SIZE
from fmnist.data.dataset import CLASS_NAMES
from fmnist.data.photos import PhotoSet
from fmnist.models import networks
from fmnist.runs.run import open_run
from fmnist.training.epochs import EpochSampler, one_hot
from fmnist.training.photo_augment import (
    AUGMENT_PROBABILITY,
    FRAGMENT_PROBABILITY,
    NEGATIVE_PROBABILITY,
    NOISE_PROBABILITY,
    augment_as_photos,
)
from fmnist.training.photo_batches import classes_with_photos

OTHER_CLASS_NAMES = tuple(f"class {number}" for number in range(10))
SHOES = [5, 7, 9]
CAN_BE_CUT = [0, 1, 2, 3, 4, 6]


@pytest.fixture(scope="module")
def originals(fashion):
    """Images and one-hot labels, read-only."""
    images, labels = fashion.train_images[:6_000].copy(), one_hot(fashion.train_labels[:6_000], 10)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


@pytest.fixture(scope="module")
def augmented(originals):
    return augment_as_photos(*originals, CLASS_NAMES, seed=1, epoch=0)


def heights_and_widths(images):
    is_foreground = images > 0
    return is_foreground.any(axis=2).sum(axis=1), is_foreground.any(axis=1).sum(axis=1)


def is_changed(images, others):
    return (images != others).any(axis=(1, 2))


def test_result_depends_on_seed_and_epoch_only(originals, augmented):
    repeated = augment_as_photos(*originals, CLASS_NAMES, seed=1, epoch=0)
    assert all((first == second).all() for first, second in zip(augmented, repeated, strict=True))
    for key in ({"seed": 2, "epoch": 0}, {"seed": 1, "epoch": 1}):
        images, labels = augment_as_photos(*originals, CLASS_NAMES, **key)
        assert is_changed(images, augmented[0]).mean() > 0.5
        assert (labels != augmented[1]).any()


def test_images_have_a_black_background(originals, augmented):
    images, labels = augmented
    assert (images.shape, images.dtype) == (originals[0].shape, np.uint8)
    assert (labels.shape, labels.dtype) == (originals[1].shape, np.float32)
    assert images.any(axis=(1, 2)).all()
    # At least two corners of nearly every image are background.
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (np.median(corners, axis=1) == 0).mean() > 0.95


def test_longer_edge_is_28_pixels_as_in_the_data_set(originals, augmented):
    images, _ = augmented
    longer = np.maximum(*heights_and_widths(images[is_changed(images, originals[0])]))
    assert (longer >= IMAGE_SIZE - 1).mean() > 0.98
    # A thin tip may become faint and count as background.
    assert longer.min() >= IMAGE_SIZE - 4


def test_fractions_are_those_of_the_constants(originals, augmented):
    (images, labels), (original_images, original_labels) = augmented, originals
    is_fragment = labels.max(axis=1) < 1
    can_be_cut = np.isin(original_labels.argmax(axis=1), CAN_BE_CUT)
    assert not is_fragment[~can_be_cut].any()
    assert is_fragment[can_be_cut].mean() == pytest.approx(FRAGMENT_PROBABILITY, abs=0.025)
    changed = is_changed(images, original_images)
    assert changed[is_fragment].all()
    assert changed[~is_fragment].mean() == pytest.approx(AUGMENT_PROBABILITY, abs=0.025)


def test_labels_of_fragments_are_uniform_and_the_others_unchanged(originals, augmented):
    _, labels = augmented
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    is_fragment = labels.max(axis=1) < 1
    np.testing.assert_allclose(labels[is_fragment], 0.1, rtol=1e-6)
    assert (labels[~is_fragment] == originals[1][~is_fragment]).all()


def test_shoes_are_paired_and_rotated(originals, augmented):
    (images, _), (original_images, labels) = augmented, originals
    selected = np.isin(labels.argmax(axis=1), SHOES) & is_changed(images, original_images)
    original_heights, original_widths = heights_and_widths(original_images[selected])
    heights, widths = heights_and_widths(images[selected])
    assert (original_heights > original_widths).mean() < 0.05
    assert (heights > widths).mean() > 0.3


def test_other_class_names_have_neither_pairs_nor_fragments(originals):
    original_images, labels = originals
    images, new_labels = augment_as_photos(original_images, labels, OTHER_CLASS_NAMES, seed=1, epoch=0)
    assert (new_labels == labels).all()
    selected = np.isin(labels.argmax(axis=1), SHOES) & is_changed(images, original_images)
    assert selected.sum() > 800
    heights, widths = heights_and_widths(images[selected])
    assert (heights > widths).mean() < 0.1


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(0, 2**784 - 1),
    num_images=st.integers(0, 3),
    num_classes=st.integers(1, 10),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_image_gives_a_valid_image(bits, num_images, num_classes, seed):
    """Noise, an empty image and a diagonal line: no division by zero, and an empty image stays empty."""
    noise = np.unpackbits(np.frombuffer(bits.to_bytes(98, "big"), np.uint8)).reshape(28, 28)
    images = np.stack([noise * 255, np.zeros_like(noise), np.eye(28, dtype=np.uint8)])[:num_images].astype(np.uint8)
    labels = np.eye(num_classes, dtype=np.float32)[np.zeros(num_images, int)]
    augmented_images, new_labels = augment_as_photos(images, labels, CLASS_NAMES[:num_classes], seed, 0)
    assert (augmented_images.shape, augmented_images.dtype) == (images.shape, np.uint8)
    np.testing.assert_allclose(new_labels.sum(axis=1), 1, rtol=1e-6)
    assert not augmented_images[1:2].any()


def test_photo_augmentation_can_be_turned_off(small):
    labels = one_hot(small.train_labels, 10)

    def changed_fractions(photo_augmentation):
        config = fmnist.Config.from_preset(
            "photo", batch_size=64, flip=False, shift=0, cutmix=0.0, photo_augmentation=photo_augmentation
        )
        sampler = EpochSampler(small.train_images, labels, small.class_names, config)
        sampler.set_model(networks.textbook(10, random.Random(0)))
        sampler.on_epoch_begin(0)
        assert (sampler.images == small.train_images).all()
        return (
            is_changed(sampler.batches.images, small.train_images[sampler.selected]).mean(),
            (sampler.batches.labels != labels[sampler.selected]).any(axis=1).mean(),
        )

    assert changed_fractions(False) == (0, 0)
    images, changed_labels = changed_fractions(True)
    assert images == pytest.approx(0.65, abs=0.06)
    assert changed_labels == pytest.approx(0.12, abs=0.04)


@pytest.mark.slow
def test_interrupted_run_of_preset_photo_resumes_to_the_same_weights(small, small_folder, tmp_path):
    config = fmnist.Config.from_preset("photo", epochs=2, batch_size=64, data=str(small_folder))
    whole = fmnist.train(config, dataset=small, folder=tmp_path / "whole")

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [Interrupt()], dataset=small, folder=tmp_path / "interrupted")
    resumed = fmnist.resume(tmp_path / "interrupted", dataset=small)
    assert resumed.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert [{**row, "seconds": 0} for row in resumed.history()] == [{**row, "seconds": 0} for row in whole.history()]
    assert open_run(whole.folder).config.photo_augmentation
    assert fmnist.Classifier.load(whole).predict(small.test_images).shape == (200, 10)


def test_shoes_are_not_flipped_if_flipping_is_off(originals, augmented):
    """Nothing else changes, because the random numbers are the same."""
    images, labels = augment_as_photos(*originals, CLASS_NAMES, seed=1, epoch=0, flip=False)
    assert (labels == augmented[1]).all()
    is_shoe = np.isin(originals[1].argmax(axis=1), SHOES)
    assert not is_changed(images, augmented[0])[~is_shoe].any()
    assert 0.05 < is_changed(images, augmented[0])[is_shoe].mean() < 0.3


def test_negatives_and_fragments_are_none_of_the_classes_where_there_is_a_column(small):
    images = small.train_images
    labels = np.eye(11, dtype=np.float32)[small.train_labels]
    augmented, new_labels = augment_as_photos(images, labels, CLASS_NAMES, seed=1, epoch=0)
    is_none = new_labels[:, 10] == 1
    np.testing.assert_array_equal(new_labels.sum(axis=1), 1)
    is_negative = augmented[:, :2].mean(axis=(1, 2)) > 200
    assert (is_none[is_negative]).all()
    assert 0.005 < is_negative.mean() < 0.04
    assert is_none.mean() > is_negative.mean()  # fragments
    assert set(np.unique(new_labels)) == {0, 1}


def test_classes_that_have_photos_of_their_own_are_not_imitated(originals):
    images, labels = originals
    has_photos = np.isin(np.arange(10), [0, 1, 2, 3, 4, 6])
    found, new_labels = augment_as_photos(images, labels, CLASS_NAMES, seed=1, epoch=0, has_photos=has_photos)
    changed = is_changed(found, images)
    is_covered = has_photos[labels.argmax(axis=1)]
    assert not changed[is_covered].any()
    assert changed[~is_covered].mean() == pytest.approx(AUGMENT_PROBABILITY, abs=0.1)
    assert (new_labels == labels).all()


def test_a_column_for_none_gets_negatives_and_noise(originals):
    images, labels = originals
    images, labels = np.tile(images, (10, 1, 1)), np.tile(labels, (10, 1))
    with_none = np.column_stack([labels, np.zeros(len(labels), np.float32)])
    found, new_labels = augment_as_photos(images, with_none, CLASS_NAMES, seed=1, epoch=0, has_photos=np.ones(10, bool))
    is_none = new_labels[:, -1] == 1
    is_negative = (found == 255 - images).all(axis=(1, 2))
    assert is_negative.mean() == pytest.approx(NEGATIVE_PROBABILITY, abs=0.01)
    assert (is_none & ~is_negative).mean() == pytest.approx(NOISE_PROBABILITY, abs=0.003)
    assert is_none[is_negative].all()
    assert new_labels.sum(axis=1) == pytest.approx(1)
    noise = found[is_none & ~is_negative].astype(float)
    assert (noise.std(axis=(1, 2)) > 0).mean() > 0.9
    assert np.corrcoef(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())[0, 1] < 0.9


def test_classes_with_photos_are_those_of_a_single_class():
    accepted = np.zeros((3, 10), bool)
    accepted[0, 3] = accepted[1, [5, 7, 9]] = True
    photos = PhotoSet(np.zeros((3, 28, 28), np.uint8), accepted, np.array(["a"] * 3), np.zeros(3, bool), "0" * 64)
    assert np.flatnonzero(classes_with_photos(photos)).tolist() == [3]
