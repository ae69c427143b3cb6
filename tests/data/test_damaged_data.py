"""Data that lies: every file that is not what it should be is named, none is used, and a cache heals."""

import gzip
import logging
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from conftest import tree, write_folder, write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

import fmnist
from fmnist.data import dataset as data
from fmnist.data import download as sources
from fmnist.data import formats as idx
from fmnist.errors import FmnistError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = sources.FILES
NUM_IMAGES = 60
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (NUM_IMAGES, 28, 28), np.uint8)
LABELS = np.arange(NUM_IMAGES, dtype=np.uint8) % 10


def header(*words):
    return b"".join(word.to_bytes(4, "big") for word in words)


def write(content):
    return lambda path: path.write_bytes(gzip.compress(content, 1))


def change(alter):
    """Alter the unpacked bytes, and pack them again properly."""
    return lambda path: path.write_bytes(gzip.compress(alter(gzip.decompress(path.read_bytes())), 1))


def change_file(alter):
    return lambda path: path.write_bytes(alter(path.read_bytes()))


def replace(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def cut(tenths):
    return change_file(lambda content: content[: len(content) * tenths // 10])


def flip(share):
    def alter(content):
        position = int(share * (len(content) - 1))
        return content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]

    return change_file(alter)


SIZE = NUM_IMAGES * 28 * 28
# The image file of the training part is made to lie: how, and the words that must be said of it.
LIES = {
    "empty": (cut(0), "is no IDX file of images or labels: it begins with nothing"),
    **{
        f"cut at {tenths} tenths": (cut(tenths), "is truncated: its gzip stream stops short") for tenths in range(1, 10)
    },
    "a flipped bit at the start": (flip(0), "no gzip file"),
    "a flipped bit in the middle": (flip(0.5), "is damaged|is not Fashion-MNIST's"),
    "a flipped bit in the checksum": (change_file(lambda c: c[:-8] + bytes([c[-8] ^ 1]) + c[-7:]), "CRC check failed"),
    "a flipped bit in the length": (change_file(lambda c: c[:-1] + bytes([c[-1] ^ 1])), "Incorrect length"),
    "trailing bytes inside": (change(lambda c: c + b"x"), f"has trailing bytes: its header promises {16 + SIZE} bytes"),
    "trailing bytes outside": (change_file(lambda c: c + b"x"), "Not a gzipped file"),
    "a second stream": (change_file(lambda c: c + gzip.compress(b"x")), "has trailing bytes"),
    "short inside": (change(lambda c: c[:-1]), f"is truncated: its header promises {16 + SIZE} bytes"),
    "wrong magic": (change(lambda c: b"\0\0\x0d\x03" + c[4:]), "is no IDX file .* begins with 00000d03"),
    "a header alone": (change(lambda c: c[:10]), "is no IDX file"),
    "wrong dimensions": (change(lambda c: c[:8] + header(32, 32) + c[16:]), "holds images of 32x32; expected 28x28"),
    "no images": (write(header(idx.IMAGE_MAGIC, 0, 28, 28)), "is not Fashion-MNIST's"),
    "fewer images than labels": (
        write(header(idx.IMAGE_MAGIC, 1, 28, 28) + bytes(784)),
        "is not Fashion-MNIST's",
    ),
    "labels in place of images": (write(header(idx.LABEL_MAGIC, 1) + b"\1"), "is not Fashion-MNIST's"),
    "labels above 9": (write(header(idx.LABEL_MAGIC, 1) + b"\xff"), "is not Fashion-MNIST's"),
    "digits of the same form": (
        change(lambda c: c[:16] + bytes(len(c) - 16)),
        "is not Fashion-MNIST's .* MNIST digits have the same form",
    ),
    "a bomb behind an honest header": (
        write(header(idx.IMAGE_MAGIC, 1_500_000, 28, 28) + bytes(10**6)),
        "promises 1,500,000 entries; expected at most 1,000,000",
    ),
    "a bomb behind a small header": (write(header(idx.IMAGE_MAGIC, 1, 28, 28) + bytes(10**7)), "has trailing bytes"),
    "an HTML page": (lambda path: path.write_text("<!doctype html><title>404</title>"), "no gzip file"),
    "a zipped HTML page": (write(b"<!doctype html><title>404</title>"), "is no IDX file .* begins with 3c21646f"),
    "a folder": (replace(lambda path: path.mkdir()), "is a folder, where a file was expected"),
    "a pipe": (replace(os.mkfifo), "is a pipe or device, where a file was expected"),
    "a dangling link": (replace(lambda path: path.symlink_to("nowhere")), "is a link that leads nowhere"),
    "a link to itself": (replace(lambda path: path.symlink_to(path)), "is a link that leads nowhere"),
}


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A folder with a small data set that is now Fashion-MNIST: its hashes are those that are known."""
    folder = write_folder(tmp_path / "original", (IMAGES, LABELS), (IMAGES, LABELS), class_names=None)
    known = {name: idx.sha256(gzip.decompress((folder / f"{name}.gz").read_bytes())) for name in sources.FILES}
    monkeypatch.setattr(sources, "FILES", known)
    return folder


@pytest.fixture
def cache(original, keras_home, monkeypatch):
    """Keras' cache, the only source, with that data set in it."""
    shutil.copytree(original, keras_home)
    monkeypatch.setattr(sources, "SOURCES", {"Keras' cache": sources.SOURCES["Keras' cache"]})
    return keras_home


@pytest.fixture
def another_source(cache, original, monkeypatch):
    monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, "the original": lambda _: original})


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_the_cache_is_named_and_set_aside(cache, tmp_path, lie):
    damage, expected = LIES[lie]
    damage(cache / f"{TRAIN_IMAGES}.gz")
    before = tree(tmp_path)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.load()
    assert "\n" not in str(caught.value)
    assert f"{TRAIN_IMAGES}.gz" in str(caught.value)
    place = str((cache / TRAIN_IMAGES).relative_to(tmp_path))
    assert tree(tmp_path) == {
        (f"{name}.damaged" if name == f"{place}.gz" else name): entry for name, entry in before.items()
    }


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_the_cache_heals_from_another_source(cache, another_source, lie, caplog):
    healthy = tree(cache)
    LIES[lie][0](cache / f"{TRAIN_IMAGES}.gz")
    lying = tree(cache)
    with caplog.at_level(logging.WARNING, "fmnist"):
        dataset = fmnist.load()
    assert dataset.is_fashion_mnist
    assert dataset.source == "the original"
    assert (dataset.train_images == IMAGES).all()
    (record,) = caplog.records
    assert f"it is set aside as {TRAIN_IMAGES}.gz.damaged" in record.getMessage()
    assert tree(cache) == {**healthy, f"{TRAIN_IMAGES}.gz.damaged": lying[f"{TRAIN_IMAGES}.gz"]}
    assert fmnist.load().source == "Keras' cache"


# In a folder that somebody names, another set of the same form is welcome, so these are told by other words.
WORDS_IN_A_FOLDER = {
    "no images": "holds no images",
    "fewer images than labels": "holds 1 images, but .* holds 60 labels",
    "labels in place of images": "holds labels, where images were expected",
    "labels above 9": "holds labels, where images were expected",
    "digits of the same form": None,
    "a flipped bit in the middle": "is damaged|CRC check failed",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_a_folder_is_named_and_left_as_it_is(original, lie):
    damage, expected = LIES[lie]
    expected = WORDS_IN_A_FOLDER.get(lie, expected)
    damage(original / f"{TRAIN_IMAGES}.gz")
    before = tree(original)
    if expected is None:
        assert not fmnist.load(original).is_fashion_mnist
    else:
        with pytest.raises(FmnistError, match=expected) as caught:
            fmnist.load(original)
        assert "\n" not in str(caught.value)
        assert str(original / f"{TRAIN_IMAGES}.gz") in str(caught.value)
    assert tree(original) == before


def test_labels_above_9_are_named(original):
    write_idx(original / f"{TEST_LABELS}.gz", np.full(NUM_IMAGES, 10))
    with pytest.raises(FmnistError, match=f"{TEST_LABELS}.gz holds the label 10; expected 0 to 9"):
        fmnist.load(original)


REFUSALS = {"a file": (idx.gzip, "open"), "the folder": (sources.Path, "stat")}


@pytest.mark.parametrize("place", REFUSALS)
def test_what_may_not_be_read_is_named_and_stays(cache, another_source, monkeypatch, place):
    """Not for want of rights is a file damaged: it keeps its name, and the data comes from elsewhere."""
    before = tree(cache)
    module, function = REFUSALS[place]
    real = getattr(module, function)

    def refuse(path, *arguments, **named):
        if str(path).startswith(str(cache)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, function, refuse)
        assert fmnist.load().source == "the original"
        with pytest.raises(FmnistError, match=r"may not be read: permission denied|cannot be entered"):
            sources.read_verified(cache)
    assert tree(cache) == before


BAD_NAMES = {
    "escape": (b"Shirt\x1b[2J\nTrouser", "with control characters"),
    "too long": (b"x" * 101, "of over 100 characters"),
    "endless": (b"x\n" * 6_000, "longer than 10,000 bytes"),
    "no text": (b"\xff\xfe\x00", "cannot be read as text"),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_bad_class_names_are_refused(tmp_path, case):
    content, expected = BAD_NAMES[case]
    folder = write_folder(tmp_path, (IMAGES, LABELS % 1), (IMAGES, LABELS % 1), class_names=None)
    (folder / "labels.txt").write_bytes(content)
    with pytest.raises(FmnistError, match=expected):
        fmnist.load(folder)


def test_class_names_in_a_folder_or_behind_a_dead_link_are_refused(original):
    (original / "labels.txt").symlink_to("nowhere")
    write_idx(original / f"{TRAIN_LABELS}.gz", LABELS % 2)
    with pytest.raises(FmnistError, match=r"labels.txt is no file"):
        fmnist.load(original)


def peak_of(function, *arguments):
    """The most memory, in bytes, that a call has at one time."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fail_to_read(path):
    with pytest.raises(FmnistError):
        idx.read(path)


MILLION_IMAGES = header(idx.IMAGE_MAGIC, 1_000_000, 28, 28)
GLUTTONS = {
    # 784 MB promised, and a file so large that deflate could hold it
    "a lying header": ("images.gz", lambda: gzip.compress(MILLION_IMAGES + RNG.bytes(2**20), 1)),
    "a lying header, plain": ("images", lambda: MILLION_IMAGES + RNG.bytes(2**20)),
    # 200 MB of zeros behind a header that promises one image
    "a bomb": ("images.gz", lambda: gzip.compress(header(idx.IMAGE_MAGIC, 1, 28, 28) + bytes(2 * 10**8), 1)),
    "a bomb of 12 GB": ("images.gz", lambda: gzip.compress(header(idx.IMAGE_MAGIC, 2**24, 28, 28) + bytes(10**7), 1)),
}


@pytest.mark.parametrize("case", GLUTTONS)
def test_memory_goes_by_what_is_there(tmp_path, case):
    name, content = GLUTTONS[case]
    (tmp_path / name).write_bytes(content())
    assert peak_of(fail_to_read, tmp_path / name) < 8 * 2**20


def test_an_honest_file_takes_little_more_than_its_size(tmp_path):
    write_idx(tmp_path / "images.gz", np.zeros((20_000, 28, 28), np.uint8))
    assert peak_of(idx.read, tmp_path / "images.gz") < 2.3 * 20_000 * 784


content_of_files = st.lists(st.integers(0, 9), min_size=1, max_size=30).map(
    lambda labels: header(idx.LABEL_MAGIC, len(labels)) + bytes(labels)
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
@given(content=content_of_files, damage=damages)
def test_whatever_is_cut_flipped_or_added_is_noticed(tmp_path_factory, content, damage):
    """A file of the data set gives the very bytes that were written, or an error."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "labels.gz").write_bytes(damage(gzip.compress(content, mtime=0)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "FILES", {"labels": idx.sha256(content)})
        try:
            found = sources.read_verified(folder)
        except FmnistError:
            return
    assert found == {"labels": content}


@settings(max_examples=200, deadline=None)
@given(content=content_of_files, damage=damages)
def test_no_damage_to_a_plain_file_gives_anything_but_labels_or_an_error(tmp_path_factory, content, damage):
    path = tmp_path_factory.mktemp("any") / "labels"
    path.write_bytes(damage(content))
    try:
        found = idx.labels(path, idx.read(path))
    except FmnistError:
        return
    assert len(found) == len(content) - 8
    assert found.max() <= 9


@settings(max_examples=40, deadline=None)
@given(num_images=st.integers(1, 5), seed=st.integers(0, 99), zipped=st.booleans())
def test_images_read_back_as_they_were_written(tmp_path_factory, num_images, seed, zipped):
    path = tmp_path_factory.mktemp("any") / ("images.gz" if zipped else "images")
    written = np.random.default_rng(seed).integers(0, 256, (num_images, 28, 28), np.uint8)
    write_idx(path, written)
    assert (idx.images(path, idx.read(path)) == written).all()


@given(st.lists(st.text(max_size=120), max_size=12))
def test_names_that_pass_can_be_shown_anywhere(names):
    if data.are_class_names(names):
        assert all(name.isprintable() and name.encode() and len(name) <= 100 for name in names)
        assert 1 <= len(names) == len(set(names)) <= 10
