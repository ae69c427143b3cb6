"""The images of each epoch: which ones, in what order, and how they are augmented."""

import math
from typing import Any

import keras
import numpy as np

from fmnist.config import Config
from fmnist.data.dataset import Split, normalize
from fmnist.data.photos import PhotoSet
from fmnist.export.graph import LOG_EPSILON
from fmnist.models.user_functions import Augment, apply_augment
from fmnist.training import augment
from fmnist.training.photo_augment import augment_as_photos
from fmnist.training.photo_batches import classes_with_photos, draw_photos, one_hot_photos

ops = keras.ops

VALIDATION_BATCH_SIZE = 500
"""Divides 5,000."""
NUM_PREFETCHED = 2
"""Batches that are prepared during a step, on TensorFlow."""


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Convert class indices to one-hot rows, by `keras.utils.to_categorical`.

    Args:
        labels: (n,) integers from 0 to `num_classes` - 1.
        num_classes: the width of a row.

    Returns:
        (n, num_classes) float32.
    """
    return keras.utils.to_categorical(labels, num_classes).astype(np.float32)


class Batches(keras.utils.PyDataset):
    """Images and their one-hot labels, in batches. Both can be replaced between epochs."""

    def __init__(
        self, images: np.ndarray, one_hot_labels: np.ndarray, batch_size: int, class_weights: np.ndarray | None = None
    ):
        """Prepare for an epoch.

        Args:
            images: (n, 28, 28) uint8.
            one_hot_labels: (n, classes) float32. The weight of a mixed label is the mixture of its classes' weights.
            batch_size: images in a batch; the last has the rest.
            class_weights: (classes,) float32, or None for no weights.
        """
        super().__init__()
        self.images, self.labels, self.batch_size = images, one_hot_labels, batch_size
        self.class_weights = class_weights

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        batch = slice(index * self.batch_size, (index + 1) * self.batch_size)
        images, labels = normalize(self.images[batch]), self.labels[batch]
        return (images, labels) if self.class_weights is None else (images, labels, labels @ self.class_weights)


def prefetch(batches: Batches) -> Any:
    """Return what `fit` takes instead of the batches: on TensorFlow, a `tf.data.Dataset` that reads some batches ahead.

    Keras would make one with autotuning, and many epochs would pause at their end for as long as they took. With
    workers of a `PyDataset`, each epoch ends with a pause of 0.1 s (docs/log.md). On JAX, Keras asks for a batch before
    the first epoch is prepared, so nothing may be read ahead.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in batches[0])
    dataset = tf.data.Dataset.from_generator(
        lambda: (batches[index] for index in range(len(batches))), output_signature=signature
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    counted = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return counted.prefetch(NUM_PREFETCHED).with_options(options)


def validation_batches(split: Split, num_classes: int) -> Batches:
    """Return the validation images in batches."""
    return Batches(split.val_images, one_hot(split.val_labels, num_classes), VALIDATION_BATCH_SIZE)


def balanced_class_weights(one_hot_labels: np.ndarray) -> np.ndarray:
    """Return a weight for each class: n / (classes * images of the class), as scikit-learn's `balanced`.

    Args:
        one_hot_labels: (n, classes).

    Returns:
        (classes,) float32. The mean weight of the images is 1. A column without images, "none of the classes", has the
        weight 1.
    """
    counts = one_hot_labels.sum(axis=0)
    weights = len(one_hot_labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts, weights, 1).astype(np.float32)


class EpochSampler(keras.callbacks.Callback):
    """Select and augment the images of each epoch, and reseed dropout.

    All of it follows from seed and epoch, and the selection also from earlier losses. So an epoch can be repeated.
    Training on hard examples costs less than scoring all images first. A skipped image is selected again once its
    stored loss is among the highest.
    """

    def __init__(
        self,
        images: np.ndarray,
        one_hot_labels: np.ndarray,
        class_names: tuple[str, ...],
        config: Config,
        photos: PhotoSet | None = None,
        custom_augment: Augment | None = None,
    ):
        """Prepare for a run.

        Args:
            images: (n, 28, 28) uint8, the training images.
            one_hot_labels: (n, `config.num_outputs`) float32.
            class_names: name of each class.
            config: of the run.
            photos: to train on too, if `config.photo_fraction` is above 0.
            custom_augment: the user's own, in place of flips, shifts, CutMix and `photo_augmentation`.
        """
        super().__init__()
        self.images, self.labels, self.class_names, self.config = images, one_hot_labels, class_names, config
        self.custom_augment = custom_augment
        self.is_planned = not (photos or custom_augment or config.photo_augmentation)
        self.plan: augment.Plan | None = None
        """Of the epoch, if the whole of its augmentation is a plan."""
        self.applies_plans = True
        """Whether `batches` gets the images of the epoch. A compiled epoch applies the plan by itself."""
        num_selected = math.ceil(config.hard_example_fraction * len(images))
        self.losses = np.full(len(images), np.inf, np.float32)
        self.selected = np.arange(num_selected)
        self.photos = photos.training_part() if photos else None
        self.has_photos = classes_with_photos(self.photos) if self.photos else None
        self.num_photos = round(num_selected * config.photo_fraction / (1 - config.photo_fraction)) if photos else 0
        self.order = np.arange(num_selected + self.num_photos)
        self.loss_recorder = LossRecorder(len(self.order))
        weights = balanced_class_weights(one_hot_labels) if config.class_weights else None
        first = np.resize(np.arange(num_selected), len(self.order))
        assert config.batch_size != "auto"  # `Config.resolve` has decided
        self.batches = Batches(images[first], one_hot_labels[first], config.batch_size, weights)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Select, augment and reseed."""
        config = self.config
        self.selected = augment.select_hard_examples(self.losses, len(self.selected), config.seed, epoch)
        labels = self.labels[self.selected]
        self.plan = self._draw_plan(epoch, config.cutmix) if self.is_planned else None
        if self.plan:
            labels = augment.mix_labels(labels, self.plan.cutmix) if self.plan.cutmix else labels
            if self.applies_plans:
                self.batches.images = augment.apply_plan(self.images, self.plan, config.shift)
        else:
            self.batches.images, labels = self._augment(epoch, labels)
        self.batches.labels = labels
        reseed_dropout(self.model, config.seed, epoch)

    def _draw_plan(self, epoch: int, cutmix: float = 0.0) -> augment.Plan:
        config = self.config
        return augment.draw_plan(
            len(self.images), self.selected, config.seed, epoch, bool(config.flip), config.shift, cutmix
        )

    def _augment(self, epoch: int, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels of an epoch whose augmentation is more than a plan."""
        config = self.config
        if self.custom_augment:
            rng = augment.rng("custom", config.seed, epoch)
            images, labels = apply_augment(self.custom_augment, self.images[self.selected], labels, rng)
        else:
            images = augment.apply_plan(self.images, self._draw_plan(epoch), config.shift)
            if config.photo_augmentation:
                images, labels = augment_as_photos(
                    images, labels, self.class_names, config.seed, epoch, bool(config.flip), self.has_photos
                )
            if config.cutmix:
                cutmix = augment.draw_cutmix(len(images), config.cutmix, config.seed, epoch)
                images, labels = augment.mix_images(images, cutmix), augment.mix_labels(labels, cutmix)
        if self.photos:
            photos, indices = draw_photos(self.photos, self.num_photos, config.seed, epoch, bool(config.flip))
            images = np.concatenate([images, photos])
            labels = np.concatenate([labels, one_hot_photos(self.photos.accepted[indices])])
            self.order = augment.rng("photos", config.seed, epoch, 1).permutation(len(images))
            images, labels = images[self.order], labels[self.order]
        return images, labels

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Store the losses before validation overwrites them."""
        self._store_losses()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Store the losses if there is no validation."""
        if self.config.full:
            self._store_losses()

    def _store_losses(self) -> None:
        recorded = self.loss_recorder.recorded()
        # An epoch that a callback has stopped did not reach all of its images.
        order = self.order[: len(recorded)]
        is_selected = order < len(self.selected)
        self.losses[self.selected[order[is_selected]]] = recorded[is_selected]


@keras.saving.register_keras_serializable("fmnist")
class LossRecorder(keras.metrics.CategoricalCrossentropy):
    """The mean cross-entropy as a metric, which also stores how hard each image was, in the order of training.

    The difficulty of an image is its cross-entropy minus the entropy of its label, which no prediction can avoid.
    Otherwise every mixture of two images would count as hard.
    """

    def __init__(self, num_images: int):
        """Create the variables.

        Args:
            num_images: number of losses to store. Further losses overwrite the first.
        """
        super().__init__(name="cross_entropy", dtype="float32")
        self.num_images = num_images
        self.losses = self.add_variable((num_images,), "zeros", name="losses")
        self.position = self.add_variable((), "zeros", dtype="int32", name="position")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Record a batch. Arguments as in Keras."""
        super().update_state(y_true, y_pred, sample_weight)
        y_true = ops.cast(y_true, "float32")
        # exactly 0 for the label of a single class
        entropies = -ops.sum(y_true * ops.log(y_true + LOG_EPSILON), axis=-1)
        losses = keras.losses.categorical_crossentropy(y_true, ops.cast(y_pred, "float32")) - entropies
        batch_size = ops.shape(losses)[0]
        positions = (ops.arange(batch_size, dtype="int32") + self.position) % self.num_images
        self.losses.assign(ops.scatter_update(self.losses, ops.expand_dims(positions, -1), losses))
        self.position.assign(self.position + batch_size)

    def reset_state(self) -> None:
        """Restart at the first position."""
        super().reset_state()
        self.position.assign(0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"num_images": self.num_images}

    def recorded(self) -> np.ndarray:
        """Return the losses since the last reset, at most `num_images`, float32."""
        return keras.ops.convert_to_numpy(self.losses)[: int(self.position)]


def reseed_dropout(network: keras.Model, seed: int, epoch: int) -> None:
    """Set the state of each random generator of a network, as that of a dropout layer, from seed and epoch."""
    done: set[int] = set()
    for index, layer in enumerate([*network.layers, network]):  # the network itself can have generators too
        states = [each for each in layer.variables if each.name == "seed_generator_state" and id(each) not in done]
        for number, state in enumerate(states):
            state.assign(augment.dropout_seed(seed, epoch, index, number))
            done.add(id(state))
