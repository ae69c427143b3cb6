"""Reduce a folder of labeled photos to photos/photos.npz: python scripts/build_photos.py FOLDER.

The folder has `labels.csv`, as benchmarks/photos.py describes it. Every photo is converted as by `fmnist predict`. A
fifth of the photos, chosen by the hash of their files, is held out. Drawn pictures of other things are added, see
`other_things.py`. The result is small enough for the repository, so that everybody can train on it.
"""

import csv
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from other_things import TRAINED_ON, draw_thing
from PIL import Image

from fmnist.data.dataset import CLASS_NAMES
from fmnist.data.photos import PHOTOS_FILE
from fmnist.files import sha256
from fmnist.inference import photo, picture
from fmnist.inference.color import color_views

HELD_OUT_FRACTION = 0.2
NUM_FOLDS = 4
"""Parts of the other photos, for cross-validation."""
NUM_THINGS = 100
"""Drawn pictures of each kind in the file."""
GROUND_EDGES = (0.25, 0.45)
"""Edge of a patch of ground, relative to the shorter edge of its photo."""
GROUND_SIZE = 160
"""Pixels."""
NUM_TRIES = 60
EVERY = 3
"""One photo in so many gives a patch of ground."""

T = TypeVar("T")


@dataclass(frozen=True)
class Reduced:
    """A converted picture."""

    image: np.ndarray
    """(28, 28) uint8."""
    views: np.ndarray
    """(2, 224, 224, 3) uint8, see `color_views`."""
    mask: np.ndarray
    """(height, width) bool."""
    hash: float
    """0 to 1, from the content of the file."""


@dataclass(frozen=True)
class LabeledPhotos:
    """The photos of a folder."""

    paths: list[Path]
    reduced: list[Reduced]
    accepted: np.ndarray
    """(n, 10) bool."""
    category: np.ndarray
    """(n,) str."""
    is_held_out: np.ndarray
    """(n,) bool."""
    fold: np.ndarray
    """(n,) integers from 0 to `NUM_FOLDS` - 1."""


def read_folder(folder: Path) -> LabeledPhotos:
    """Convert all photos of a folder, on all processors."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [folder / row["file"] for row in rows]
    reduced = in_parallel(_reduce_file, paths)
    accepted = np.zeros((len(rows), len(CLASS_NAMES)), bool)
    for index, row in enumerate(rows):
        accepted[index, [int(label) for label in row["accepted_classes"].split()]] = True
    hashes = np.array([each.hash for each in reduced])
    return LabeledPhotos(
        paths,
        reduced,
        accepted,
        category=np.array([row["category"] for row in rows]),
        is_held_out=hashes < HELD_OUT_FRACTION,
        fold=(hashes * 1e6).astype(int) % NUM_FOLDS,
    )


def in_parallel(function: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """Apply a function to items, on all processors."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(function, items, chunksize=20))


def _reduce_file(path: Path) -> Reduced:
    content = path.read_bytes()
    return reduce(picture.read(content), hash_of(content))


def hash_of(content: bytes) -> float:
    """Return a number from 0 to 1 that depends on the content of a file, and decides what the photo is for."""
    return int(sha256(content)[:12], 16) / 16**12


def reduce(original: Image.Image, file_hash: float = 0.0) -> Reduced:
    """Convert a picture for both networks."""
    conversion = photo.convert(original, "photo")
    mask = np.asarray(conversion.steps["mask"]) > 0
    return Reduced(conversion.pixels, color_views(conversion.steps["original"].convert("RGB"), mask), mask, file_hash)


def cut_grounds(photos: LabeledPhotos) -> list[np.ndarray]:
    """Cut a patch without a garment out of some of the photos that are not held out, (160, 160, 3) uint8 each."""
    chosen = np.flatnonzero(~photos.is_held_out)[::EVERY]
    patches = in_parallel(_cut_ground, [(photos.paths[index], photos.reduced[index].mask) for index in chosen])
    return [patch for patch in patches if patch is not None]


def _cut_ground(item: tuple[Path, np.ndarray]) -> np.ndarray | None:
    path, mask = item
    original = picture.read(path).convert("RGB")
    is_garment = np.asarray(Image.fromarray(mask).resize(original.size))
    rng = np.random.default_rng(0)
    for _ in range(NUM_TRIES):
        edge = int(min(original.size) * rng.uniform(*GROUND_EDGES))
        left, top = (int(rng.integers(0, size - edge)) for size in original.size)
        if is_garment[top : top + edge, left : left + edge].mean() < 0.005:
            patch = original.crop((left, top, left + edge, top + edge))
            return np.asarray(patch.resize((GROUND_SIZE, GROUND_SIZE)))
    return None


def draw_things(kinds: Iterable[str], number: int, grounds: list[np.ndarray]) -> tuple[list[Reduced], np.ndarray]:
    """Draw and convert a number of pictures of each kind. Returns them and the kind of each, (n,) str."""
    work = [(kind, index) for kind in kinds for index in range(number)]
    return in_parallel(partial(_draw_and_reduce, grounds), work), np.array([kind for kind, _ in work])


def _draw_and_reduce(grounds: list[np.ndarray], item: tuple[str, int]) -> Reduced:
    kind, index = item
    return reduce(draw_thing(kind, np.random.default_rng([*kind.encode(), index]), grounds))


def write(path: Path, photos: LabeledPhotos, things: list[Reduced], kinds: np.ndarray) -> None:
    """Write the file that `fmnist.data.photos.load_photos` reads."""
    num_things = len(things)
    np.savez_compressed(
        path,
        images=np.stack([each.image for each in (*photos.reduced, *things)]),
        accepted=np.concatenate([photos.accepted, np.zeros((num_things, len(CLASS_NAMES)), bool)]),
        category=np.concatenate([photos.category, kinds]),
        is_held_out=np.concatenate([photos.is_held_out, np.zeros(num_things, bool)]),
    )


def main() -> None:
    """Write the file, and print its size."""
    photos = read_folder(Path(sys.argv[1]))
    things, kinds = draw_things(TRAINED_ON, NUM_THINGS, cut_grounds(photos))
    write(PHOTOS_FILE, photos, things, kinds)
    print(
        f"{PHOTOS_FILE}: {len(photos.paths)} photos, {len(things)} other things, {PHOTOS_FILE.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
