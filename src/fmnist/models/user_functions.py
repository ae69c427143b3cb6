"""Call a user's own functions, and check what they return."""

import random
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.errors import FmnistError, type_of

NetworkFunction = Callable[[int], keras.Model]
"""From the number of outputs to a network."""
Augment = Callable[[np.ndarray, np.ndarray, np.random.Generator], Any]
"""From images (n, 28, 28) uint8, labels (n, outputs) float32 and a generator to other images, or images and labels."""

SUM_TOLERANCE = 0.02
"""By how much the sum of the probabilities of an image may differ from 1, also in bfloat16."""
MAX_CAUSE = 300
"""Characters of the cause of an error."""


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
        try:
            network = function(num_outputs)
        except Exception as error:
            raise _failure(f"network({num_outputs})", error) from error
        if not isinstance(network, keras.Model):
            raise FmnistError(f"network({num_outputs}) returned {type_of(network)}; expected a keras.Model")
        images = np.random.default_rng(0).random((2, IMAGE_SIZE, IMAGE_SIZE, 1), np.float32)
        try:
            found = network(images, training=False)
        except Exception as error:
            raise FmnistError(
                f"the network cannot be called with images of shape (n, 28, 28, 1): {_whole(error)}; let it begin with "
                "keras.Input((28, 28, 1))"
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


def _failure(call: str, error: Exception) -> FmnistError:
    """Return the error of a user's function, with the line where it was raised: their own if Keras raised it."""
    places = traceback.extract_tb(error.__traceback__)[1:]  # the first is the call here
    own = [place for place in places if "site-packages" not in place.filename]
    line = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return FmnistError(f"{call} fails: {type(error).__name__}: {_whole(error)}{line}")


def _whole(error: Exception) -> str:
    """Return the message of an error in one line, without colors, whole arrays, and the arguments that Keras lists.

    The first line of Keras' messages does not say the cause.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return " ".join(re.sub(r"\[\[.*\]\]", "[...]", text, flags=re.DOTALL).split()).rstrip(".")[:MAX_CAUSE]


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
    try:
        returned = function(images.copy(), labels.copy(), rng)
    except Exception as error:
        raise _failure("augment(images, labels, rng)", error) from error
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
