"""What an ONNX file may hold, read from its bytes alone.

ONNX Runtime opens files that a graph names, has operators beyond the standard, and reads a second format. So a file
is first held against tables of what this program's own exports are made of. The package `onnx` could take a file
apart as well, but takes longer to import than all the rest of `fmnist predict` together.
"""

from collections.abc import Iterator

from fmnist.errors import FmnistError

# Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; a field that leads on names its message,
# any other is passed over. What is missing here is refused.
FIELDS: dict[str, dict[int, str]] = {
    # versions, producer, name, documentation and metadata around the one graph
    "model": {**dict.fromkeys((1, 2, 3, 4, 5, 6, 8, 14), ""), 7: "graph"},
    # names, types and metadata around nodes and initializers
    "graph": {**dict.fromkeys((2, 10, 11, 12, 13, 14, 16), ""), 1: "node", 5: "tensor"},
    # inputs, outputs, name, operator, documentation, metadata; the domain; attributes
    "node": {**dict.fromkeys((1, 2, 3, 4, 6, 9), ""), 7: "domain", 5: "attribute"},
    # numbers, texts and lists of them; one tensor or several
    "attribute": {**dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 20), ""), 5: "tensor", 10: "tensor"},
    # dimensions, type, name, and values in one of several forms, all inside
    "tensor": dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16), ""),
}
REFUSED = {
    ("model", 20): "training steps",
    ("model", 25): "functions of its own",
    ("graph", 15): "a sparse tensor",
    ("attribute", 6): "a graph within a graph",
    ("attribute", 11): "a graph within a graph",
    ("attribute", 22): "a sparse tensor",
    ("attribute", 23): "a sparse tensor",
    ("tensor", 13): "a tensor whose values are in another file",
    ("tensor", 14): "a tensor whose values may be in another file",
}
"""The words for what is known and not wanted."""
STANDARD_DOMAINS = {b"", b"ai.onnx"}


def check(content: bytes, name: str) -> None:
    """Refuse a graph that names other files, holds more than nodes and tensors, or leaves the standard operators.

    Args:
        content: an ONNX file.
        name: what to call it in the message.

    Raises:
        FmnistError: if it is refused, or is no ONNX file.
    """
    try:
        _check(memoryview(content), "model")
    except _RefusedError as error:
        raise FmnistError(
            f"the graph of {name} holds {error}; only plain graphs, as `fmnist export` writes them, are opened"
        ) from error
    except (IndexError, ValueError) as error:
        raise FmnistError(f"the graph of {name} is damaged or no ONNX file; `fmnist export` writes one") from error


class _RefusedError(Exception):
    """Says what was found."""


def _check(message: memoryview, kind: str) -> None:
    for field, value in _fields(message):
        if field not in FIELDS[kind]:
            raise _RefusedError(REFUSED.get((kind, field), f"an unknown part ({kind} field {field})"))
        inner = FIELDS[kind][field]
        if inner == "domain" and bytes(value) not in STANDARD_DOMAINS:
            raise _RefusedError(f"an operator that is not of the standard (domain {bytes(value)[:40]!r})")
        if inner in FIELDS:
            _check(value, inner)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Take a message of Protocol Buffers apart: field numbers, and the bytes of values that have a length.

    Readers differ in what they make of numbers that are too long: such a tag is no field that `FIELDS` knows, and such
    a length leads beyond the end, so nothing that is passed here means another thing there.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 2:
            length, position = _varint(message, position)
            end = position + length
        elif wire_type == 0:
            _, end = _varint(message, position)
        elif wire_type in {1, 5}:
            end = position + (8 if wire_type == 1 else 4)
        else:
            raise ValueError("no such wire type")
        if end > len(message):
            raise ValueError("beyond the end")
        yield field, message[position:end] if wire_type == 2 else message[:0]
        position = end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("a number without an end")
