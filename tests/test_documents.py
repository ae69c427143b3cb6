"""Documents: strict schemas for JSON files. Each test holds one thing that msgspec or json alone would let pass."""

import json
from typing import Annotated

import pytest
from msgspec import Meta
from msgspec.structs import replace

from fmnist.documents import FORMAT_VERSION, Document, read_document, read_json, write_document, write_json
from fmnist.errors import FmnistError


class Inner(Document, frozen=True, kw_only=True):
    count: Annotated[int, Meta(ge=0, le=9)]


class Example(Document, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[a-z]+\Z")] = "abc"
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.5
    inner: Inner = Inner(count=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "example.json"


def read(path, text):
    path.write_text(text)
    return read_document(path, Example, "write it again")


def test_a_document_survives_its_file(path):
    document = Example(name="x", ratio=1, inner=Inner(count=3))
    write_document(path, document)
    assert read_document(path, Example, "") == document
    assert isinstance(document.ratio, float)


def test_a_constructor_call_is_checked():
    with pytest.raises(FmnistError, match=r"ratio is 2\.0; expected float <= 1"):
        Example(ratio=2.0)


def test_a_changed_copy_is_checked():
    with pytest.raises(FmnistError, match=r"ratio is -1; expected float >= 0"):
        replace(Example(), ratio=-1)


def test_a_nested_document_is_checked():
    with pytest.raises(FmnistError, match=r"inner is .*expected int <= 9 at \.count"):
        Example(inner={"count": 10})


INVALID = {
    "an unknown field": ('{"color": 1}', "unknown field color"),
    "an unknown field inside": ('{"inner": {"count": 1, "color": 1}}', r"unknown field color - at \$.inner"),
    "a missing field": ('{"inner": {}}', "missing required field count"),
    "a boolean for a number": ('{"inner": {"count": true}}', "Expected int, got bool"),
    "a float for an integer": ('{"inner": {"count": 1.0}}', "Expected int, got float"),
    "text for a number": ('{"ratio": "0.5"}', "Expected float, got str"),
    "a name and a newline": ('{"name": "abc\\n"}', "matching regex"),
    "NaN": ('{"ratio": NaN}', "NaN is not a JSON number"),
    "infinity": ('{"ratio": Infinity}', "Infinity is not a JSON number"),
    "a float that overflows": ('{"ratio": 1e999}', "Expected float <= 1"),
    "an integer of 400 digits": ('{"ratio": 1' + 400 * "0" + "}", "example.json is damaged"),
    "the same key twice": ('{"name": "a", "name": "b"}', "the same key twice"),
    "the same key twice inside": ('{"inner": {"count": 1, "count": 2}}', "the same key twice"),
    "deep nesting": ('{"a":' * 10**5, "nested too deeply"),
    "a long integer": ('{"a": ' + "9" * 10**4 + "}", "example.json is damaged"),
    "half a document": ('{"name": "a', "example.json is damaged"),
    "a list": ("[]", "no JSON object"),
    "nothing": ("", "example.json is damaged"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_file_is_refused_in_one_line(path, case):
    text, expected = INVALID[case]
    with pytest.raises(FmnistError, match=expected) as caught:
        read(path, text)
    assert str(caught.value).startswith(f"{path} is damaged")
    assert str(caught.value).endswith("; write it again")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(b"\xff{}")
    with pytest.raises(FmnistError, match="is damaged"):
        read_json(path, "")


def test_nan_is_never_written(path):
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        write_json(path, {"x": float("nan")})
    assert not path.exists()


def test_json_is_readable_by_people(path):
    write_document(path, Example())
    assert path.read_text() == json.dumps(Example().to_json(), indent=2) + "\n"


class Versioned(Document, frozen=True, kw_only=True):
    format_version: int = FORMAT_VERSION
    count: int


@pytest.mark.parametrize("version", [1, FORMAT_VERSION + 1, str(FORMAT_VERSION), True, None, float(FORMAT_VERSION)])
def test_another_format_version_is_named_before_anything_else(path, version):
    path.write_text(json.dumps({"format_version": version, "of": "another program"}))
    with pytest.raises(FmnistError, match=rf"has format version {version}; this fmnist reads version {FORMAT_VERSION}"):
        read_document(path, Versioned, "")


def test_this_format_version_is_read(path):
    write_document(path, Versioned(count=3))
    assert read_document(path, Versioned, "") == Versioned(count=3)
