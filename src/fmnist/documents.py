"""JSON documents with a strict schema.

A `Document` is checked wherever it comes from: a constructor call, a changed copy, or a file. msgspec itself checks
only what it decodes.
"""

import json
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import structs

from fmnist.errors import FmnistError
from fmnist.files import MAX_DOCUMENT_BYTES, read_bounded, write_atomic

FORMAT_VERSION = 2
"""Version of the run folder's format. It increases when older programs could no longer read the files correctly."""


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all documents: immutable, no unknown fields, every field of its declared type and within its bounds."""

    def __post_init__(self) -> None:
        """Check each field and store it in its declared type, so that 1 becomes 1.0 where a float is declared.

        Raises:
            FmnistError: naming the first field that does not fit, its value and what was expected.
        """
        for name, hint in _field_types(type(self)).items():
            value = getattr(self, name)
            try:
                structs.force_setattr(self, name, msgspec.convert(value, hint))
            except msgspec.ValidationError as error:
                raise FmnistError(f"{name} is {str(value)[:100]}; {_expectation(hint, error)}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


DocumentType = TypeVar("DocumentType", bound=Document)


@cache
def _field_types(document_type: type[Document]) -> dict[str, Any]:
    hints = typing.get_type_hints(document_type, include_extras=True)
    return {name: hints[name] for name in document_type.__struct_fields__}


def _expectation(hint: Any, error: msgspec.ValidationError) -> str:
    """Turn msgspec's message into the second half of a sentence."""
    if get_origin(hint) is Literal:
        # `custom` stands for an object in Python, and is set by whoever passes one
        return f"expected one of {', '.join(name for name in get_args(hint) if name != 'custom')}"
    return str(error).replace("Expected", "expected", 1).replace("`", "").replace(" - at $", " at ")


def parse_document(path: Path, values: dict[str, Any], document_type: type[DocumentType], hint: str) -> DocumentType:
    """Convert the values of a JSON object to a document.

    Args:
        path: where the values come from, for the error message.
        values: as `read_json` returns them.
        document_type: the schema.
        hint: what to do if the values do not fit.

    Raises:
        FmnistError: if the format version differs, or a field is missing, unknown, of another type or out of bounds.
    """
    if "format_version" in document_type.__struct_fields__:
        check_version(path, values.get("format_version"))
    try:
        return msgspec.convert(values, document_type)
    except (msgspec.ValidationError, FmnistError) as error:
        raise FmnistError(f"{path} is damaged ({str(error).replace('`', '')[:300]}); {hint}") from error


def check_version(path: Path, version: Any) -> None:
    """Raise an `FmnistError` unless a file was written in this version of the format."""
    if type(version) is not int or version != FORMAT_VERSION:
        raise FmnistError(
            f"{path} has format version {str(version)[:40]}; this fmnist reads version {FORMAT_VERSION}. "
            "Use the fmnist that wrote it, or train again"
        )


def read_document(path: Path, document_type: type[DocumentType], hint: str) -> DocumentType:
    """Read a JSON file as a document. Arguments and errors as in `parse_document` and `read_json`."""
    return parse_document(path, read_json(path, hint), document_type, hint)


def write_document(path: Path, document: Document) -> None:
    """Write a document as indented JSON, atomically."""
    write_json(path, document.to_json())


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """Read a JSON object from a file of at most `MAX_DOCUMENT_BYTES`.

    Standard JSON only: NaN and infinities are refused, and so are duplicate keys, because programs differ in which of
    them counts.

    Raises:
        FmnistError: naming the file and the problem.
    """
    content = read_bounded(path, MAX_DOCUMENT_BYTES, hint)
    try:
        values = json.loads(content.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise FmnistError(f"{path} is damaged (nested too deeply); {hint}") from error
    except ValueError as error:
        raise FmnistError(f"{path} is damaged ({error}); {hint}") from error
    if not isinstance(values, dict):
        raise FmnistError(f"{path} is damaged (no JSON object); {hint}")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has the same key twice")
    return values


def write_json(path: Path, value: Any) -> None:
    """Write plain values as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
