"""Loading, verifying, splitting and normalizing the data."""

import gzip
import logging
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import as_unprivileged_user, write_folder, write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

import fmnist
from fmnist.data import download, formats
from fmnist.data.dataset import (
    CLASS_NAMES,
    Dataset,
    check_trainable,
    evenly_spaced,
    load_from,
    normalize,
    split_dataset,
)
from fmnist.data.formats import parse_labels, read_idx
from fmnist.errors import FmnistError
from fmnist.files import sha256

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = download.FILES


def test_fashion_mnist(fashion):
    assert fashion.is_fashion_mnist
    assert fashion.train_images.shape == (60_000, 28, 28)
    assert fashion.test_images.shape == (10_000, 28, 28)
    assert fashion.train_images.dtype == fashion.train_labels.dtype == np.uint8
    assert np.bincount(fashion.train_labels).tolist() == [6_000] * 10
    assert np.bincount(fashion.test_labels).tolist() == [1_000] * 10
    assert fashion.class_names[9] == "Ankle boot"


def test_keras_loads_the_same_arrays_without_a_network(fashion):
    """In a separate process that cannot open connections."""
    script = (
        "import socket\n"
        "def refuse(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import hashlib, keras\n"
        "(x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()\n"
        "print(*[hashlib.sha256(a.tobytes()).hexdigest() for a in (x_train, y_train, x_test, y_test)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    arrays = (fashion.train_images, fashion.train_labels, fashion.test_images, fashion.test_labels)
    assert done.stdout.split()[-4:] == [sha256(array.tobytes()) for array in arrays]


@pytest.fixture
def only_the_cache(monkeypatch):
    """Make Keras' cache the only source."""
    cache_only = {"Keras' cache": download.SOURCES["Keras' cache"]}
    monkeypatch.setattr(download, "SOURCES", cache_only)


@pytest.fixture
def cache_and_copy(keras_home, fashion, monkeypatch):
    """Keras' cache and one more source with the real files."""
    original = shutil.copytree(REAL_CACHE, keras_home.parent / "copy")
    monkeypatch.setattr(
        download, "SOURCES", {"Keras' cache": download.SOURCES["Keras' cache"], "the copy": lambda _: original}
    )
    return keras_home


REAL_CACHE = download.keras_folder()


def test_empty_cache_is_filled_from_the_next_source(cache_and_copy):
    assert fmnist.load().source == "the copy"
    assert sorted(path.name for path in cache_and_copy.iterdir()) == sorted(f"{name}.gz" for name in download.FILES)
    assert fmnist.load().source == "Keras' cache"


def damage_truncated(path):
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 10])


def damage_html(path):
    path.write_text("<!doctype html><title>404</title>")


def damage_flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_foreign(path):
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:16] + bytes(len(content) - 16), 1))


def damage_emptied(path):
    path.write_bytes(b"")


DAMAGES = [damage_truncated, damage_html, damage_flipped, damage_foreign, damage_emptied]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [TRAIN_LABELS, TEST_IMAGES])
def test_damaged_cache_is_repaired(cache_and_copy, damage, name, caplog):
    fmnist.load()
    path = cache_and_copy / f"{name}.gz"
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING, "fmnist"):
        dataset = fmnist.load()
    assert dataset.is_fashion_mnist
    assert dataset.source == "the copy"
    assert path.name in caplog.text
    assert (cache_and_copy / f"{name}.gz.damaged").read_bytes() == damaged
    assert fmnist.load().source == "Keras' cache"


def test_mnist_digits_in_the_cache_are_refused(keras_home, only_the_cache):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60_000, 28, 28), np.uint8)
    labels = rng.integers(0, 10, 60_000, np.uint8)
    write_folder(keras_home, (images, labels), (images[:10_000], labels[:10_000]))
    with pytest.raises(FmnistError, match="is not Fashion-MNIST's train-images"):
        fmnist.load()


def test_error_without_any_source_lists_what_was_tried_and_a_hint(keras_home, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FmnistError) as caught:
        fmnist.load()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("Keras' cache", "Debian's folder", "the proxy cannot be reached", "no apt-get", "--data"):
        assert part in message


def test_apt_failure_is_one_line(keras_home, monkeypatch, tmp_path):
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to fetch some archives' >&2\nexit 100\n")
    (tmp_path / "dpkg-deb").write_text("#!/bin/sh\n")
    for tool in tmp_path.glob("*-*"):
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(download, "SOURCES", {"Debian's package": download.SOURCES["Debian's package"]})
    with pytest.raises(FmnistError, match=r"apt-get failed: E: Unable to fetch some archives"):
        fmnist.load()


def test_debian_package_is_unpacked_without_package_lists(keras_home, fashion, monkeypatch, tmp_path):
    """With a fake apt-get that knows the package only after an update, like the real one without lists."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text(
        "#!/bin/sh\n"
        f'case "$*" in *update*) touch {tools}/updated; exit 0;; esac\n'
        f"test -e {tools}/updated || {{ echo 'E: Unable to locate package' >&2; exit 100; }}\n"
        "touch dataset-fashion-mnist_1_all.deb\n"
    )
    (tools / "dpkg-deb").write_text(
        f'#!/bin/sh\nmkdir -p "$3/usr/share/datasets"\ncp -r {REAL_CACHE} "$3/usr/share/datasets/fashion-mnist"\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(download, "SOURCES", {"Debian's package": download.SOURCES["Debian's package"]})
    assert fmnist.load().source == "Debian's package"
    assert (keras_home / f"{TRAIN_IMAGES}.gz").is_file()


def test_unwritable_cache_is_only_a_warning(cache_and_copy, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "write_atomic", full)
    assert fmnist.load().is_fashion_mnist
    assert "No space left" in caplog.text


def test_folder_with_another_data_set(small, small_folder, monkeypatch):
    assert not small.is_fashion_mnist
    assert small.train_images.shape == (1_200, 28, 28)
    assert small.class_names == CLASS_NAMES
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    assert fmnist.load().sha256 == small.sha256


def test_folder_with_plain_files_and_no_class_names(tmp_path):
    images, labels = np.zeros((6, 28, 28)), np.array([0, 1, 2, 0, 1, 2])
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    assert fmnist.load(tmp_path).class_names == ("class 0", "class 1", "class 2")


IMAGES, LABELS = np.zeros((4, 28, 28)), np.array([0, 1, 0, 1])
INVALID_FOLDERS = {
    "no folder": (shutil.rmtree, "no data folder"),
    "missing file": (lambda folder: (folder / f"{TEST_LABELS}.gz").unlink(), "t10k-labels.*is missing"),
    "truncated": (lambda folder: damage_truncated(folder / f"{TRAIN_IMAGES}.gz"), "is truncated"),
    "html": (lambda folder: damage_html(folder / f"{TRAIN_IMAGES}.gz"), "not a gzip file"),
    "a folder": (
        lambda folder: ((folder / f"{TRAIN_IMAGES}.gz").unlink(), (folder / f"{TRAIN_IMAGES}.gz").mkdir()),
        "is a folder",
    ),
    "wrong shape": (
        lambda folder: write_idx(folder / f"{TRAIN_IMAGES}.gz", np.zeros((4, 32, 32))),
        "32x32; expected 28x28",
    ),
    "labels for images": (lambda folder: write_idx(folder / f"{TRAIN_IMAGES}.gz", LABELS), "contains labels"),
    "images for labels": (lambda folder: write_idx(folder / f"{TRAIN_LABELS}.gz", IMAGES), "contains images"),
    "counts differ": (
        lambda folder: write_idx(folder / f"{TRAIN_LABELS}.gz", np.array([0, 1])),
        "4 images, but .* 2 labels",
    ),
    "label above 99": (lambda folder: write_idx(folder / f"{TRAIN_LABELS}.gz", LABELS + 99), "the label 100"),
    "no images": (lambda folder: write_idx(folder / f"{TRAIN_IMAGES}.gz", IMAGES[:0]), "contains no images"),
    "trailing bytes": (
        lambda folder: (folder / f"{TRAIN_LABELS}.gz").write_bytes(
            gzip.compress(gzip.decompress((folder / f"{TRAIN_LABELS}.gz").read_bytes()) + b"x")
        ),
        "trailing bytes",
    ),
    "a name twice": (lambda folder: (folder / "labels.txt").write_text("a\na"), "has the same name twice"),
    "names of too few classes": (
        lambda folder: (folder / "labels.txt").write_text("only one"),
        "has 1 names; expected 2, because",
    ),
}


@pytest.mark.parametrize("case", INVALID_FOLDERS)
def test_invalid_folder_is_named_in_one_line(tmp_path, case):
    damage, expected = INVALID_FOLDERS[case]
    folder = write_folder(tmp_path / "data", (IMAGES, LABELS), (IMAGES, LABELS), class_names=("a", "b"))
    damage(folder)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_file_without_read_permission(open_folder):
    folder = write_folder(open_folder, (IMAGES, LABELS), (IMAGES, LABELS))
    (folder / f"{TRAIN_IMAGES}.gz").chmod(0)
    with as_unprivileged_user(), pytest.raises(FmnistError, match="Permission denied"):
        fmnist.load(folder)


def test_header_that_declares_too_much_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    header = b"".join(number.to_bytes(4, "big") for number in (formats.IMAGE_MAGIC, formats.MAX_IMAGES, 28, 28))
    path.write_bytes(gzip.compress(header))
    with pytest.raises(FmnistError, match="more than it can hold"):
        read_idx(path)


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 9), max_size=40), cut=st.integers(0, 200), gzipped=st.booleans())
def test_labels_are_read_as_written_and_truncation_is_detected(tmp_path_factory, labels, cut, gzipped):
    path = tmp_path_factory.mktemp("idx") / ("labels.gz" if gzipped else "labels")
    write_idx(path, np.array(labels, np.uint8))
    assert parse_labels(path, read_idx(path)).tolist() == labels
    content = path.read_bytes()
    path.write_bytes(content[: cut % len(content)])
    with pytest.raises(FmnistError):
        read_idx(path)


@pytest.mark.parametrize("seed", [0, 1])
def test_split_is_stratified_and_depends_on_the_seed(fashion, seed):
    parts = split_dataset(fashion, seed)
    assert len(parts.train_images) == len(parts.train_labels) == 55_000
    assert np.bincount(parts.val_labels).tolist() == [500] * 10
    again, other = split_dataset(fashion, seed), split_dataset(fashion, seed + 1)
    assert (again.val_images == parts.val_images).all()
    assert not (other.val_images == parts.val_images).all()
    together = np.concatenate([parts.train_images, parts.val_images])
    assert together.astype(np.uint64).sum() == fashion.train_images.astype(np.uint64).sum()


def test_disk_error_is_not_taken_for_damage(keras_home, only_the_cache, monkeypatch):
    """A temporary error must not rename an intact file."""
    shutil.copytree(REAL_CACHE, keras_home)

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(download.Path, "open", fail)
        with pytest.raises(FmnistError, match="Input/output error"):
            fmnist.load()
    assert fmnist.load().source == "Keras' cache"


def test_order_of_the_sources():
    assert list(download.SOURCES) == ["Keras' cache", "Debian's folder", "Keras' download", "Debian's package"]


def test_environment_variable_names_the_default_folder(small, small_folder, monkeypatch):
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    assert fmnist.load().path == str(small_folder.absolute())
    assert load_from(None).is_fashion_mnist


def test_validation_part_of_a_small_data_set_is_a_twelfth(small):
    assert len(split_dataset(small, 0).val_images) == 100
    assert len(split_dataset(small, 0, full=True).train_images) == 1_200


def test_split_of_too_few_images_is_refused(tmp_path):
    folder = write_folder(tmp_path, (IMAGES, LABELS), (IMAGES, LABELS), class_names=None)
    with pytest.raises(FmnistError, match="too few"):
        split_dataset(fmnist.load(folder), 0)


def test_normalize_keeps_the_picture():
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    result = normalize(images)
    assert (result.shape, result.dtype) == ((2, 28, 28, 1), np.float32)
    assert (np.round(result[..., 0] * 255) == images).all()
    assert result.max() == 1


@pytest.mark.parametrize(
    "images", [np.zeros((2, 28, 28)), np.zeros((2, 32, 32), np.uint8), np.zeros((28, 28), np.uint8)]
)
def test_normalize_refuses_other_arrays(images):
    with pytest.raises(FmnistError, match="expected uint8 of shape"):
        normalize(images)


@pytest.mark.parametrize(("num_images", "max_images"), [(10, 4), (60_000, 10_000), (5, 9), (1, 1), (7, 7)])
def test_evenly_spaced_goes_from_first_to_last(num_images, max_images):
    indices = evenly_spaced(num_images, max_images)
    assert len(set(indices)) == len(indices) == min(num_images, max_images)
    assert indices[0] == 0
    assert indices[-1] == (num_images - 1 if len(indices) > 1 else 0)
    assert np.ptp(np.diff(indices)) <= 1 if len(indices) > 1 else True


def labeled(train_labels, test_labels):
    """A data set with these labels."""

    def images(labels):
        return np.zeros((len(labels), 28, 28), np.uint8)

    return Dataset(
        images(train_labels), np.array(train_labels, np.uint8), images(test_labels), np.array(test_labels, np.uint8),
        ("a", "b", "c"), "here",
    )  # fmt: skip


NOT_TRAINABLE = {
    "one class": ([1, 1, 1], [1], "all training images from here are of the class 'b'; expected at least two"),
    "a class in test only": ([0, 1, 0, 1], [0, 2], "no training image of c: its training labels are 0, 1; add"),
    "a gap": ([0, 2, 0, 2], [0, 2], "no training image of b: its training labels are 0, 2; add"),
}


@pytest.mark.parametrize("case", NOT_TRAINABLE)
def test_data_that_cannot_be_trained_on_is_refused_before_training(case, tmp_path):
    train_labels, test_labels, expected = NOT_TRAINABLE[case]
    config = fmnist.Config.from_preset("textbook", full=True)
    with pytest.raises(FmnistError, match=expected):
        fmnist.train(config, dataset=labeled(train_labels, test_labels), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_with_one_image_needs_full_training():
    dataset = labeled([0] * 30 + [1] * 30 + [2], [0, 1, 2])
    check_trainable(dataset)
    with pytest.raises(FmnistError, match="too few for a validation part; expected at least two per class"):
        split_dataset(dataset, seed=0)
    assert len(split_dataset(dataset, seed=0, full=True).train_images) == 61


def test_a_data_set_is_described_in_a_line(small):
    assert repr(small) == f"Dataset(1,200 training and 200 test images of 10 classes, from {small.source})"
