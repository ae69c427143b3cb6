"""Compare the weights of two runs bit for bit: python scripts/compare_weights.py FIRST SECOND.

A refactoring that changes nothing leaves the weights of a training unchanged. Tensors may have been renamed, so those
without a counterpart of the same name are matched by order and shape. The exit code is 0 if all arrays are identical, 1
if one differs, and 2 if a file cannot be read.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

Tensors = dict[str, dict[str, Any]]
"""Name to `dtype`, `shape` and `data` (the bytes), in the order of the file."""


def main() -> None:
    """Compare, and print the number of arrays and the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("first", type=Path, help="safetensors file, or a run folder with weights.safetensors")
    parser.add_argument("second", type=Path, help="the same")
    arguments = parser.parse_args()
    try:
        first, second = read_tensors(arguments.first), read_tensors(arguments.second)
    except (OSError, SafetensorError) as error:
        parser.error(f"{error}; expected a safetensors file, or a run folder with weights.safetensors")
    difference = find_difference(first, second)
    print(f"{len(first)} arrays: {difference or 'identical'}")
    sys.exit(1 if difference else 0)


def read_tensors(path: Path) -> Tensors:
    """Read a safetensors file, or that of a run folder.

    Raises:
        OSError: if the file cannot be read.
        SafetensorError: if it is not in the safetensors format.
    """
    file = path / "weights.safetensors" if path.is_dir() else path
    return dict(deserialize(file.read_bytes()))


def find_difference(first: Tensors, second: Tensors) -> str | None:
    """Describe the first difference between the tensors of two files. Returns None if all are identical.

    Bytes are compared, not numbers: 0.0 differs from -0.0, and NaN equals NaN.
    """
    pairs = match_names(first, second)
    for name, other in pairs.items():
        label = name if name == other else f"{name} (second: {other})"
        if other is None:
            return f"{name} of shape {first[name]['shape']} has no counterpart in the second file"
        for key in ("dtype", "shape"):
            if first[name][key] != second[other][key]:
                return f"{label} has {key} {first[name][key]} in the first file and {second[other][key]} in the second"
        if first[name]["data"] != second[other]["data"]:
            return f"{label} has other values in the second file"
    if unmatched := [name for name in second if name not in pairs.values()]:
        return f"{unmatched[0]} of shape {second[unmatched[0]]['shape']} has no counterpart in the first file"
    return None


def match_names(first: Tensors, second: Tensors) -> dict[str, str | None]:
    """Match each name in the first file to one in the second, or to None.

    A name that is not in the second file is matched to the next unmatched one there with the same shape.
    """
    only_second = [name for name in second if name not in first]
    pairs: dict[str, str | None] = {}
    for name, tensor in first.items():
        same_shape = (other for other in only_second if second[other]["shape"] == tensor["shape"])
        pairs[name] = name if name in second else next(same_shape, None)
        only_second = [other for other in only_second if other != pairs[name]]
    return pairs


if __name__ == "__main__":
    main()
