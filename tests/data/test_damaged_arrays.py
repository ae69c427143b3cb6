"""Whatever is damaged in an npz or npy file, the error is one line that names the file."""

import io
import random
import zipfile

import numpy as np
import pytest

from fmnist.data.tables import read_array, read_npz, read_single_array
from fmnist.errors import FmnistError

IMAGES, LABELS = np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28), np.arange(2, dtype=np.uint8)
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


def archive(method=zipfile.ZIP_DEFLATED, **arrays):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            file.writestr(f"{name}.npy", content.getvalue())
    return buffer.getvalue()


def changed(content, record, offset, value):
    """Replace bytes after the beginning of each record of a kind."""
    content, start = bytearray(content), -1
    while (start := content.find(record, start + 1)) >= 0:
        content[start + offset : start + offset + len(value)] = value
    return bytes(content)


def flagged(content, flags):
    return changed(changed(content, LOCAL, 6, bytes([flags])), CENTRAL, 8, bytes([flags]))


DAMAGES = {
    "a damaged stream": lambda content: changed(content, LOCAL, 40, b"\xff" * 9),
    "encrypted": lambda content: flagged(content, 0x01),
    "a feature that zipfile lacks": lambda content: flagged(content, 0x20),
    "a later version of zip": lambda content: changed(content, CENTRAL, 6, b"\xff"),
    "a wrong offset": lambda content: changed(content, END, 12, b"\xff\xff\xff\x7f"),
    "a file without a name": lambda content: changed(content, CENTRAL, 28, b"\0\0\0\0\x0a\0"),
    "truncated": lambda content: content[: len(content) // 2],
}


@pytest.mark.parametrize("case", DAMAGES)
@pytest.mark.parametrize("read", [read_npz, read_single_array])
def test_damaged_archive_is_one_line(tmp_path, case, read):
    arrays = {"images": IMAGES, "labels": LABELS} if read is read_npz else {"images": IMAGES}
    path = tmp_path / "a.npz"
    path.write_bytes(archive(**arrays))
    read(path)
    path.write_bytes(DAMAGES[case](path.read_bytes()))
    with pytest.raises(FmnistError, match=r"a\.npz") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_npz, read_single_array])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_random_damage_of_an_archive_is_an_fmnist_error(tmp_path, read, method):
    arrays = {"images": IMAGES, "labels": LABELS} if read is read_npz else {"images": IMAGES}
    intact, generator = archive(method, **arrays), random.Random(1)
    for _ in range(200):
        content = bytearray(intact)
        for _ in range(generator.randrange(1, 5)):
            position = generator.choice([generator.randrange(len(content)), -1 - generator.randrange(140)])
            content[position] = generator.choice([0, 1, 255, generator.randrange(256)])
        (tmp_path / "a.npz").write_bytes(content)
        try:
            read(tmp_path / "a.npz")
        except FmnistError:
            continue


def npy(header, content=b""):
    return b"\x93NUMPY\1\0" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n" + content


HEADERS = {
    "no end": "{'descr': '|u1', 'shape': (",
    "other keys": "{'shape': (2, 28, 28)}",
    "a name": "{'descr': '|u1', 'fortran_order': False, 'shape': size}",
    "a negative size": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28)}",
    "two negative sizes": "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -28, 28)}",
    "no bytes": "{'descr': '|S0', 'fortran_order': False, 'shape': (2, 28, 28)}",
}


@pytest.mark.parametrize("case", HEADERS)
def test_invalid_header_of_an_array_is_one_line(case):
    with pytest.raises(FmnistError, match=r"a\.npy (declares|is damaged)") as caught:
        read_array("a.npy", io.BytesIO(npy(HEADERS[case], IMAGES.tobytes())), 10**6)
    assert "\n" not in str(caught.value)


def test_an_array_of_negative_size_is_refused_before_it_is_read():
    class Endless(io.BytesIO):
        def read(self, size=-1):
            assert size is not None
            assert size >= 0
            return super().read(size)

    with pytest.raises(FmnistError, match="declares -784 bytes"):
        read_array("a.npy", Endless(npy(HEADERS["a negative size"], IMAGES.tobytes())), 10**6)
