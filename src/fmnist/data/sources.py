"""What a path contains: IDX files, arrays, tables or pictures, of which data set and part."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fmnist.data.blocks import Block, data_set_of, kind_of, part_of, words
from fmnist.data.formats import parse_array, read_idx, read_start
from fmnist.data.pictures import has_class_folders, read_class_folders
from fmnist.data.tables import Blocks, NoLabelsError, read_csv, read_npz, read_parquet, read_single_array
from fmnist.errors import FmnistError

log = logging.getLogger("fmnist")

EXPECTED = (
    "four IDX files like train-images-idx3-ubyte.gz, an npz file, csv or parquet files for train and test, or a folder "
    "of pictures for each class"
)
CANONICAL = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
"""Names of the IDX files of MNIST, Fashion-MNIST and KMNIST."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".7z", ".rar"}
"""Suffixes of files that may contain a data set, but are not read."""
READERS: dict[str, Callable[[Path], Blocks]] = {".npz": read_npz, ".csv": read_csv, ".parquet": read_parquet}
NUM_NAMED = 5


def read_blocks(path: Path) -> tuple[Blocks, Path]:
    """Read the images and labels that a path contains.

    Args:
        path: a folder, or one of the files of a data set, which stands for all of them.

    Returns:
        Blocks for `train` and `test`, or one under None if the data has no parts; and the folder that has the files.

    Raises:
        FmnistError: if there is no data, more than one data set, or something that cannot be read.
    """
    if not path.exists():
        raise FmnistError(f"no data folder {path}; expected one with {EXPECTED}")
    path = _file_inside(path)
    folder, chosen = (path, None) if path.is_dir() else (path.parent, path)
    if chosen and _is_data_file(folder) and chosen == _file_inside(folder):
        folder = folder.parent
    entries = [_file_inside(entry) for entry in _visible(folder)]
    arrays = [entry for entry in entries if _is_array_file(entry)]
    if arrays and (chosen is None or chosen in arrays):
        return _read_arrays(folder, _of_one_data_set(folder, arrays, chosen)), folder
    if chosen is None and has_class_folders(folder):
        return read_class_folders(folder), folder
    for suffix, reader in READERS.items():
        files = [entry for entry in entries if _suffix(entry) == suffix and entry.is_file()]
        if files and (chosen is None or chosen in files):
            return _read_tables(_of_one_data_set(folder, files, chosen), reader, chosen), folder
    if chosen is None and (folder / "data").is_dir() and any((folder / "data").glob("*.parquet")):
        return read_blocks(folder / "data")  # as in the repositories of Hugging Face
    if chosen is None and (inner := _only_subfolder(entries)):
        return read_blocks(inner)
    if chosen:
        hint = "unpack it and name the folder" if path.suffix.lower() in ARCHIVES else f"expected {EXPECTED}"
        raise FmnistError(f"{path} is, by its name, no file of a data set; {hint}")
    named = [entry.name for entry in entries][:NUM_NAMED]
    raise FmnistError(f"{path} has {', '.join(named) or 'no files'}; expected {EXPECTED}")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__")))


def _is_data_file(path: Path) -> bool:
    """Check by its name whether a file, or the folder that it was unpacked to, is one of a data set."""
    return _suffix(path) in READERS or _is_array_file(path)


def _file_inside(entry: Path) -> Path:
    """Return the only file in a folder of the file's name: a program has unpacked it "to a folder"."""
    if not (_is_data_file(entry) and entry.is_dir()):
        return entry
    inside = _visible(entry)
    is_unpacked = len(inside) == 1 and inside[0].is_file() and _unpacked_name(inside[0]) == _unpacked_name(entry)
    return inside[0] if is_unpacked else entry


def _unpacked_name(path: Path) -> str:
    return path.stem if path.suffix.lower() in COMPRESSED else path.name


def _only_subfolder(entries: list[Path]) -> Path | None:
    """Return the folder `raw`, where torchvision keeps a data set, or a folder that is alone, as in an archive."""
    folders = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    raw = [folder for folder in folders if folder.name == "raw"]
    return raw[0] if raw else folders[0] if folders and len(entries) == 1 else None


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else path.suffix.lower()


def _is_array_file(path: Path) -> bool:
    """Check by its name whether a file contains the images, or the labels, of one part."""
    has_format = _suffix(path) in {".npy", ".npz"} or any(word.startswith("idx") for word in words(path.name))
    return has_format and kind_of(path.name) is not None and part_of(path.name) in {"train", "test"}


def _of_one_data_set(folder: Path, files: list[Path], chosen: Path | None) -> list[Path]:
    """Return the files that belong to one data set: that of the chosen file, or the only one in the folder."""
    names = sorted({data_set_of(path.name) for path in files})
    if chosen:
        name = data_set_of(chosen.name)
    elif len(names) == 1 or {path.name.removesuffix(".gz") for path in files} >= set(CANONICAL.values()):
        name = names[0]  # the shortest: that of the usual names is empty
    else:
        examples = [next(path.name for path in files if data_set_of(path.name) == each) for each in names]
        raise FmnistError(
            f"{folder} has several data sets: {', '.join(examples[:NUM_NAMED])}; name a file of one of them "
            "instead of the folder"
        )
    return [path for path in files if data_set_of(path.name) == name]


def _read_arrays(folder: Path, files: list[Path]) -> Blocks:
    blocks: Blocks = {}
    for part in ("train", "test"):
        images, labels = (_choose(folder, files, part, kind) for kind in ("images", "labels"))
        blocks[part] = Block(_read_array(images), _read_array(labels), str(images), labels_source=str(labels))
    return blocks


def _choose(folder: Path, files: list[Path], part: str, kind: str) -> Path:
    """Return the file of a part and kind. Where there are copies, a gzip file under its usual name comes first."""
    candidates = [path for path in files if (part_of(path.name), kind_of(path.name)) == (part, kind)]
    name = CANONICAL[part, kind]
    if not candidates:
        beside = "" if data_set_of(files[0].name) == "" else f", which would belong to {files[0].name},"
        raise FmnistError(f"{folder / name}.gz{beside} is missing; restore it or use another folder")
    order = {f"{name}.gz": 0, name: 1}
    return min(candidates, key=lambda path: (path.is_dir(), order.get(path.name, 2), path.name))


def _read_array(path: Path) -> np.ndarray:
    if _suffix(path) in {".npy", ".npz"}:
        read_start(path)  # it is a regular file of bounded size
        return read_single_array(path)
    return parse_array(path, read_idx(path))


def _read_tables(files: list[Path], reader: Callable[[Path], Blocks], chosen: Path | None) -> Blocks:
    """Read the files of one data set, each with one part, a piece of a part, or both parts.

    Beside the chosen file, a table without labels is not used: in competitions these are the images to predict.
    """
    found: dict[str | None, list[Block]] = {}
    parts = {part_of(path.name) for path in files}
    for path in files:
        part = part_of(path.name)
        if part == "validation" and parts > {"validation"}:
            continue
        read_start(path)
        try:
            blocks = reader(path)
        except NoLabelsError:
            if chosen in {None, path}:
                raise
            log.warning("%s is not used: it has images without labels", path)
            continue
        for inner, block in blocks.items():
            found.setdefault(inner or (None if part == "validation" else part), []).append(block)
    if None in found and (len(found[None]) > 1 or len(found) > 1):
        names = ", ".join(path.name for path in files[:NUM_NAMED])
        raise FmnistError(f"{files[0].parent} has {names}; expected the words train and test in the names of two files")
    return {part: _joined(blocks) for part, blocks in found.items()}


def _joined(blocks: list[Block]) -> Block:
    """Join the pieces of a part."""
    if len(blocks) == 1:
        return blocks[0]
    shapes = {(block.images.shape[1:], block.labels.ndim, block.labels.dtype.kind) for block in blocks}
    if len(shapes) > 1:
        raise FmnistError(f"{blocks[0].source} and {blocks[-1].source} have different columns; expected the same")
    images, labels = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("images", "labels"))
    return Block(images, labels, blocks[0].source, blocks[0].class_names)
