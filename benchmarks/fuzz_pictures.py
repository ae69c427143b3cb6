"""Classify mutated picture files, and check that every one is answered or refused in one line: fuzz_pictures.py N.

A third of the files have mutated EXIF data and intact pixels: all of these must be answered. A third are PNG files with
chunks that were added, removed, repeated or changed. A third are files of all formats with changes in their first
bytes, or cut. An intact picture among them must always get the same prediction.
"""

import argparse
import io
import json
import os
import re
import struct
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import describe_provenance

from fmnist.documents import write_json
from fmnist.errors import FmnistError
from fmnist.inference.classifier import Classifier

INTACT_EVERY = 50
"""Files between two intact pictures."""
HEADER_BYTES = 200
"""First bytes of a file, where its header is."""
NUM_EXAMPLES = 5
LIBTIFF_ERROR = re.compile(r"(CCITT|Fax|JPEG|LZW|PackBits|TIFF|ZIP|ZSTD)\w*: ")
"""The line that libtiff prints for damaged pixels, without the name of the file. Pillow cannot turn it off."""
EXIF_TAGS = (0x010F, 0x0112, 0x011A, 0x011B, 0x0128, 0x0132, 0x8769, 0x8825, 0x9286, 0xA005)
"""Maker, orientation, resolution and its unit, date, the EXIF and GPS directories, comment, interoperability."""
PNG_TYPES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tRNS", b"PLTE", b"acTL",
             b"fcTL", b"fdAT", b"IDAT", b"IHDR", b"IEND", b"aBCd", b"ABCD")  # fmt: skip


def draw_scene() -> Image.Image:
    """Draw something like trousers on a plain ground, which is segmented quickly."""
    scene = Image.new("RGB", (90, 120), (250, 250, 250))
    scene.paste((30, 30, 80), (30, 15, 60, 105))
    return scene


def encode(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the file of a picture."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def mutated_exif(rng: np.random.Generator) -> bytes:
    """Return EXIF data with tags, types, counts and values that may be wrong, and some wrong bytes."""
    order = "<" if rng.random() < 0.5 else ">"
    num_entries = int(rng.integers(0, 12))
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    data += struct.pack(f"{order}H", num_entries if rng.random() < 0.9 else int(rng.integers(0, 65_536)))
    for _ in range(num_entries):
        count = int(rng.choice([0, 1, 2, 4, 1000, 2**31, 2**32 - 1], p=[0.05, 0.6, 0.1, 0.1, 0.05, 0.05, 0.05]))
        kind = int(rng.integers(0, 14))
        data += struct.pack(f"{order}HHL", int(rng.choice(EXIF_TAGS)), kind, count) + rng.bytes(4)
    mutated = bytearray(data + struct.pack(f"{order}L", int(rng.choice([0, 8, 2**31]))) + rng.bytes(60))
    for position in rng.integers(0, len(mutated), int(rng.integers(0, 4))):
        mutated[position] = rng.integers(0, 256)
    return (b"Exif\0\0" if rng.random() < 0.97 else b"") + bytes(mutated)


def with_exif(rng: np.random.Generator, intact: dict[str, bytes]) -> bytes:
    """Return a JPEG, PNG or WebP with mutated EXIF data and intact pixels."""
    exif = mutated_exif(rng)
    match rng.integers(0, 3):
        case 0:
            segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
            return intact["JPEG"][:2] + segment * int(rng.integers(1, 3)) + intact["JPEG"][2:]
        case 1:
            return intact["PNG"][:33] + chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) + intact["PNG"][33:]
        case _:
            return encode(draw_scene(), "WEBP", exif=exif, method=0)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def with_chunks(rng: np.random.Generator, intact: dict[str, bytes]) -> bytes:
    """Return a PNG with mutated chunks."""
    content = intact["PNG"]
    chunks, position = [], 8
    while position < len(content):
        (length,) = struct.unpack_from(">L", content, position)
        chunks.append(content[position : position + length + 12])
        position += length + 12
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(chunks) + 1))
        match rng.integers(0, 5):
            case 0 | 1:
                body = rng.bytes(int(rng.integers(0, 40)))
                body = b"name\0\0" + zlib.compress(bytes(100_000)) if rng.random() < 0.2 else body
                chunks.insert(at, chunk(bytes(rng.choice(PNG_TYPES)), body))
            case 2 if len(chunks) > 1:
                chunks.pop(at % len(chunks))
            case 3:
                chunks.insert(at, chunks[int(rng.integers(0, len(chunks)))])
            case _:
                changed = bytearray(chunks[at % len(chunks)])
                changed[rng.integers(0, len(changed))] = rng.integers(0, 256)
                chunks[at % len(chunks)] = bytes(changed)
    return content[:8] + b"".join(chunks)


def with_header(rng: np.random.Generator, intact: dict[str, bytes]) -> bytes:
    """Return a file of any format with changes in its header, sometimes cut."""
    content = bytearray(intact[str(rng.choice(list(intact)))])
    for position in rng.integers(0, min(HEADER_BYTES, len(content)), int(rng.integers(1, 6))):
        content[position] = rng.integers(0, 256)
    return bytes(content[: int(rng.integers(0, len(content)))] if rng.random() < 0.2 else content)


MUTATIONS = {"EXIF": with_exif, "chunks": with_chunks, "header": with_header}


def fuzz(classifier: Classifier, num_files: int, seed: int = 0) -> dict[str, Any]:
    """Classify mutated files.

    Args:
        classifier: the model.
        num_files: number of files.
        seed: of the mutations.

    Returns:
        The number of files `answered`, `refused` in one line, and `raw_errors` (any other exception), each by mutation;
        `refused_with_intact_pixels`; `intact_harmed`, how often an intact picture got another prediction; `stderr`,
        what decoders printed; and `examples` of raw errors.
    """
    rng = np.random.default_rng(seed)
    formats = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
    intact = {file_format: encode(draw_scene(), file_format) for file_format in formats}
    expected = classifier.classify(intact["PNG"]).to_json()
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("answered", "refused", "raw_errors")}
    examples: list[str] = []
    intact_harmed = 0
    with captured_stderr() as printed, warnings.catch_warnings():
        warnings.simplefilter("always")
        for number in range(num_files):
            name = list(MUTATIONS)[number % len(MUTATIONS)]
            content = MUTATIONS[name](rng, intact)
            try:
                classifier.classify(content).to_json()
                outcome = "answered"
            except FmnistError as error:
                outcome = "raw_errors" if "\n" in str(error) else "refused"
            except Exception as error:
                outcome = "raw_errors"
                examples.append(f"{name} {number}: {type(error).__name__}: {error}")
            counts[outcome][name] += 1
            if number % INTACT_EVERY == 0:
                intact_harmed += classifier.classify(intact["PNG"]).to_json() != expected
    return {
        "num_files": num_files,
        "seed": seed,
        **{name: dict(counter) for name, counter in counts.items()},
        "refused_with_intact_pixels": counts["refused"]["EXIF"],
        "intact_harmed": intact_harmed,
        "stderr": [line for line in printed[0].splitlines() if not LIBTIFF_ERROR.match(line)][:NUM_EXAMPLES],
        "examples": examples[:NUM_EXAMPLES],
    }


@contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collect what is printed to stderr, also by libraries in C. The text is there when the block has ended."""
    printed: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))


def is_clean(result: dict[str, Any]) -> bool:
    """Check that the result of `fuzz` has no fault."""
    faults = ("raw_errors", "refused_with_intact_pixels", "intact_harmed", "stderr")
    return not any(result[name] for name in faults)


def main() -> None:
    """Fuzz, print the result as JSON, and exit with 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("num_files", type=int, nargs="?", default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    result = {**fuzz(Classifier.load(), arguments.num_files, arguments.seed), **describe_provenance()}
    print(json.dumps(result, indent=2))
    if arguments.out:
        write_json(arguments.out, result)
    sys.exit(0 if is_clean(result) else 1)


if __name__ == "__main__":
    main()
