"""The color network: a second network for photos, which has colors and details that an image of 28x28 lacks.

It gets the whole photo and the cut-out garment, each with its mirror image, in 224x224 colors. Its outputs are kinds of
garments, and kinds of things that are none of the classes. Its probabilities are averaged with those of the network
for 28x28 images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fmnist.documents import read_document
from fmnist.errors import FmnistError
from fmnist.files import MAX_MODEL_BYTES, read_bounded, sha256
from fmnist.inference.photo import Conversion
from fmnist.inference.runtime import open_session
from fmnist.runs.schemas import COLOR_FILE, PHOTO_MODEL_FILE, PhotoModelRecord

SIZE = 224
"""Height and width of a view, in pixels."""
NUM_FEATURES = 1280
MARGIN = 0.08
"""Around the cut-out, relative to its longer edge."""
GRAY = (127, 127, 127)
"""Fills a cut-out to a square."""
LOOKS_LIKE = {"hat": "a hat", "shorts": "shorts", "skirt": "a skirt"}
"""Categories that are none of the classes, in words."""
SHOES = (5, 7, 9)
"""Sandal, Sneaker, Ankle boot: the photos have one category for all three."""
CLASS_OF = {"t-shirt": 0, "pants": 1, "longsleeve": 2, "dress": 3, "outwear": 4, "shirt": 6}
"""Category of photos to class of Fashion-MNIST. `shoes` are three classes; the others are none."""
LOG_EPSILON = 1e-12


@dataclass(frozen=True)
class PhotoProbabilities:
    """The probabilities of both networks for a photo, averaged."""

    classes: np.ndarray
    """(10,) probability of each class. They sum to 1 minus `none`."""
    none: float
    """Probability of none of the classes."""
    looks_like: str | None
    """What else it may be, in words, if that is known."""


class ColorNetwork:
    """The color network, ready for photos."""

    def __init__(self, onnx: bytes, record: PhotoModelRecord):
        """Open the graph.

        Args:
            onnx: from `pictures`, uint8 (n, 224, 224, 3), to `probabilities`, float32 (n, outputs), and `features`,
                float32 (n, `NUM_FEATURES`).
            record: names of the outputs, and how they are combined with the other network's.

        Raises:
            FmnistError: if the graph cannot be opened.
        """
        self.record = record
        self._session = open_session(onnx, "the color network")

    @classmethod
    def load(cls, folder: Path) -> "ColorNetwork":
        """Open the color network in the folder of the pretrained model.

        Raises:
            FmnistError: if a file is missing, damaged or not the one that the record names.
        """
        hint = "install fmnist again"
        record = read_document(folder / PHOTO_MODEL_FILE, PhotoModelRecord, hint)
        content = read_bounded(folder / COLOR_FILE, MAX_MODEL_BYTES, hint)
        if sha256(content) != record.sha256:
            raise FmnistError(f"{folder / COLOR_FILE} is not the file that its record names (SHA-256 differs); {hint}")
        return cls(content, record)

    def combine(self, views: np.ndarray, probabilities: np.ndarray, none_probability: float) -> PhotoProbabilities:
        """Average the probabilities of both networks for a photo.

        Args:
            views: of `color_views`.
            probabilities: (10,), of the network for 28x28 images; they sum to 1.
            none_probability: of the same network.
        """
        return combine(self.record, self._run("probabilities", views), probabilities, none_probability)

    def features(self, views: np.ndarray) -> np.ndarray:
        """Return what the last layer gets for a photo, (`NUM_FEATURES`,) float32, averaged over its views.

        Args:
            views: of `color_views`.
        """
        mean: np.ndarray = self._run("features", views).mean(axis=0)
        return mean

    def _run(self, output: str, views: np.ndarray) -> np.ndarray:
        """Compute an output for the views and their mirror images."""
        (values,) = self._session.run([output], {"pictures": np.concatenate([views, views[:, :, ::-1]])})
        return values


def combine(
    record: PhotoModelRecord, by_view: np.ndarray, probabilities: np.ndarray, none_probability: float
) -> PhotoProbabilities:
    """Average the outputs of the color network over the views, and with the probabilities of the other network.

    Args:
        record: how.
        by_view: (views, outputs) of the color network.
        probabilities: (10,), of the network for 28x28 images; they sum to 1.
        none_probability: of the same network.
    """
    mean = np.exp(np.log(by_view + LOG_EPSILON).mean(axis=0))
    by_output = dict(zip(record.outputs, mean / mean.sum(), strict=True))
    color = np.zeros(len(probabilities))
    for category, label in CLASS_OF.items():
        color[label] = by_output[category]
    shoes = probabilities[list(SHOES)] + LOG_EPSILON  # the other network decides which kind of shoe it is
    color[list(SHOES)] = by_output["shoes"] * shoes / shoes.sum()
    weight = record.color_weight
    classes = weight * color + (1 - weight) * (1 - none_probability) * probabilities
    all_of_them = np.append(classes, max(0.0, 1 - classes.sum())) ** (1 / record.temperature)
    all_of_them /= all_of_them.sum()
    others = {name: value for name, value in by_output.items() if name not in CLASS_OF and name != "shoes"}
    return PhotoProbabilities(
        all_of_them[:-1], float(all_of_them[-1]), LOOKS_LIKE.get(max(others, key=others.__getitem__))
    )


def views_of(conversion: Conversion) -> np.ndarray:
    """Return the inputs of the color network for a photo that `photo.convert` has converted, as `color_views` does."""
    return color_views(conversion.steps["original"].convert("RGB"), np.asarray(conversion.steps["mask"]) > 0)


def color_views(picture: Image.Image, mask: np.ndarray) -> np.ndarray:
    """Return the inputs of the color network for a photo.

    Args:
        picture: RGB, a few hundred pixels.
        mask: (height, width) bool of any resolution and the same proportions, True on the garment.

    Returns:
        (2, 224, 224, 3) uint8: the whole photo, stretched to a square; and the garment with some of what is around it,
        filled to a square.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    margin = MARGIN * max(bottom - top, right - left)
    height, width = mask.shape
    scale_x, scale_y = picture.width / width, picture.height / height
    x, y = round(max(0, left - margin) * scale_x), round(max(0, top - margin) * scale_y)
    x_end, y_end = round(min(width, right + margin) * scale_x), round(min(height, bottom + margin) * scale_y)
    cutout = picture.crop((x, y, x_end, y_end))
    edge = max(cutout.size)
    square = Image.new("RGB", (edge, edge), GRAY)
    square.paste(cutout, ((edge - cutout.width) // 2, (edge - cutout.height) // 2))
    resampling = Image.Resampling.BICUBIC if edge < SIZE else Image.Resampling.BOX
    whole = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.stack([np.asarray(whole), np.asarray(square.resize((SIZE, SIZE), resampling))])
