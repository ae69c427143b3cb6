"""Pictures become images of a data set: their depth, orientation, border and size."""

import io

import numpy as np
import pytest
from PIL import Image

import fmnist
from fmnist.data import pictures
from fmnist.data.pictures import read_picture
from fmnist.errors import FmnistError

PIXELS = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)


def encoded(picture, form="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def test_of_16_bits_the_upper_eight_are_kept():
    picture = Image.fromarray(PIXELS.astype(np.uint16) * 256 + PIXELS.T)
    np.testing.assert_array_equal(read_picture(encoded(picture)), PIXELS)


def test_a_picture_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right shows it upright
    found = read_picture(encoded(Image.fromarray(PIXELS), exif=exif))
    np.testing.assert_array_equal(found, np.rot90(PIXELS, -1))


@pytest.mark.parametrize("gray", [0, 90, 255])
def test_a_wide_picture_is_centered_on_the_gray_of_its_border(gray):
    image = read_picture(encoded(Image.new("L", (56, 28), gray)))
    np.testing.assert_array_equal(image, np.full((28, 28), gray))


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PICTURE_PIXELS", 100)
    with pytest.raises(FmnistError, match="a picture of 28x28; expected fewer pixels"):
        read_picture(encoded(Image.fromarray(PIXELS)))


def test_names_beside_numbered_folders_name_the_classes(tmp_path):
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        for index in range(4):
            (tmp_path / name / f"{index}.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    (tmp_path / "labels.txt").write_text("Coat\nBag\n")
    assert fmnist.load(tmp_path).class_names == ("Coat", "Bag")
