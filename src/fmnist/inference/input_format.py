"""The inputs that models of other people take: shape, range and dtype of images of the data set."""

from dataclasses import dataclass

import numpy as np

LAYOUTS: dict[str, tuple[int, ...]] = {
    "28x28": (28, 28),
    "28x28x1": (28, 28, 1),
    "1x28x28": (1, 28, 28),
    "784": (784,),
}
"""Shape of an image by name. The number of images comes before it."""

PER_IMAGE = "per-image"
SCALINGS: dict[str, tuple[float, float]] = {
    "0..255": (0, 1),
    "0..1": (0, 255),
    "-1..1": (127.5, 127.5),
    "fashion-mnist": (0.2860 * 255, 0.3530 * 255),
    "mnist": (0.1307 * 255, 0.3081 * 255),
    PER_IMAGE: (0, 1),
    "255..0": (255, -1),
    "1..0": (255, -255),
    "1..-1": (127.5, -127.5),
}
"""What is subtracted from pixels of 0 to 255, and what they are divided by then. `fashion-mnist` and `mnist` are mean
and standard deviation of these data sets. `per-image` is followed by those of each image itself. With the last three,
garments are dark on a bright ground."""
INTEGER_SCALINGS = ("0..255", "255..0")
"""Those that lead to whole numbers."""
MIN_IMAGE_SD = 1 / 28
"""Smallest standard deviation that `per-image` divides by, as in `tf.image.per_image_standardization`."""


@dataclass(frozen=True)
class InputFormat:
    """What a model takes."""

    layout: str
    """A key of `LAYOUTS`."""
    scaling: str
    """A key of `SCALINGS`."""
    dtype: str
    """Name of a NumPy dtype."""

    def convert(self, images: np.ndarray) -> np.ndarray:
        """Convert images of the data set to this format.

        Args:
            images: (n, 28, 28) uint8.

        Returns:
            A new array, (n, *layout) of the format's dtype.
        """
        subtracted, divisor = SCALINGS[self.scaling]
        pixels = (images.reshape(len(images), -1).astype(np.float32) - np.float32(subtracted)) / np.float32(divisor)
        if self.scaling == PER_IMAGE:
            means, sds = pixels.mean(axis=1, keepdims=True), pixels.std(axis=1, keepdims=True)
            pixels = (pixels - means) / np.maximum(sds, MIN_IMAGE_SD)
        return pixels.reshape(len(images), *LAYOUTS[self.layout]).astype(self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(['n', *map(str, LAYOUTS[self.layout])])}), scaling {self.scaling}"


def list_formats(layouts: list[str], dtypes: list[str]) -> list[InputFormat]:
    """Return all formats with these layouts and dtypes, in the order of layout, dtype and scaling."""
    return [
        InputFormat(layout, scaling, dtype)
        for layout in layouts
        for dtype in dtypes
        for scaling in (SCALINGS if np.dtype(dtype).kind == "f" else INTEGER_SCALINGS)
    ]
