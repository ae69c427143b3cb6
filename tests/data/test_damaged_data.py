"""Damaged data files: each is named in an error, none is used, and the cache is repaired from another source."""

import gzip
import logging
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from helpers import tree, write_folder, write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

import fmnist
from fmnist.data import download, formats
from fmnist.data.formats import IMAGE_MAGIC, LABEL_MAGIC, parse_images, parse_labels, read_idx
from fmnist.data.names import are_class_names
from fmnist.errors import FmnistError, is_displayable
from fmnist.files import sha256

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = download.FILES
NUM_IMAGES = 60
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (NUM_IMAGES, 28, 28), np.uint8)
LABELS = np.arange(NUM_IMAGES, dtype=np.uint8) % 10


def header(*words):
    return b"".join(word.to_bytes(4, "big") for word in words)


def write(content):
    return lambda path: path.write_bytes(gzip.compress(content, 1))


def change(alter):
    """Change the decompressed bytes, and compress them again correctly."""
    return lambda path: path.write_bytes(gzip.compress(alter(gzip.decompress(path.read_bytes())), 1))


def change_file(alter):
    return lambda path: path.write_bytes(alter(path.read_bytes()))


def replace(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def truncate(tenths):
    return change_file(lambda content: content[: len(content) * tenths // 10])


def flip_bit(position):
    def alter(content):
        index = int(position * (len(content) - 1))
        return content[:index] + bytes([content[index] ^ 16]) + content[index + 1 :]

    return change_file(alter)


SIZE = NUM_IMAGES * 28 * 28
# How to damage the file of the training images, and a pattern of the expected error.
DAMAGES = {
    "empty": (truncate(0), "is not an IDX file of images or labels: it begins with nothing"),
    **{
        f"cut at {tenths} tenths": (truncate(tenths), "is truncated: its gzip stream is incomplete")
        for tenths in range(1, 10)
    },
    "a flipped bit at the start": (flip_bit(0), "not a gzip file"),
    "a flipped bit in the middle": (flip_bit(0.5), "is damaged|is not Fashion-MNIST's"),
    "a flipped bit in the checksum": (change_file(lambda c: c[:-8] + bytes([c[-8] ^ 1]) + c[-7:]), "CRC check failed"),
    "a flipped bit in the length": (change_file(lambda c: c[:-1] + bytes([c[-1] ^ 1])), "Incorrect length"),
    "trailing bytes inside": (change(lambda c: c + b"x"), f"has trailing bytes: its header declares {16 + SIZE} bytes"),
    "trailing bytes outside": (change_file(lambda c: c + b"x"), "Not a gzipped file"),
    "a second stream": (change_file(lambda c: c + gzip.compress(b"x")), "has trailing bytes"),
    "short inside": (change(lambda c: c[:-1]), f"is truncated: its header declares {16 + SIZE} bytes"),
    "wrong magic": (change(lambda c: b"\0\0\x0a\x03" + c[4:]), "is not an IDX file .* begins with 00000a03"),
    "wrong type": (change(lambda c: b"\0\0\x0d\x03" + c[4:]), "is truncated: its header declares"),
    "header in reverse byte order": (
        change(lambda c: b"\3\x08\0\0" + c[4:]),
        "begins with 03080000: an IDX file with the bytes of each number in reverse order",
    ),
    "a plain file under the name of a gzip file": (
        change_file(gzip.decompress),
        "is not a gzip file, so Keras cannot read it",
    ),
    "only a header": (change(lambda c: c[:10]), "is not an IDX file"),
    "wrong dimensions": (change(lambda c: c[:8] + header(32, 32) + c[16:]), "contains images of 32x32; expected 28x28"),
    "no images": (write(header(IMAGE_MAGIC, 0, 28, 28)), "is not Fashion-MNIST's"),
    "fewer images than labels": (
        write(header(IMAGE_MAGIC, 1, 28, 28) + bytes(784)),
        "is not Fashion-MNIST's",
    ),
    "labels instead of images": (write(header(LABEL_MAGIC, 1) + b"\1"), "is not Fashion-MNIST's"),
    "labels above 9": (write(header(LABEL_MAGIC, 1) + b"\xff"), "is not Fashion-MNIST's"),
    "digits of the same format": (
        change(lambda c: c[:16] + bytes(len(c) - 16)),
        "is not Fashion-MNIST's .* MNIST digits have the same format",
    ),
    "a bomb with a true header": (
        write(header(IMAGE_MAGIC, 1_500_000, 28, 28) + bytes(10**6)),
        "declares 1,500,000 entries; expected at most 1,000,000",
    ),
    "a bomb with a small header": (write(header(IMAGE_MAGIC, 1, 28, 28) + bytes(10**7)), "has trailing bytes"),
    "an HTML page": (lambda path: path.write_text("<!doctype html><title>404</title>"), "not a gzip file"),
    "a gzipped HTML page": (write(b"<!doctype html><title>404</title>"), "is not an IDX file .* begins with 3c21646f"),
    "a folder": (replace(lambda path: path.mkdir()), "is a folder; expected a regular file"),
    "a pipe": (replace(os.mkfifo), "is a pipe or device; expected a regular file"),
    "a dangling link": (replace(lambda path: path.symlink_to("nowhere")), "is a symbolic link to a missing file"),
    "a link to itself": (replace(lambda path: path.symlink_to(path)), "is a symbolic link to a missing file"),
}


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A folder with a small data set whose hashes replace those of Fashion-MNIST."""
    folder = write_folder(tmp_path / "original", (IMAGES, LABELS), (IMAGES, LABELS), class_names=None)
    known = {name: sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())) for name in download.FILES}
    monkeypatch.setattr(download, "FILES", known)
    return folder


@pytest.fixture
def cache(original, keras_home, monkeypatch):
    """Keras' cache as the only source, with that data set in it."""
    shutil.copytree(original, keras_home)
    monkeypatch.setattr(download, "SOURCES", {"Keras' cache": download.SOURCES["Keras' cache"]})
    return keras_home


@pytest.fixture
def another_source(cache, original, monkeypatch):
    monkeypatch.setattr(download, "SOURCES", {**download.SOURCES, "the original": lambda _: original})


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_cache_file_is_named_and_renamed(cache, tmp_path, case):
    damage, expected = DAMAGES[case]
    damage(cache / f"{TRAIN_IMAGES}.gz")
    before = tree(tmp_path)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.load()
    assert "\n" not in str(caught.value)
    assert f"{TRAIN_IMAGES}.gz" in str(caught.value)
    path = str((cache / TRAIN_IMAGES).relative_to(tmp_path))
    assert tree(tmp_path) == {
        (f"{name}.damaged" if name == f"{path}.gz" else name): entry for name, entry in before.items()
    }


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_cache_is_repaired_from_another_source(cache, another_source, case, caplog):
    intact = tree(cache)
    DAMAGES[case][0](cache / f"{TRAIN_IMAGES}.gz")
    damaged = tree(cache)
    with caplog.at_level(logging.WARNING, "fmnist"):
        dataset = fmnist.load()
    assert dataset.is_fashion_mnist
    assert dataset.source == "the original"
    assert (dataset.train_images == IMAGES).all()
    (record,) = caplog.records
    assert f"is renamed to {TRAIN_IMAGES}.gz.damaged" in record.getMessage()
    assert tree(cache) == {**intact, f"{TRAIN_IMAGES}.gz.damaged": damaged[f"{TRAIN_IMAGES}.gz"]}
    assert fmnist.load().source == "Keras' cache"


# A folder that the user names may contain another data set, so these cases have other errors there, or none.
ERRORS_IN_A_FOLDER = {
    "no images": "contains no images",
    "fewer images than labels": "contains 1 images, but .* contains 60 labels",
    "labels instead of images": "contains labels; expected images",
    "labels above 9": "contains labels; expected images",
    "digits of the same format": None,
    "a plain file under the name of a gzip file": None,
    "a flipped bit in the middle": "is damaged|CRC check failed",
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_file_in_a_folder_is_named_and_left_unchanged(original, case):
    damage, expected = DAMAGES[case]
    expected = ERRORS_IN_A_FOLDER.get(case, expected)
    damage(original / f"{TRAIN_IMAGES}.gz")
    before = tree(original)
    if expected is None:
        assert (fmnist.load(original).test_images == IMAGES).all()
    else:
        with pytest.raises(FmnistError, match=expected) as caught:
            fmnist.load(original)
        assert "\n" not in str(caught.value)
        assert str(original / f"{TRAIN_IMAGES}.gz") in str(caught.value)
    assert tree(original) == before


def test_label_above_99_is_refused(original):
    write_idx(original / f"{TEST_LABELS}.gz", np.full(NUM_IMAGES, 100))
    with pytest.raises(FmnistError, match=f"{TEST_LABELS}.gz contains the label 100; expected 0 to 99"):
        fmnist.load(original)


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_unreadable_cache_is_left_unchanged(cache, another_source, monkeypatch, is_folder):
    """Missing permissions are not damage: the file keeps its name, and the data comes from another source."""
    before = tree(cache)
    real_stat = download.Path.stat

    def refuse(path, **options):
        if path == cache if is_folder else path.parent == cache:
            raise PermissionError(13, "Permission denied", str(path))
        return real_stat(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(download.Path, "stat", refuse)
        assert fmnist.load().source == "the original"
        with pytest.raises(FmnistError, match=r"cannot be read \(Permission denied\)"):
            download.read_verified(cache)
    assert tree(cache) == before


def test_file_larger_than_any_data_set_is_not_read(tmp_path):
    path = tmp_path / "images"
    with path.open("wb") as file:
        file.truncate(formats.MAX_FILE_BYTES + 1)
    with pytest.raises(formats.DamagedFileError, match="expected at most 1,073,741,824"):
        read_idx(path)


INVALID_NAMES = {
    "control characters": (b"Shirt\x1b[2J\nTrouser", "with the control character U[+]001B; remove it"),
    "too long": (b"x" * 101, "of 101 characters; expected at most 100"),
    "too many bytes": (
        b"x\n" * 60_000,
        "has 120,000 bytes; expected at most 100,000, so write one class name per line",
    ),
    "not text": (b"\xff\xfe\x00", "cannot be read as text"),
}


@pytest.mark.parametrize("case", INVALID_NAMES)
def test_invalid_class_names_are_refused(tmp_path, case):
    content, expected = INVALID_NAMES[case]
    folder = write_folder(tmp_path, (IMAGES, LABELS % 1), (IMAGES, LABELS % 1), class_names=None)
    (folder / "labels.txt").write_bytes(content)
    with pytest.raises(FmnistError, match=expected):
        fmnist.load(folder)


@pytest.mark.parametrize(
    ("create", "expected"),
    [(lambda path: path.symlink_to("nowhere"), "is missing"), (lambda path: path.mkdir(), "is a folder; expected a")],
    ids=["dangling link", "folder"],
)
def test_labels_file_of_the_wrong_type_is_refused(original, create, expected):
    create(original / "labels.txt")
    write_idx(original / f"{TRAIN_LABELS}.gz", LABELS % 2)
    with pytest.raises(FmnistError, match=f"labels.txt {expected}"):
        fmnist.load(original)


def peak_memory(function, *arguments):
    """Return the peak of allocated memory during a call, in bytes."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fail_to_read(path):
    with pytest.raises(FmnistError):
        read_idx(path)


MILLION_IMAGES = header(IMAGE_MAGIC, 1_000_000, 28, 28)
OVERSIZED = {
    # 784 MB declared, in a file so large that deflate could hold them
    "false header": ("images.gz", lambda: gzip.compress(MILLION_IMAGES + RNG.bytes(2**20), 1)),
    "false header, plain": ("images", lambda: MILLION_IMAGES + RNG.bytes(2**20)),
    "no header, plain": ("images", lambda: b"PK" + bytes(2**25)),
    # 200 MB of zeros after a header that declares one image
    "bomb": ("images.gz", lambda: gzip.compress(header(IMAGE_MAGIC, 1, 28, 28) + bytes(2 * 10**8), 1)),
    "bomb of 12 GB": ("images.gz", lambda: gzip.compress(header(IMAGE_MAGIC, 2**24, 28, 28) + bytes(10**7), 1)),
}


@pytest.mark.parametrize("case", OVERSIZED)
def test_memory_does_not_follow_a_false_header(tmp_path, case):
    name, content = OVERSIZED[case]
    (tmp_path / name).write_bytes(content())
    assert peak_memory(fail_to_read, tmp_path / name) < 8 * 2**20


def test_memory_for_an_intact_file_is_about_its_size(tmp_path):
    write_idx(tmp_path / "images.gz", np.zeros((20_000, 28, 28), np.uint8))
    assert peak_memory(read_idx, tmp_path / "images.gz") < 2.3 * 20_000 * 784


label_files = st.lists(st.integers(0, 9), min_size=1, max_size=30).map(
    lambda labels: header(LABEL_MAGIC, len(labels)) + bytes(labels)
)
damages = st.one_of(
    st.builds(lambda share: lambda c: c[: int(share * len(c))], st.floats(0, 1, exclude_max=True)),
    st.builds(
        lambda share, bit: (
            lambda c: (
                c[: int(share * len(c))] + bytes([c[int(share * len(c))] ^ 1 << bit]) + c[int(share * len(c)) + 1 :]
            )
        ),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 7),
    ),
    st.builds(lambda more: lambda c: c + more, st.binary(min_size=1, max_size=9)),
)


@settings(max_examples=300, deadline=None)
@given(content=label_files, damage=damages)
def test_any_damage_to_a_verified_file_is_detected(tmp_path_factory, content, damage):
    """The exact bytes are read, or an error is raised."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "labels.gz").write_bytes(damage(gzip.compress(content, mtime=0)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(download, "FILES", {"labels": sha256(content)})
        try:
            found = download.read_verified(folder)
        except FmnistError:
            return
    assert found == {"labels": content}


@settings(max_examples=200, deadline=None)
@given(content=label_files, damage=damages)
def test_damaged_plain_file_gives_labels_or_an_error(tmp_path_factory, content, damage):
    path = tmp_path_factory.mktemp("any") / "labels"
    path.write_bytes(damage(content))
    try:
        found = parse_labels(path, read_idx(path))
    except FmnistError:
        return
    assert found.size == path.stat().st_size - 4 - 4 * found.ndim
    assert found.max() <= 99


@settings(max_examples=40, deadline=None)
@given(num_images=st.integers(1, 5), seed=st.integers(0, 99), gzipped=st.booleans())
def test_images_are_read_as_written(tmp_path_factory, num_images, seed, gzipped):
    path = tmp_path_factory.mktemp("any") / ("images.gz" if gzipped else "images")
    written = np.random.default_rng(seed).integers(0, 256, (num_images, 28, 28), np.uint8)
    write_idx(path, written)
    assert (parse_images(path, read_idx(path)) == written).all()


@given(st.lists(st.text(max_size=120), max_size=12))
def test_valid_class_names_are_printable(names):
    if are_class_names(names):
        assert all(all(map(is_displayable, name)) and name.encode() and len(name) <= 100 for name in names)
        assert 1 <= len(names) == len(set(names)) <= 100
