"""Data sets in the names, types, compressions and containers that people have."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import types
import zipfile
from typing import ClassVar

import numpy as np
import pytest
from helpers import write_folder
from PIL import Image

import fmnist
from fmnist.data import formats, tables
from fmnist.data.arrays import as_images, as_labels
from fmnist.data.dataset import check_trainable
from fmnist.errors import FmnistError
from fmnist.files import sha256

RNG = np.random.default_rng(3)
TRAIN = RNG.integers(0, 256, (12, 28, 28), np.uint8), np.arange(12, dtype=np.uint8) % 3
TEST = RNG.integers(0, 256, (6, 28, 28), np.uint8), np.arange(6, dtype=np.uint8) % 3
ARRAYS = (*TRAIN, *TEST)
USUAL = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array, little_endian=False):
    """Return an array as the content of an IDX file, in its own type."""
    code = CODES[array.dtype.str[1:]]
    words = [0x100 * code + array.ndim, *array.shape]
    header = b"".join(word.to_bytes(4, "little" if little_endian else "big") for word in words)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def zipped(content, name="file"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def write(folder, names=USUAL, arrays=ARRAYS, compress=gzip.compress):
    folder.mkdir(exist_ok=True)
    for name, array in zip(names, arrays, strict=True):
        (folder / name).write_bytes(compress(idx(array)))
    return folder


def assert_is_the_data(dataset):
    expected = fmnist.Dataset(*ARRAYS, dataset.class_names)
    assert dataset.sha256 == expected.sha256
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(dataset, name), getattr(expected, name))
        assert getattr(dataset, name).dtype == np.uint8


def unchanged(content):
    return content


NAMES_AND_COMPRESSIONS = {
    "usual names, plain": (USUAL, unchanged),
    "usual names, gzip": ([f"{name}.gz" for name in USUAL], gzip.compress),
    "gzip unpacked by a browser that kept the suffix": ([f"{name}.gz" for name in USUAL], unchanged),
    "gzip without its suffix": (USUAL, gzip.compress),
    "dots": ([name.replace("-idx", ".idx") for name in USUAL], unchanged),
    "dots, gzip": ([f"{name.replace('-idx', '.idx')}.gz" for name in USUAL], gzip.compress),
    "capitals": ([name.upper() for name in USUAL], unchanged),
    "EMNIST": ([f"emnist-digits-{name.replace('t10k', 'test')}.gz" for name in USUAL], gzip.compress),
    "QMNIST": ([f"qmnist-{name.replace('t10k', 'test')}" for name in USUAL], unchanged),
    "bzip2": ([f"{name}.bz2" for name in USUAL], bz2.compress),
    "xz": ([f"{name}.xz" for name in USUAL], lzma.compress),
    "zip": ([f"{name}.zip" for name in USUAL], zipped),
}


@pytest.mark.parametrize("case", NAMES_AND_COMPRESSIONS)
def test_idx_files_are_found_under_the_names_that_people_have(tmp_path, case):
    names, compress = NAMES_AND_COMPRESSIONS[case]
    folder = write(tmp_path / "data", names, compress=compress)
    assert_is_the_data(fmnist.load(folder))
    assert_is_the_data(fmnist.load(folder / names[2]))


def test_one_of_several_data_sets_in_a_folder_is_named_by_a_file(tmp_path):
    for prefix, arrays in (("emnist-letters-", ARRAYS), ("emnist-digits-", (*TEST, *TEST))):
        write(tmp_path, [f"{prefix}{name}" for name in USUAL], arrays, unchanged)
    with pytest.raises(FmnistError, match=r"has several data sets: emnist-digits-.*, emnist-letters-.*; name a file"):
        fmnist.load(tmp_path)
    assert_is_the_data(fmnist.load(tmp_path / f"emnist-letters-{USUAL[0]}"))


def test_a_missing_file_of_a_set_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / USUAL[3]).unlink()
    with pytest.raises(FmnistError, match=r"t10k-labels-idx1-ubyte.gz is missing"):
        fmnist.load(tmp_path)


FORMS = {
    "labels int32": (TRAIN[0], TRAIN[1].astype(np.int32)),
    "labels int16": (TRAIN[0], TRAIN[1].astype(np.int16)),
    "labels float": (TRAIN[0], TRAIN[1].astype(np.float32)),
    "labels (n, 1)": (TRAIN[0], TRAIN[1][:, np.newaxis]),
    "labels of QMNIST": (TRAIN[0], np.column_stack([TRAIN[1], RNG.integers(0, 9_999, (12, 7))]).astype(np.int32)),
    "images (n, 28, 28, 1)": (TRAIN[0][..., np.newaxis], TRAIN[1]),
    "images (n, 1, 28, 28)": (TRAIN[0][:, np.newaxis], TRAIN[1]),
    "images (n, 784)": (TRAIN[0].reshape(12, 784), TRAIN[1]),
    "images int16": (TRAIN[0].astype(np.int16), TRAIN[1]),
}


@pytest.mark.parametrize("case", FORMS)
def test_unambiguous_types_and_shapes_are_accepted(tmp_path, case):
    assert_is_the_data(fmnist.load(write(tmp_path / "idx", arrays=(*FORMS[case], *TEST))))
    np.savez(
        tmp_path / "data.npz",
        **dict(zip(("x_train", "y_train", "x_test", "y_test"), (*FORMS[case], *TEST), strict=True)),
    )
    assert_is_the_data(fmnist.load(tmp_path / "data.npz"))
    assert_is_the_data(fmnist.Dataset(*FORMS[case], *TEST, ("a", "b", "c")))


AMBIGUOUS = {
    "float images to 1": (
        TRAIN[0] / np.float32(255),
        TRAIN[1],
        r"float32 images from 0 to 1; expected uint8 .*: \(255",
    ),
    "float images to 255": (TRAIN[0].astype(np.float64), TRAIN[1], r"float64 images from 0 to 255; .*: \(images\)"),
    "negative images": (TRAIN[0].astype(np.int16) - 128, TRAIN[1], "int16 images from -128 to 127; expected uint8"),
    "16 pixels": (np.zeros((12, 16, 16), np.uint8), TRAIN[1], "images of 16x16; expected 28x28: resize them, or save"),
    "colors": (np.zeros((12, 28, 28, 3), np.uint8), TRAIN[1], r"an array of shape \(12, 28, 28, 3\); expected 28x28"),
    "no images": (TRAIN[0][:0], TRAIN[1][:0], "contains no images"),
    "a label too many": (TRAIN[0], np.arange(13, dtype=np.uint8) % 3, "12 images, but .* 13 labels"),
    "one-hot labels": (TRAIN[0], np.eye(3, dtype=np.uint8)[TRAIN[1]], r"uint8 labels of shape \(12, 3\).*argmax"),
    "one-hot labels of eight": (TRAIN[0], np.eye(8, dtype=np.int32)[TRAIN[1]], r"int32 labels of shape .*argmax"),
    "fractions as labels": (TRAIN[0], TRAIN[1] + np.float32(0.5), "float32 labels that are no whole numbers"),
    "NaN as label": (TRAIN[0], np.full(12, np.nan, np.float32), "float32 labels that are no whole numbers"),
    "infinity as label": (TRAIN[0], np.full(12, np.inf), "float64 labels that are no whole numbers"),
    "a large float as label": (TRAIN[0], np.full(12, 1e30), "contains the label 10000000000"),
    "a negative label": (TRAIN[0], TRAIN[1].astype(np.int32) - 1, "contains the label -1; expected 0 to 99"),
    "label 100": (TRAIN[0], TRAIN[1] + np.uint8(98), "contains the label 100; expected 0 to 99"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_ambiguous_is_refused_with_what_was_found(tmp_path, case):
    images, labels, expected = AMBIGUOUS[case]
    folder = write(tmp_path / "idx", arrays=(images, labels, *TEST))
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=TEST[0], y_test=TEST[1])
    for make in (
        lambda: fmnist.load(folder),
        lambda: fmnist.load(tmp_path / "data.npz"),
        lambda: check_trainable(fmnist.Dataset(images, labels, *TEST, ("a", "b", "c"))),
    ):
        with pytest.raises(FmnistError, match=expected) as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("first", "last"), [(1, 3), (1, 26), (5, 7)])
def test_labels_that_do_not_begin_at_0_are_refused(tmp_path, first, last):
    labels = (np.arange(60) % (last - first + 1) + first).astype(np.uint8)
    images = np.zeros((60, 28, 28), np.uint8)
    folder = write(tmp_path / "data", arrays=(images, labels, images, labels))
    with pytest.raises(FmnistError, match=f"are {first} to {last}; expected 0 to {last - first}: subtract {first} "):
        fmnist.load(folder)


def test_little_endian_header_is_named(tmp_path):
    folder = write(tmp_path / "data")
    (folder / USUAL[0]).write_bytes(idx(TRAIN[0], little_endian=True))
    with pytest.raises(FmnistError, match=r"begins with 03080000: an IDX file .* reverse order; .*big-endian"):
        fmnist.load(folder)


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, zipped, gzip.compress])
def test_truncated_compression_is_one_line(tmp_path, compress):
    folder = write(tmp_path / "data")
    content = compress(idx(TRAIN[0]))
    for size in (len(content) // 2, len(content) - 1):
        (folder / USUAL[0]).write_bytes(content[:size])
        with pytest.raises(FmnistError, match=r"train-images-idx3-ubyte is (damaged|truncated)"):
            fmnist.load(folder)


KAGGLE_HEADER = "label," + ",".join(f"pixel{i}" for i in range(1, 785))


def csv_text(images, labels, header=KAGGLE_HEADER, delimiter=",", end="\n"):
    rows = [
        delimiter.join(map(str, [label, *image.ravel().tolist()])) for image, label in zip(images, labels, strict=True)
    ]
    return end.join([header.replace(",", delimiter), *rows] if header else rows) + end


CSV = {
    "Kaggle": {},
    "without column names": {"header": None},
    "semicolons": {"delimiter": ";"},
    "Windows' line ends": {"end": "\r\n"},
    "blank lines": {"end": "\n \n"},
    "columns counted from 0": {"header": ",".join(["label", *map(str, range(784))])},
    "columns counted from 1": {"header": ",".join(["label", *map(str, range(1, 785))])},
    "columns without names": {"header": ",".join(map(str, range(785)))},
}


@pytest.mark.parametrize("case", CSV)
@pytest.mark.parametrize("compress", [unchanged, gzip.compress, zipped])
def test_pair_of_csv_files(tmp_path, case, compress):
    suffix = {unchanged: "", gzip.compress: ".gz", zipped: ".zip"}[compress]
    for part, arrays in (("train", TRAIN), ("test", TEST)):
        text = csv_text(*arrays, **CSV[case])
        (tmp_path / f"fashion-mnist_{part}.csv{suffix}").write_bytes(compress(text.encode("utf-8-sig")))
    assert_is_the_data(fmnist.load(tmp_path))
    assert_is_the_data(fmnist.load(tmp_path / f"fashion-mnist_train.csv{suffix}"))


@pytest.mark.parametrize("is_last", [False, True])
def test_csv_with_names_of_the_classes(tmp_path, is_last):
    names = np.array(["square", "circle, or disk", "star"])
    columns = [*(f"pixel{i}" for i in range(784))]
    for part, (images, labels) in (("train", TRAIN), ("test", TEST)):
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, "class"] if is_last else ["class", *columns])
            for pixels, label in zip(images.reshape(-1, 784).tolist(), names[labels], strict=True):
                writer.writerow([*pixels, label] if is_last else [label, *pixels])
    dataset = fmnist.load(tmp_path)
    assert dataset.class_names == ("circle, or disk", "square", "star")
    np.testing.assert_array_equal(dataset.train_images, TRAIN[0])
    assert [dataset.class_names[label] for label in dataset.train_labels] == names[TRAIN[1]].tolist()


def test_a_table_without_labels_beside_the_chosen_one_is_not_used(tmp_path, caplog):
    """As of Kaggle's digit recognizer."""
    (tmp_path / "train.csv").write_text(csv_text(*TRAIN))
    rows = [",".join(map(str, row)) for row in TEST[0].reshape(6, -1)]
    (tmp_path / "test.csv").write_text("\n".join([",".join(f"pixel{i}" for i in range(784)), *rows]))
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    dataset = fmnist.load(tmp_path / "train.csv")
    assert (len(dataset.train_images), len(dataset.test_images)) == (9, 3)
    assert "test.csv is not used: it has images without labels" in caplog.text
    assert "are held out" in caplog.text
    with pytest.raises(FmnistError, match=r"test\.csv has 784 columns: there is no label"):
        fmnist.load(tmp_path / "test.csv")


def test_many_rows_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 5)
    (tmp_path / "train.csv").write_text(csv_text(*TRAIN))
    (tmp_path / "test.csv").write_text(csv_text(*TEST))
    assert_is_the_data(fmnist.load(tmp_path))


def test_a_table_of_validation_images_is_not_used(tmp_path):
    for part, arrays in (("train", TRAIN), ("test", TEST), ("validation", TEST)):
        (tmp_path / f"{part}.csv").write_text(csv_text(*arrays))
    assert_is_the_data(fmnist.load(tmp_path))


def test_a_table_of_too_many_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_IMAGES", 11)
    (tmp_path / "train.csv").write_text(csv_text(*TRAIN))
    with pytest.raises(FmnistError, match=r"has more than 11 images; expected fewer"):
        fmnist.load(tmp_path)


def test_what_macs_add_to_an_archive_is_ignored(tmp_path):
    def compress(content):
        buffer = io.BytesIO(zipped(content))
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("__MACOSX/._file", b"x")
        return buffer.getvalue()

    assert_is_the_data(fmnist.load(write(tmp_path, compress=compress)))


INVALID_CSV = {
    "no label": (csv_text(*TRAIN).replace("label,", "").replace("\n0,", "\n"), "784 columns: there is no label"),
    "another size": ("label,pixel1,pixel2\n0,1,2\n", "has 3 columns; expected a label and 784 pixels"),
    "empty": ("", "has 0 columns; expected"),
    "only column names": (csv_text(TRAIN[0][:0], ()), "contains no images"),
    "a text as pixel": (csv_text(*TRAIN).replace("\n1,", "\n1,x", 1), "could not convert string"),
    "a missing pixel": (csv_text(*TRAIN).rpartition(",")[0], "train.csv, line 13, has 784 columns; expected 785"),
    "a missing pixel, no header": (csv_text(*TRAIN, None).rpartition(",")[0], "line 12, has 784 columns"),
    "a cut line": (csv_text(*TRAIN) + "2", "line 14, has 1 columns; expected 785"),
    "an infinite label": (csv_text(*TRAIN).replace("\n1,", "\ninf,"), "float64 labels that are no whole numbers"),
    "a large label": (csv_text(*TRAIN).replace("\n1,", "\n1e30,"), "contains the label 10000000000000000"),
    "an open quote": (csv_text(*TRAIN).replace("\n1,", '\n"1,', 1), "line 3, has 1 columns; expected 785"),
    "old Macs' line ends": (csv_text(*TRAIN, end="\r"), "has carriage returns for line ends"),
    "old Macs' line ends in short": (csv_text(*TRAIN, None, end="\r")[:5_000], "has carriage returns for line ends"),
    "a large pixel": (csv_text(TRAIN[0] + np.int16(9), TRAIN[1]), "int16 images from 9 to 264; expected uint8"),
    "fractions": (csv_text(TRAIN[0] / 255, TRAIN[1]), r"float32 images from 0 to 1; .*: \(255 \* images\)"),
    "a line without end": ("label" + "," * 10**5, "a line of more than 32,768 bytes"),
}


@pytest.mark.parametrize("case", INVALID_CSV)
def test_invalid_csv_is_one_line(tmp_path, case):
    text, expected = INVALID_CSV[case]
    (tmp_path / "train.csv").write_text(text)
    (tmp_path / "test.csv").write_text(csv_text(*TEST))
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.load(tmp_path)
    assert "\n" not in str(caught.value)


KEYS = {
    "Keras": ("x_train", "y_train", "x_test", "y_test"),
    "MedMNIST": ("train_images", "train_labels", "test_images", "test_labels"),
    "capitals": ("X_train", "Y_train", "X_test", "Y_test"),
    "camel case": ("trainImages", "trainLabels", "testImages", "testLabels"),
}


@pytest.mark.parametrize("case", KEYS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, case, save):
    others = {"val_images": TEST[0], "val_labels": TEST[1], "label_names": np.array(["a", "b"]), "version": np.array(1)}
    save(tmp_path / "mnist.npz", **dict(zip(KEYS[case], ARRAYS, strict=True)), **others)
    assert_is_the_data(fmnist.load(tmp_path))


def test_a_file_for_each_array_as_kmnist_has_them(tmp_path):
    for name, array in zip(("train-imgs", "train-labels", "test-imgs", "test-labels"), ARRAYS, strict=True):
        np.savez_compressed(tmp_path / f"kmnist-{name}.npz", array)
    assert_is_the_data(fmnist.load(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    for name, array in zip(KEYS["Keras"], ARRAYS, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    assert_is_the_data(fmnist.load(tmp_path))


def test_text_labels_in_npz_name_the_classes(tmp_path):
    names = np.array(["star", "circle", "square"])
    np.savez(tmp_path / "a.npz", x_train=TRAIN[0], y_train=names[TRAIN[1]], x_test=TEST[0], y_test=names[TEST[1]])
    dataset = fmnist.load(tmp_path)
    assert dataset.class_names == ("circle", "square", "star")
    assert dataset.train_labels[:3].tolist() == [2, 0, 1]


def npz_that_declares(shape, content=b""):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return zipped(buffer.getvalue() + content, "x_train.npy")


INVALID_NPZ = {
    "objects": (
        lambda path: np.savez(path, x_train=np.array([{}], object), y_train=TRAIN[1]),
        "contains Python objects; expected numbers",
    ),
    "labels as objects": (
        lambda path: np.savez(path, x_train=TRAIN[0], y_train=np.array(["a"] * 12, object)),
        r"y_train\) contains Python objects; expected integers or strings of a fixed length, so store labels.astype",
    ),
    "missing arrays": (lambda path: np.savez(path, x_train=TRAIN[0]), "has the arrays x_train; expected x_train, y_tr"),
    "other names": (lambda path: np.savez(path, TRAIN[0]), "has the arrays arr_0; expected x_train"),
    "no archive": (lambda path: path.write_bytes(b"\x93NUMPY"), "is damaged or not an npz file"),
    "a declared size": (lambda path: path.write_bytes(npz_that_declares((10**6, 784))), "declares 784,000,000 bytes"),
    "a huge size": (lambda path: path.write_bytes(npz_that_declares((10**15, 784))), "declares 784,000,000,0"),
    "truncated": (lambda path: path.write_bytes(npz_that_declares((12, 784), b"x")), "declares 9,408 bytes"),
    "not an array": (lambda path: path.write_bytes(zipped(b"text", "x_train.npy")), "is damaged or no array"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID_NPZ)
def test_invalid_npz_is_one_line(tmp_path, case):
    make, expected = INVALID_NPZ[case]
    make(tmp_path / "mnist.npz")
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_part_is_split_the_same_way_every_time(tmp_path, caplog):
    labels = np.repeat([0, 1], [40, 8])
    images = np.zeros((48, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(48)
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    first, second = fmnist.load(tmp_path), fmnist.load(tmp_path)
    assert first.sha256 == second.sha256
    assert np.bincount(first.test_labels).tolist() == [10, 2]
    assert first.test_images[:, 0, 0].tolist() == [4, 10, 11, 15, 18, 20, 22, 25, 28, 29, 41, 47], "in every version"
    assert sorted([*first.train_images[:, 0, 0], *first.test_images[:, 0, 0]]) == list(range(48))
    assert "has no test part: 12 of its 48 images, a random quarter of each class, are held out" in caplog.text


def save_pictures(folder, images, labels, names=("9", "10", "b")):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / names[label] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def test_folders_of_pictures(tmp_path, caplog):
    save_pictures(tmp_path / "train", *TRAIN)
    save_pictures(tmp_path / "test", *TEST)
    (tmp_path / "train" / "9" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "9" / "notes.txt").write_text("x")
    (tmp_path / "metadata.csv").write_text("a,b\n")
    dataset = fmnist.load(tmp_path)
    assert dataset.class_names == ("9", "10", "b")
    order = np.argsort(TRAIN[1], kind="stable")
    np.testing.assert_array_equal(dataset.train_images, TRAIN[0][order])
    np.testing.assert_array_equal(dataset.train_labels, TRAIN[1][order])
    assert "2 files are skipped, because they are no pictures that can be read: 9/.DS_Store, 9/notes.txt" in caplog.text


def test_folders_of_pictures_without_a_test_part(tmp_path, caplog):
    save_pictures(tmp_path, *TRAIN)
    dataset = fmnist.load(tmp_path)
    assert (len(dataset.train_images), len(dataset.test_images)) == (9, 3)
    assert "no test part" in caplog.text
    save_pictures(tmp_path / "val", *TEST)
    for name in ("9", "10", "b"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "train" / name)
    assert len(fmnist.load(tmp_path).test_images) == 6


def test_a_class_may_be_called_train(tmp_path):
    save_pictures(tmp_path, *TRAIN, names=("bus", "train", "car"))
    assert fmnist.load(tmp_path).class_names == ("bus", "car", "train")


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val"), ("train_images", "test_images"), ("train",)])
def test_parts_are_not_taken_for_classes(tmp_path, names):
    save_pictures(tmp_path, TRAIN[0], np.arange(12) % len(names), names=names)
    with pytest.raises(FmnistError, match="without folders for their classes; expected a folder of pictures for each"):
        fmnist.load(tmp_path)


def test_pictures_of_any_kind_become_images_of_the_data_set(tmp_path):
    gray = Image.fromarray(TRAIN[0][0])
    for name, picture in {
        "gray.png": gray,
        "color.png": gray.convert("RGB"),
        "alpha.png": gray.convert("RGBA"),
        "palette.gif": gray.convert("P"),
        "lossless.bmp": gray,
    }.items():
        for label in "ab":
            (tmp_path / label).mkdir(exist_ok=True)
            picture.save(tmp_path / label / name)
    dataset = fmnist.load(tmp_path)
    assert (dataset.train_images == TRAIN[0][0]).all()


def test_other_sizes_are_scaled_in_their_proportions(tmp_path):
    wide = np.zeros((40, 80), np.uint8)
    wide[:, 30:50] = 255
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.fromarray(wide).save(tmp_path / label / f"{index}.png")
    image = fmnist.load(tmp_path).train_images[0]
    assert not image[:6].any()
    assert not image[22:].any()
    assert (image[9:19, 12:16] > 200).all()
    assert (image[:, :9] < 20).all()


def test_dark_drawing_on_a_transparent_ground_stays_visible(tmp_path):
    drawing = np.zeros((28, 28, 4), np.uint8)
    drawing[10:18, 10:18, 3] = 255
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.fromarray(drawing).save(tmp_path / label / f"{index}.png")
    image = fmnist.load(tmp_path).train_images[0]
    assert (image[14, 14], image[0, 0]) == (0, 255)


class FakeParquetFile:
    """Stands for pyarrow's, which the tests do not install."""

    rows: ClassVar[dict] = {}
    names = ("square", "circle", "star")

    def __init__(self, path):
        self.values = self.rows[path.name]
        features = {"image": {"_type": "Image"}, "label": {"names": list(self.names), "_type": "ClassLabel"}}
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        self.schema_arrow = types.SimpleNamespace(names=list(self.values), metadata=metadata)
        self.metadata = types.SimpleNamespace(num_rows=len(self.values["label"]))

    def iter_batches(self, batch_size, columns):
        yield types.SimpleNamespace(to_pydict=lambda: {name: self.values[name] for name in columns})


def as_rows(images, labels):
    def png(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        return buffer.getvalue()

    return {"image": [{"bytes": png(image), "path": None} for image in images], "label": labels.tolist()}


@pytest.fixture
def fake_pyarrow(monkeypatch):
    parquet = types.SimpleNamespace(ParquetFile=FakeParquetFile)
    pyarrow = types.SimpleNamespace(ArrowException=type("ArrowException", (Exception,), {}), parquet=parquet)
    monkeypatch.setitem(sys.modules, "pyarrow", pyarrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)


def test_parquet_files_of_hugging_face(tmp_path, fake_pyarrow, monkeypatch):
    halves = [as_rows(TRAIN[0][part], TRAIN[1][part]) for part in (slice(5), slice(5, None))]
    names = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"]
    monkeypatch.setattr(FakeParquetFile, "rows", dict(zip(names, [*halves, as_rows(*TEST)], strict=True)))
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / name).touch()
    dataset = fmnist.load(tmp_path)
    assert_is_the_data(dataset)
    assert dataset.class_names == FakeParquetFile.names


def test_parquet_without_pyarrow_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "train.parquet").touch()
    with pytest.raises(FmnistError, match=r"needs the package pyarrow; `pip install pyarrow` installs it"):
        fmnist.load(tmp_path)


NOTHING_TO_LOAD = {
    "missing": (lambda path: None, "no data folder"),
    "empty folder": (lambda path: path.mkdir(), "has no files; expected four IDX files like"),
    "other files": (lambda path: (path.mkdir(), (path / "a.txt").touch()), "has a.txt; expected four IDX files like"),
    "another file": (lambda path: path.write_text("x"), "is, by its name, no file of a data set; expected four IDX"),
    "empty class folders": (lambda path: (path / "a").mkdir(parents=True), "a has no files; expected four IDX files"),
    "csv files of unknown parts": (
        lambda path: (path.mkdir(), *((path / f"{i}.csv").write_text(csv_text(*TEST)) for i in (10000, 20000))),
        "expected the words train and test in the names",
    ),
}


@pytest.mark.parametrize("case", NOTHING_TO_LOAD)
def test_a_path_without_data_is_one_line(tmp_path, case):
    make, expected = NOTHING_TO_LOAD[case]
    make(tmp_path / "data")
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.load(tmp_path / "data")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["archive.zip", "FashionMNIST.tar.gz", "digits.TGZ"])
def test_an_archive_of_many_files_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(FmnistError, match=r"is, by its name, no file of a data set; unpack it and name the folder"):
        fmnist.load(tmp_path / name)


def test_a_data_set_is_written_and_read_again(tmp_path):
    from fmnist.data.dataset import write_folder as write_data_set

    original = fmnist.Dataset(*ARRAYS, ("T\N{NO-BREAK SPACE}shirt", "Würfel", "き"))
    files = write_data_set(original, tmp_path / "new")
    assert [path.name for path in files] == sorted([*(f"{name}.gz" for name in USUAL), "labels.txt"])
    again = fmnist.load(tmp_path / "new")
    assert_is_the_data(again)
    assert again.class_names == original.class_names
    with pytest.raises(FmnistError, match="is not empty; expected a new folder"):
        write_data_set(original, tmp_path / "new")


def test_an_xz_stream_that_wants_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_XZ_MEMORY", 2**20)
    folder = write(tmp_path / "data", compress=lzma.compress)
    with pytest.raises(FmnistError, match=r"is damaged or not a xz file .*Memory usage limit"):
        fmnist.load(folder)


@pytest.mark.parametrize(("convert", "value"), [(as_images, [[0]]), (as_labels, [0]), (as_images, None)])
def test_only_arrays_are_converted(convert, value):
    with pytest.raises(FmnistError, match=r"x is a .*; expected a NumPy array"):
        convert(value, "x")


def test_the_hash_of_idx_files_is_that_of_their_bytes(tmp_path):
    folder = write_folder(tmp_path / "data", TRAIN, TEST, class_names=None)
    expected = {name: formats.read_idx(folder / f"{name}.gz") for name in USUAL}
    assert fmnist.load(folder).sha256 == {name: sha256(content) for name, content in expected.items()}


@pytest.mark.parametrize("inner", ["FashionMNIST/raw", "archive", "archive/data-1.0"])
def test_a_data_set_in_a_subfolder_is_found(small, tmp_path, inner):
    """As torchvision stores it, and as archives are unpacked."""
    folder = tmp_path / inner
    folder.mkdir(parents=True)
    write_folder(folder, (small.train_images, small.train_labels), (small.test_images, small.test_labels))
    if folder.name == "raw":
        (folder.parent / "processed").mkdir()
    assert fmnist.load(tmp_path).sha256 == small.sha256


def test_names_in_the_folder_of_the_files_are_used(tmp_path):
    write(tmp_path / "archive")
    (tmp_path / "archive" / "labels.txt").write_text("a\nb\nc")
    assert fmnist.load(tmp_path).class_names == ("a", "b", "c")


def unpack_to_folders(folder, is_beside=False, only=""):
    """Put each file into a folder of its name, as 7-Zip does; on request also beside it under another name."""
    for path in [each for each in folder.iterdir() if each.is_file() and each.name.endswith(only)]:
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        (path / path.name).write_bytes(content)
        if is_beside:
            (folder / path.name.replace("-idx", ".idx")).write_bytes(content)


@pytest.mark.parametrize("is_beside", [False, True])
def test_files_in_folders_of_their_names_are_found(tmp_path, is_beside):
    """As 7-Zip unpacks them, and as Kaggle has MNIST."""
    folder = write(tmp_path / "data", compress=unchanged)
    unpack_to_folders(folder, is_beside)
    (folder / "labels.txt").write_text("a\nb\nc")
    for path in (folder, folder / USUAL[0], folder / USUAL[0] / USUAL[0]):
        dataset = fmnist.load(path)
        assert_is_the_data(dataset)
        assert dataset.class_names == ("a", "b", "c")


def test_tables_in_folders_of_their_names_are_found(tmp_path):
    for name, part in (("mnist_train.csv", TRAIN), ("mnist_test.csv", TEST)):
        (tmp_path / name).write_text(csv_text(*part))
    unpack_to_folders(tmp_path)
    assert_is_the_data(fmnist.load(tmp_path))
    np.savez(tmp_path / "x.npz", x_train=TRAIN[0], y_train=TRAIN[1], x_test=TEST[0], y_test=TEST[1])
    unpack_to_folders(tmp_path, only=".npz")
    assert_is_the_data(fmnist.load(tmp_path / "x.npz"))


def test_a_folder_of_another_name_than_its_file_stays_a_folder(tmp_path):
    for name, arrays in (("test_data_idx", ARRAYS), ("other_test_data_idx", (*TEST, *TRAIN))):
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / "data.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True))
        )
    for path in ("test_data_idx", "test_data_idx/data.npz"):
        assert_is_the_data(fmnist.load(tmp_path / path))


def test_an_empty_folder_does_not_hide_a_file(tmp_path):
    folder = write(tmp_path / "data", [name.replace("-idx", ".idx") for name in USUAL], compress=unchanged)
    (folder / USUAL[0]).mkdir()
    assert_is_the_data(fmnist.load(folder))
