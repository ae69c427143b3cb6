"""Check the bytes of an ONNX file before ONNX Runtime opens it.

ONNX Runtime opens other files that a graph names, has operators beyond the ONNX standard, and reads a second file
format. A file is therefore first checked against tables of what `fmnist export` writes. The package `onnx` could parse
it too, but takes longer to import than everything else in `fmnist predict` together.
"""

from collections.abc import Iterator

from fmnist.errors import FmnistError

# Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The value is the type of a field that is
# checked further; "" means that the field is allowed and skipped. All other fields are refused.
ALLOWED_FIELDS: dict[str, dict[int, str]] = {
    # versions, producer, name, documentation, metadata; graph
    "model": {**dict.fromkeys((1, 2, 3, 4, 5, 6, 8, 14), ""), 7: "graph"},
    # names, types, metadata; nodes; initializers
    "graph": {**dict.fromkeys((2, 10, 11, 12, 13, 14, 16), ""), 1: "node", 5: "tensor"},
    # inputs, outputs, name, operator, documentation, metadata; domain; attributes
    "node": {**dict.fromkeys((1, 2, 3, 4, 6, 9), ""), 7: "domain", 5: "attribute"},
    # numbers, strings and lists of them; one tensor; several tensors
    "attribute": {**dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 20), ""), 5: "tensor", 10: "tensor"},
    # dimensions, type, name, values in one of several encodings
    "tensor": dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16), ""),
}
REFUSED_FIELDS = {
    ("model", 20): "training steps",
    ("model", 25): "custom functions",
    ("graph", 15): "a sparse tensor",
    ("attribute", 6): "a subgraph",
    ("attribute", 11): "a subgraph",
    ("attribute", 22): "a sparse tensor",
    ("attribute", 23): "a sparse tensor",
    ("tensor", 13): "a tensor with external data",
    ("tensor", 14): "a tensor with external data",
}
"""Fields of the ONNX standard that are refused, with their names for error messages."""
STANDARD_DOMAINS = {b"", b"ai.onnx"}


EXPORT_HINT = "`fmnist export` writes one"


def check_graph(content: bytes, name: str, hint: str = EXPORT_HINT) -> None:
    """Check that an ONNX file has no external data, only nodes and tensors, and only standard operators.

    Args:
        content: the ONNX file.
        name: the model's name for the error message.
        hint: what to do, for the error message.

    Raises:
        FmnistError: if the file contains anything else, or is not an ONNX file.
    """
    try:
        _check_message(memoryview(content), "model")
    except _RefusedError as error:
        raise FmnistError(f"the graph of {name} contains {error}; expected a plain graph; {hint}") from error
    except (IndexError, ValueError) as error:
        raise FmnistError(f"the graph of {name} is damaged or not an ONNX file; {hint}") from error


class _RefusedError(Exception):
    """The message names what was found."""


def _check_message(message: memoryview, message_type: str) -> None:
    for field, value in _fields(message):
        if field not in ALLOWED_FIELDS[message_type]:
            unknown = f"an unknown field ({message_type} field {field})"
            raise _RefusedError(REFUSED_FIELDS.get((message_type, field), unknown))
        value_type = ALLOWED_FIELDS[message_type][field]
        if value_type == "domain" and bytes(value) not in STANDARD_DOMAINS:
            raise _RefusedError(f"a non-standard operator (domain {bytes(value)[:40]!r})")
        if value_type in ALLOWED_FIELDS:
            _check_message(value, value_type)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Parse a Protocol Buffers message: yield field numbers, with the bytes of length-delimited values.

    Parsers disagree about numbers with too many bits. Here such a tag is not in `ALLOWED_FIELDS`, and such a length
    exceeds the message, so no file that passes means something else to another parser.
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
            raise ValueError("unknown wire type")
        if end > len(message):
            raise ValueError("value exceeds its message")
        yield field, message[position:end] if wire_type == 2 else message[:0]
        position = end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Decode a variable-length integer: return its value and the position after it."""
    value = 0
    for index in range(10):
        byte = message[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("integer of more than 10 bytes")
