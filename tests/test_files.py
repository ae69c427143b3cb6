"""Files: atomic writes, bounded reads, locks."""

import errno
import os
import subprocess
import sys

import pytest

from fmnist import files
from fmnist.errors import FmnistError
from fmnist.files import lock_folder, read_bounded, write_atomic


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    return path


def test_a_write_replaces_the_file(path):
    write_atomic(path, b"after")
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_pieces_are_written_like_the_whole(path):
    write_atomic(path, (piece for piece in (b"af", b"", b"ter")))
    assert path.read_bytes() == b"after"


def test_a_failure_between_the_pieces_keeps_the_file(path):
    def pieces():
        yield b"af"
        raise FmnistError("no more")

    with pytest.raises(FmnistError, match="no more"):
        write_atomic(path, pieces())
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["x" * 255, "\N{JEANS}" * 63], ids=["ASCII", "four bytes each"])
def test_a_name_as_long_as_file_systems_allow(tmp_path, name):
    write_atomic(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_keeps_the_file_and_names_it(path, monkeypatch, call):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, b"after")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_an_interrupt_after_the_replace_stays_an_interrupt(path, monkeypatch):
    real = os.replace

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"after"


def test_permissions_follow_the_umask(path):
    before = os.umask(0o077)
    try:
        write_atomic(path, b"after")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def replace_by(make):
    return lambda path: (path.unlink(), make(path))


def test_temporary_files_are_removed_even_if_one_is_gone_already(tmp_path, monkeypatch):
    names = [".config.json.0a1b2c3d", ".history.csv.0a1b2c3e", "config.json", ".hidden"]
    for name in names:
        (tmp_path / name).write_text("")
    real = files.is_temporary_file

    def vanish(path):
        """Another process removes the first file after it was listed."""
        (tmp_path / names[0]).unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(files, "is_temporary_file", vanish)
    files.remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "config.json"]


NOT_READABLE = {
    "missing": (lambda path: path.unlink(), "file is missing; retry"),
    "a folder": (replace_by(os.mkdir), "file is a folder; expected a regular file, so retry"),
    "a pipe": (replace_by(os.mkfifo), "file is a pipe or device; expected a regular file, so retry"),
    "a link": (
        replace_by(lambda path: path.symlink_to("/etc/passwd")),
        r"file is a symbolic link; expected .* copy its folder with links resolved \(`cp -rL`\)",
    ),
    "too large": (
        lambda path: os.truncate(path, 10**12),
        "has 1,000,000,000,000 bytes; expected at most 100",
    ),
}


@pytest.mark.parametrize("case", NOT_READABLE)
def test_only_regular_files_of_bounded_size_are_read(path, case):
    change, expected = NOT_READABLE[case]
    change(path)
    with pytest.raises(FmnistError, match=expected):
        read_bounded(path, 100, "retry")


def test_links_are_followed_on_request(path):
    link = path.with_name("link")
    link.symlink_to(path)
    assert read_bounded(link, 100, "retry", follow_links=True) == b"before"


def test_an_unreadable_file_is_named(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.Path, "open", refuse)
    with pytest.raises(FmnistError, match=r"file cannot be read \(Permission denied\); retry"):
        read_bounded(path, 100, "retry")


def test_a_folder_has_one_lock(tmp_path):
    with lock_folder(tmp_path):
        with pytest.raises(FmnistError, match="is in use by another fmnist process; wait"), lock_folder(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    script = (
        "import pathlib, sys, time\nfrom fmnist.files import lock_folder\n"
        "with lock_folder(pathlib.Path(sys.argv[1])):\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(FmnistError, match="is in use"), lock_folder(tmp_path):
            pass
        process.kill()
    with lock_folder(tmp_path):
        pass


def test_a_child_process_shares_the_lock_of_its_parent(tmp_path, monkeypatch):
    """The export under JAX is done by a child process."""
    with lock_folder(tmp_path) as descriptor:
        assert os.fstat(descriptor)
        monkeypatch.setenv(files.LOCKED_FOLDER, str(tmp_path))
        with lock_folder(tmp_path) as shared:
            assert shared is None
        other = tmp_path / "other"
        other.mkdir()
        with lock_folder(other) as own:
            assert own is not None


def test_a_file_system_without_locks_is_accepted_with_a_warning(tmp_path, monkeypatch, caplog):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked" in caplog.text
