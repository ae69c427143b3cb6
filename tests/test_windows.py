"""What differs on Windows, as far as another system can simulate it: encodings, absent modules, branches.

These tests have never been run on Windows.
"""

import builtins
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import write_folder

import fmnist
from fmnist import files
from fmnist.runs.folders import make_run_folder

SAMPLES = Path(__file__).parent.parent / "docs" / "samples"
POSIX_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty")
RESERVED = set('<>:"/\\|?*')


def open_file_only(path, *arguments):
    """Windows refuses to open a folder."""
    if Path(path).is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, *arguments)


@pytest.fixture
def on_windows(monkeypatch):
    """Make `fmnist.files` believe that this is Windows."""
    replaced = {**vars(os), "name": "nt", "open": open_file_only}
    monkeypatch.setattr(files, "os", SimpleNamespace(**replaced))
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform="win32"))
    real_import = builtins.__import__

    def import_without_posix(name, *arguments, **options):
        if name in POSIX_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", import_without_posix)


def test_files_are_written_without_opening_their_folder(on_windows, tmp_path):
    files.write_atomic(tmp_path / "a.json", b"1")
    files.write_atomic(tmp_path / "a.json", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert files.read_bounded(tmp_path / "a.json", 10, "hint") == b"2"


def test_a_folder_is_used_without_a_lock(on_windows, tmp_path):
    with files.lock_folder(tmp_path) as first, files.lock_folder(tmp_path) as second:
        assert first is second is None


def test_names_of_runs_and_files_are_allowed(run_in, small_run):
    names = [make_run_folder("fast").name, make_run_folder("fast").name]
    names += [path.name for path in small_run.folder.iterdir()]
    assert not [name for name in names if RESERVED & set(name) or name.endswith((".", " "))]


@pytest.fixture
def run_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


WITHOUT_POSIX = f"""
import os, signal, sys
for name in {POSIX_MODULES}:
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "sched_getaffinity", "sysconf"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGALRM"):
    delattr(signal, name)
sys.argv = ["fmnist", *sys.argv[1:]]
from fmnist.__main__ import main
main()
"""


@pytest.mark.parametrize("command", [["--help"], ["predict", SAMPLES / "t-shirt.jpg"], ["doctor", "--json"]])
def test_commands_run_without_the_modules_of_posix(command, tmp_path):
    words = [sys.executable, "-c", WITHOUT_POSIX, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "cp932", "ascii"])
def test_no_answer_is_lost_to_the_encoding_of_the_console(encoding, tmp_path):
    """Characters that the console lacks are escaped; boxes of tables become ASCII."""
    shutil.copy(SAMPLES / "trousers.jpg", tmp_path / "\u043f\u0444\xe9\u65e5.jpg")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    words = [sys.executable, "-m", "fmnist", "predict", str(tmp_path), str(tmp_path / "\u0444.jpg")]
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    out, err = (text.decode(encoding) for text in (done.stdout, done.stderr))
    assert "Trouser" in out
    assert ".jpg is missing" in err
    assert "bug" not in err


def test_line_ends_and_separators_of_windows_are_read(small, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_folder(folder, (small.train_images, small.train_labels), (small.test_images, small.test_labels))
    (folder / "labels.txt").write_bytes("".join(f"class {i}\r\n" for i in range(10)).encode())
    dataset = fmnist.load(folder)
    assert dataset.class_names == tuple(f"class {i}" for i in range(10))
    np.testing.assert_array_equal(dataset.test_images, small.test_images)
    assert io.StringIO("a\r\n", newline=None).read() == "a\n"
