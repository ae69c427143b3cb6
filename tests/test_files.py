"""A file is there whole or not at all."""

import os

import pytest

from fmnist import atomic


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    return path


def test_what_is_written_replaces_what_was_there(path):
    atomic.write(path, b"after")
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there_and_names_the_file(path, monkeypatch, call):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic.write(path, b"after")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_an_interrupt_after_the_replace_stays_an_interrupt(path, monkeypatch):
    real = os.replace

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(path, b"after")
    assert path.read_bytes() == b"after"


def test_permissions_follow_the_umask(path):
    before = os.umask(0o077)
    try:
        atomic.write(path, b"after")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
