"""A user's own network, optimizer, loss and augmentation: how they are checked, and what is recorded of them.

Nothing here is loaded from a run folder: only what the user names is imported or called.
"""

import inspect
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from msgspec.structs import replace

from fmnist.config import IMAGE_SIZE, Config
from fmnist.errors import FmnistError, one_line, type_of
from fmnist.files import sha256
from fmnist.imports import import_function
from fmnist.runs.schemas import CustomPart, CustomPartName

NetworkFunction = Callable[[int], keras.Model]
"""From the number of outputs to a network."""
Augment = Callable[[np.ndarray, np.ndarray, np.random.Generator], Any]
"""From images (n, 28, 28) uint8, labels (n, outputs) float32 and a generator to other images, or images and labels."""

log = logging.getLogger("fmnist")

SUM_TOLERANCE = 0.02
"""By how much the sum of the probabilities of an image may differ from 1, also in bfloat16."""
SPARSE_LOSSES = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")


@dataclass(frozen=True)
class CustomParts:
    """What a training takes from the user in place of a preset's."""

    network: NetworkFunction | None = None
    optimizer: keras.optimizers.Optimizer | None = None
    loss: Any = None
    augment: Augment | None = None
    reference: str | None = None
    """How the user named the network: `module:function` or `file.py:function`. None for a function in memory."""
    record: tuple[CustomPart, ...] = ()
    """For `config.json`."""

    @classmethod
    def check(
        cls,
        network: NetworkFunction | str | None = None,
        optimizer: keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        augment: Augment | None = None,
    ) -> "CustomParts":
        """Check what a user passes, and describe it.

        Args:
            network: a function from the number of outputs to a network; or its name, `module:function` or
                `file.py:function`, which is imported.
            optimizer: a Keras optimizer. A copy of it is used, so it stays as it is.
            loss: a loss of Keras, its name, or a function of labels and predictions. The labels are one-hot.
            augment: a function of images (n, 28, 28) uint8, labels (n, outputs) float32 and a NumPy generator, that
                returns images of the same shape, or images and labels.

        Raises:
            FmnistError: naming the part that cannot be used.
        """
        reference, source = None, None
        if isinstance(network, str):
            reference = network
            network, source = import_function(network)
        if isinstance(network, keras.Model):
            raise FmnistError(
                "network is a Keras model; expected a function from the number of classes to a new model, because "
                "training, resuming and export each build it: def network(num_classes): return keras.Sequential([...])"
            )
        for part, value in (("network", network), ("augment", augment)):
            if value is not None and not callable(value):
                raise FmnistError(f"{part} is {type_of(value)}; expected a function")
        if optimizer is not None and not isinstance(optimizer, keras.optimizers.Optimizer):
            hint = ": call it, as keras.optimizers.SGD(0.1)" if isinstance(optimizer, type) else ""
            raise FmnistError(f"optimizer is {type_of(optimizer)}; expected a Keras optimizer{hint}")
        loss = _check_loss(loss) if loss is not None else None
        given: dict[CustomPartName, Any] = {
            "network": network,
            "optimizer": optimizer,
            "loss": loss,
            "augment": augment,
        }
        record = {part: _describe(part, value) for part, value in given.items() if value is not None}
        if reference:
            record["network"] = CustomPart(part="network", name=reference, sha256=source)
        return cls(network, optimizer, loss, augment, reference, tuple(record.values()))

    def applied_to(self, config: Config) -> Config:
        """Return a configuration whose network and optimizer are these, if there are any.

        An own network is trained in float32 unless the configuration says bfloat16: not every network bears it.

        Raises:
            FmnistError: if the configuration asks for an own network or optimizer, and there is none.
        """
        for name in ("network", "optimizer"):
            if getattr(config, name) == "custom" and getattr(self, name) is None:
                raise FmnistError(f"{name} is 'custom' in the configuration; pass your own as {name}=...")
        if self.network:
            precision = "float32" if config.precision == "auto" else config.precision
            config = replace(config, network="custom", precision=precision)
        if self.optimizer:
            rate = float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))
            has_schedule = isinstance(self.optimizer.get_config()["learning_rate"], dict)
            schedule = "custom" if has_schedule else "constant"
            config = replace(config, optimizer="custom", learning_rate=rate, schedule=schedule)
        return config

    def compare(self, recorded: tuple[CustomPart, ...], folder: Path, needed: Sequence[str] = ("network",)) -> None:
        """Compare these parts with those that a run was started with, and log what has changed since.

        Args:
            recorded: of the run.
            folder: of the run, for messages.
            needed: which parts are compared; the others are not needed.

        Raises:
            FmnistError: if a needed part is missing, or the run was started without it.
        """
        before = {each.part: each for each in recorded if each.part in needed}
        now = {each.part: each for each in self.record if each.part in needed}
        for part in (name for name in needed if name not in now and name in before):
            option = " (on the command line --network module:function or file.py:function)" if part == "network" else ""
            raise FmnistError(
                f"the {part} of {folder} is a user's own ({before[part].name}), and its code is not in the run folder; "
                f"pass it again, as {part}=...{option}"
            )
        for part, given in now.items():
            if part not in before:
                raise FmnistError(f"{folder} was started without {part}=; omit it, or train into a new folder")
            if given != before[part]:
                log.warning(
                    "the %s of %s has changed: %s then, %s now, with another source or configuration",
                    part, folder, before[part].name, given.name,
                )  # fmt: skip

    def new_optimizer(self) -> keras.optimizers.Optimizer:
        """Return a copy of the optimizer without state.

        Raises:
            FmnistError: if it cannot be made again from its configuration.
        """
        assert self.optimizer
        try:
            return type(self.optimizer).from_config(self.optimizer.get_config())
        except Exception as error:
            raise FmnistError(
                f"{type(self.optimizer).__name__} cannot be made again from its get_config() ({one_line(error)}), "
                "which training and resuming do; let get_config() return all arguments of its constructor"
            ) from error


def _check_loss(loss: Any) -> Any:
    """Return a loss as Keras takes it."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if name in SPARSE_LOSSES:
        raise FmnistError(f"the loss {name} needs class indices, but labels are one-hot; use CategoricalCrossentropy")
    try:
        return keras.losses.get(loss)
    except ValueError as error:
        raise FmnistError(
            f"loss is {loss if isinstance(loss, str) else type_of(loss)}; expected a Keras loss, its name, or a "
            "function of one-hot labels and probabilities"
        ) from error


def _describe(part: CustomPartName, value: Any) -> CustomPart:
    """Describe a part by its name and a hash of its configuration or source."""
    is_function = inspect.isfunction(value)
    described = value if is_function else type(value)
    name = f"{described.__module__}:{described.__qualname__}"
    if described.__module__.startswith("keras."):
        name = f"keras:{described.__name__}"
    content = None
    with suppress(OSError, TypeError, NotImplementedError, ValueError):  # no source, no configuration
        if hasattr(value, "get_config"):
            serialized = keras.saving.serialize_keras_object(value)
            serialized["config"].pop("name", None)  # Keras numbers optimizers on and on
            content = json.dumps(serialized, sort_keys=True, default=str)
        else:
            content = inspect.getsource(described)
    return CustomPart(part=part, name=name[:1_000], sha256=sha256(content.encode()) if content else None)


def build_custom(function: NetworkFunction | None, num_outputs: int, seed: int) -> keras.Model:
    """Build a user's network, and check that it maps images to probabilities.

    Python's and NumPy's global generators, from which Keras draws the seeds of initial weights, are set to the seed and
    afterwards restored. Other threads that draw from them meanwhile change the weights.

    Args:
        function: of the user.
        num_outputs: number of probabilities.
        seed: of the run.

    Raises:
        FmnistError: if there is no function, or what it returns is no such network.
    """
    if function is None:
        raise FmnistError(
            "the network of this run is a user's own, and its code is not in the run folder; name it: --network "
            "module:function or file.py:function, and in Python network=function"
        )
    with _seeded(seed):
        network = function(num_outputs)
        if not isinstance(network, keras.Model):
            raise FmnistError(f"network({num_outputs}) returned {type_of(network)}; expected a keras.Model")
        images = np.random.default_rng(0).random((2, IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
        try:
            found = network(images, training=False)
        except Exception as error:
            raise FmnistError(
                f"the network cannot be called with images of shape (n, 28, 28, 1): {one_line(error)}; let it begin "
                "with keras.Input((28, 28, 1))"
            ) from error
    shape = tuple(getattr(found, "shape", ()))
    if shape != (2, num_outputs):
        what = f"shape {shape}" if shape else type_of(found)
        raise FmnistError(f"the network returns {what} for two images; expected (2, {num_outputs}), probabilities")
    probabilities = keras.ops.convert_to_numpy(keras.ops.cast(found, "float32"))
    if not (np.abs(probabilities.sum(axis=1) - 1) < SUM_TOLERANCE).all() or probabilities.min() < 0:
        raise FmnistError(
            f"the outputs of the network for an image sum to {probabilities[0].sum():.3g} and the smallest is "
            f"{probabilities.min():.3g}; expected probabilities: let it end with "
            f'keras.layers.Dense({num_outputs}, activation="softmax")'
        )
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def apply_augment(
    function: Augment, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Call a user's augmentation with copies, and check what it returns.

    Args:
        function: of the user.
        images: (n, 28, 28) uint8.
        labels: (n, outputs) float32.
        rng: follows from seed and epoch.

    Returns:
        Images and labels of the same shapes and dtypes.

    Raises:
        FmnistError: if the function returns anything else.
    """
    returned = function(images.copy(), labels.copy(), rng)
    new_images, new_labels = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, labels)
    for name, new, old in (("images", new_images, images), ("labels", new_labels, labels)):
        if not isinstance(new, np.ndarray) or new.shape != old.shape:
            found = f"of shape {new.shape}" if isinstance(new, np.ndarray) else f"of {type_of(new)}"
            raise FmnistError(f"augment returned {name} {found}; expected an array of shape {old.shape}")
    if new_images.dtype != np.uint8:
        raise FmnistError(
            f"augment returned images of dtype {new_images.dtype}; expected uint8 from 0 to 255, as it got them: "
            "np.clip(np.rint(images), 0, 255).astype(np.uint8)"
        )
    return new_images, new_labels.astype(np.float32)
