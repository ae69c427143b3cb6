"""Photos reduced to 28x28: training examples beside those of the data set."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmnist.config import IMAGE_SIZE
from fmnist.data.formats import DECOMPRESSION_ERRORS
from fmnist.data.tables import read_array
from fmnist.errors import FmnistError, one_line
from fmnist.files import read_bounded, sha256

PHOTOS_FILE = Path(__file__).resolve().parents[3] / "photos" / "photos.npz"
"""The photos of the repository, which an installed package does not have."""
MAX_BYTES = 50 * 2**20
ARRAYS = {"images": np.uint8, "accepted": np.bool_, "category": np.str_, "is_held_out": np.bool_}
"""Arrays of the file, with their types."""


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photos, and pictures of things of none of the classes, converted as `fmnist predict` converts them."""

    images: np.ndarray
    """(n, 28, 28) uint8."""
    accepted: np.ndarray
    """(n, num_classes) bool: the classes that count as correct. A thing of none of the classes has none."""
    category: np.ndarray
    """(n,) str: what is shown."""
    is_held_out: np.ndarray
    """(n,) bool: not for training."""
    sha256: str
    """Of the file."""

    def training_part(self) -> "PhotoSet":
        """Return the photos that are not held out."""
        used = ~self.is_held_out
        images, accepted, category = self.images[used], self.accepted[used], self.category[used]
        return PhotoSet(images, accepted, category, self.is_held_out[used], self.sha256)


def load_photos(path: str | Path | None, num_classes: int) -> PhotoSet:
    """Load photos from an npz file, as `scripts/build_photos.py` writes it.

    Args:
        path: the file. None is the repository's.
        num_classes: number of classes of the data set.

    Raises:
        FmnistError: if the file is missing, damaged, has other arrays, or is for another number of classes.
    """
    hint = "scripts/build_photos.py writes such a file, and the repository has one, photos/photos.npz"
    path = Path(path) if path else PHOTOS_FILE
    content = read_bounded(path, MAX_BYTES, f"name the file of photos with --photos; {hint}", follow_links=True)
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in ARRAYS:
                with archive.open(f"{name}.npy") as file:
                    arrays[name] = read_array(f"{path} ({name})", file, MAX_BYTES)
    except (KeyError, *DECOMPRESSION_ERRORS) as error:
        raise FmnistError(f"{path} is no file of photos ({one_line(error)}); {hint}") from error
    num_photos = len(arrays["images"])
    expected = {
        "images": (num_photos, IMAGE_SIZE, IMAGE_SIZE),
        "accepted": (num_photos, num_classes),
        "category": (num_photos,),
        "is_held_out": (num_photos,),
    }
    if any(arrays[name].shape != expected[name] or arrays[name].dtype.type != ARRAYS[name] for name in ARRAYS):
        found = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in arrays.items())
        wanted = ", ".join(f"{name} {ARRAYS[name].__name__} {shape}" for name, shape in expected.items())
        raise FmnistError(f"{path} has the arrays {found}; expected {wanted}")
    if arrays["is_held_out"].all():
        raise FmnistError(f"{path} has no photos to train on: all {num_photos} are held out")
    return PhotoSet(**arrays, sha256=sha256(content))
