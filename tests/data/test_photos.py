"""The file of photos: what it holds, and what is refused."""

import io
import zipfile

import numpy as np
import pytest

from fmnist.data import photos
from fmnist.errors import FmnistError

ARRAYS = {
    "images": np.zeros((4, 28, 28), np.uint8),
    "accepted": np.eye(4, 10, dtype=bool),
    "category": np.array(["shirt", "hat", "shoes", "shirt"]),
    "is_held_out": np.array([True, False, False, True]),
}


def write(path, **changes):
    np.savez_compressed(path, **{name: array for name, array in {**ARRAYS, **changes}.items() if array is not None})
    return path


def test_photos_are_loaded_and_some_are_held_out(tmp_path):
    loaded = photos.load_photos(write(tmp_path / "photos.npz"), 10)
    assert loaded.category.tolist() == ["shirt", "hat", "shoes", "shirt"]
    training = loaded.training_part()
    assert (training.category.tolist(), len(training.images), training.is_held_out.any()) == (
        ["hat", "shoes"],
        2,
        False,
    )


def test_the_repository_has_photos_of_all_categories():
    loaded = photos.load_photos(None, 10)
    assert {"dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"} < {
        *loaded.category.tolist()
    }
    is_garment = loaded.accepted.any(axis=1)
    assert 0.15 < loaded.is_held_out[is_garment].mean() < 0.25
    assert loaded.accepted[loaded.category == "shoes"].sum(axis=1).tolist() == [3] * (loaded.category == "shoes").sum()
    assert photos.PHOTOS_FILE.stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category": None}, "is no file of photos"),
        ({"images": np.zeros((4, 28, 28), np.float32)}, "float32"),
        ({"images": np.zeros((4, 20, 20), np.uint8)}, r"\(4, 20, 20\)"),
        ({"images": np.zeros((3, 28, 28), np.uint8)}, r"expected .*accepted bool \(3, 10\)"),
        ({"accepted": np.eye(4, 7, dtype=bool)}, r"expected .*accepted bool \(4, 10\)"),
        ({"is_held_out": np.zeros((4, 1), bool)}, r"is_held_out bool \(4, 1\)"),
        ({"is_held_out": np.ones(4, bool)}, "all 4 are held out"),
        ({"category": np.array([None] * 4)}, "Python objects"),
    ],
    ids=["missing array", "float images", "other size", "lengths", "classes", "columns", "all held out", "objects"],
)
def test_other_arrays_are_refused(tmp_path, changes, message):
    path = write(tmp_path / "photos.npz", **changes)
    with pytest.raises(FmnistError, match=message):
        photos.load_photos(path, 10)


def test_a_missing_file_says_where_photos_are(tmp_path):
    with pytest.raises(FmnistError, match=r"name the file of photos with --photos; .*photos/photos.npz"):
        photos.load_photos(tmp_path / "none.npz", 10)


def test_a_file_that_declares_too_much_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)})
    with zipfile.ZipFile(write(tmp_path / "photos.npz", images=None), "a") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(FmnistError, match="more than it can hold"):
        photos.load_photos(tmp_path / "photos.npz", 10)
