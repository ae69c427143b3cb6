"""The names of the classes in labels.txt, in the encodings and with the characters that people have."""

import unicodedata

import numpy as np
import pytest
from helpers import write_folder
from rich.text import Text

import fmnist
from fmnist.cli.terminal import PlainConsole
from fmnist.data import download
from fmnist.errors import FmnistError, printable

IMAGES, LABELS = np.zeros((6, 28, 28)), np.array([0, 1, 2, 0, 1, 2])
FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
NBSP = "\N{NO-BREAK SPACE}"


def load_with(folder, content):
    """Load a data set of three classes with this content of labels.txt."""
    write_folder(folder, (IMAGES, LABELS), (IMAGES, LABELS), class_names=None)
    (folder / "labels.txt").write_bytes(content)
    return fmnist.load(folder)


ACCEPTED = {
    "LF": ("circle\nsquare\nWürfel\n".encode(), ("circle", "square", "Würfel")),
    "CRLF": (b"circle\r\nsquare\r\nstar\r\n", ("circle", "square", "star")),
    "CR": (b"circle\rsquare\rstar", ("circle", "square", "star")),
    "UTF-8 with its mark": ("Kreis\nQuadrat\nWürfel".encode("utf-8-sig"), ("Kreis", "Quadrat", "Würfel")),
    "UTF-16, little-endian": (b"\xff\xfe" + "a\r\nき\r\nc".encode("utf-16-le"), ("a", "き", "c")),
    "UTF-16, big-endian": (b"\xfe\xff" + "a\nき\nc".encode("utf-16-be"), ("a", "き", "c")),
    "UTF-32": ("a\nき\nc".encode("utf-32"), ("a", "き", "c")),
    "blanks": (f"circle  \nsquare \t\n\n{NBSP}star\n\n\n".encode(), ("circle", "square", "star")),
    "no-break space": (f"T{NBSP}shirt\nb\nc".encode(), (f"T{NBSP}shirt", "b", "c")),
    "joined emoji": (f"{FAMILY}\nb\nc".encode(), (FAMILY, "b", "c")),
    "decomposed": ("Ku\N{COMBINING DIAERESIS}rzel\nb\nc".encode(), ("Kürzel", "b", "c")),
    "numbers": (b"0 a\n1 b b\n2 3", ("a", "b b", "3")),
    "numbers and tabs": (b"0\ta\n1\tb\n2\tc", ("a", "b", "c")),
    "numbers and signs": (b"0: a\n1. b\n2) c", ("a", "b", "c")),
    "numbers that are not those of the lines": (b"1 a\n2 b\n3 c", ("1 a", "2 b", "3 c")),
    "amounts": (b"0 mm\n1 mm\n2 mm", ("0 mm", "1 mm", "2 mm")),
    "decimals": (b"0.5\n1.5\n2.5", ("0.5", "1.5", "2.5")),
    "Arabic": ("قميص\nفستق\nسرير".encode(), ("قميص", "فستق", "سرير")),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_names_are_read(tmp_path, case):
    content, expected = ACCEPTED[case]
    names = load_with(tmp_path, content).class_names
    assert names == tuple(unicodedata.normalize("NFC", name) for name in expected)


REFUSED = {
    "another encoding": ("Kreis\nQuadrat\nWürfel".encode("latin-1"), "cannot be read as text .*; save it as UTF-8"),
    "UTF-16 without its mark": ("a\nb\nc".encode("utf-16-le"), "UTF-16 without a byte order mark; save it as UTF-8"),
    "half of UTF-16": (b"\xff\xfea\0\n", "cannot be read as text"),
    "a header": (b"name\na\nb\nc", r"has 4 names; expected 3, because the labels are 0 to 2: .* without a header"),
    "too few": (b"a\nb", "has 2 names; expected 3, because"),
    "empty": (b"", "has 0 names; expected 3, because"),
    "the same twice": (b"a\nb\na", "has the same name twice, 'a'"),
    "the same twice, decomposed": ("é\ne\N{COMBINING ACUTE ACCENT}\nc".encode(), "has the same name twice, 'é'"),
    "letters and tabs": (b"0\ta\nx\tb\n2\tc", r"the name '0\\ta' with a tab; write one name per line, without"),
    "a form feed": (b"a\x0cb\nb\nc", r"the name 'a\\x0cb' with the control character U\+000C; remove it"),
    "an override of the direction": ("a\u202eb\nb\nc".encode(), r"'a\\u202eb' with the control character U\+202E"),
    "a line separator": ("a\u2028b\nb\nc".encode(), r"control character U\+2028"),
    "nothing that can be seen": ("\N{ZERO WIDTH JOINER}\nb\nc".encode(), "of which nothing can be seen"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsuitable_names_are_one_line(tmp_path, case):
    content, expected = REFUSED[case]
    with pytest.raises(FmnistError, match=expected) as caught:
        load_with(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "labels.txt") in str(caught.value)


def test_names_beside_fashion_mnist_are_used(fashion, tmp_path):
    for name in download.FILES:
        (tmp_path / f"{name}.gz").symlink_to(download.keras_folder() / f"{name}.gz")
    assert fmnist.load(tmp_path).class_names == fashion.class_names
    names = [f"Name {index}" for index in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    dataset = fmnist.load(tmp_path)
    assert dataset.class_names == tuple(names)
    assert dataset.is_fashion_mnist


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a", "b"), "contains the label 2, but there are 2 class names"),
        (("a", "b", "a"), "the data from memory has the same name twice"),
        (("a", "b\x1b", "c"), "with the control character U[+]001B"),
        (tuple(map(str, range(101))), "has 101 classes; expected 1 to 100"),
        ((), "has 0 classes"),
    ],
)
def test_names_of_a_data_set_in_memory_are_checked(names, expected):
    images, labels = IMAGES.astype(np.uint8), LABELS
    with pytest.raises(FmnistError, match=expected):
        fmnist.Dataset(images, labels, images, labels, names)


def test_names_are_printed_as_they_are():
    for name in (f"T{NBSP}shirt", FAMILY, "き"):
        assert printable(name) == name
        assert PlainConsole().render_str(name) == Text(name)
    assert printable("\u202e\x1b\u200b") == r"\u202e\x1b\u200b"
