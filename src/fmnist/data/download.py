"""Find or download Fashion-MNIST, verify it, and store it where Keras looks for it.

The sources are tried in order. Files are verified by the SHA-256 of their decompressed bytes: mirrors compress the same
content differently, so the hash of a `.gz` file proves nothing.
"""

import itertools
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from fmnist.data.formats import GZIP, DamagedFileError, read_idx, read_start
from fmnist.data.network import open_url
from fmnist.errors import FmnistError, one_line
from fmnist.files import sha256, write_atomic

log = logging.getLogger("fmnist")

FILES: dict[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""The four files of the data set with the SHA-256 of their decompressed bytes."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
TIMEOUT_SECONDS = 10
"""A download that receives nothing for this long is given up."""
APT_TIMEOUT_SECONDS = 600
"""Limit for one apt-get or dpkg-deb command; the package has 31 MB."""
CHUNK_BYTES = 2**16


def keras_folder() -> Path:
    """Return the folder where `keras.datasets.fashion_mnist.load_data()` looks, following Keras' rules.

    Nothing is created: who only looks for the data leaves no folder behind.
    """
    base = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
    has_no_home = base.parts[:1] == ("~",)
    if has_no_home or not _can_be_written(base):
        base = Path("/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir(), ".keras")
    return base / "datasets" / "fashion-mnist"


def _can_be_written(folder: Path) -> bool:
    """Check whether files can be written to a folder, which may still have to be created."""
    existing = next((str(path) for path in (folder, *folder.parents) if os.path.lexists(path)), os.curdir)
    return os.path.isdir(existing) and os.access(existing, os.W_OK)


def read_verified(folder: Path) -> dict[str, bytes]:
    """Read the four files of a folder and check them against the known hashes.

    Returns:
        File names (without `.gz`) with their decompressed bytes.

    Raises:
        FmnistError: naming the first file that is missing, damaged or not Fashion-MNIST.
    """
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError as error:
        raise FmnistError(f"{folder} does not exist") from error
    except OSError as error:
        raise FmnistError(f"{folder} cannot be read ({error.strerror})") from error
    if not is_folder:
        raise FmnistError(f"{folder} is not a folder")
    return {name: _read_verified_file(folder, name) for name in FILES}


def _read_verified_file(folder: Path, name: str) -> bytes:
    path = folder / f"{name}.gz"
    content = read_idx(path)
    if sha256(content) != FILES[name]:
        raise DamagedFileError(
            f"{path} is not Fashion-MNIST's {name} (its SHA-256 differs; MNIST digits have the same format)"
        )
    if not read_start(path).startswith(GZIP):
        raise DamagedFileError(f"{path} is not a gzip file, so Keras cannot read it")
    return content


NewFolder = Callable[[], Path]
"""Creates an empty temporary folder, which is removed when the data has been loaded."""


def _in_keras_cache(_: NewFolder) -> Path:
    return keras_folder()


def _in_debian_folder(_: NewFolder) -> Path:
    return DEBIAN_FOLDER


def _download_as_keras_does(new_folder: NewFolder) -> Path:
    folder = new_folder()
    for name in FILES:
        log.info("downloading %s.gz", name)
        with (
            open_url(f"{KERAS_URL}/{name}.gz", TIMEOUT_SECONDS) as response,
            (folder / f"{name}.gz").open("wb") as file,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
    return folder


def _unpack_debian_package(new_folder: NewFolder) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FmnistError("no apt-get on this machine")
    folder = new_folder()
    # apt-get downloads as the user _apt, who needs access to the folder.
    folder.chmod(0o755)
    for subfolder in ("lists/partial", "cache/archives/partial"):
        (folder / subfolder).mkdir(parents=True)
    fail_fast = ["-qq", "-o", f"Acquire::http::Timeout={TIMEOUT_SECONDS}", "-o", "Acquire::Retries=0"]
    own_lists = ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    log.info("downloading the Debian package %s", DEBIAN_PACKAGE)
    try:
        try:
            _run(["apt-get", *fail_fast, "download", DEBIAN_PACKAGE], folder)
        except FmnistError:
            _run(["apt-get", *fail_fast, *own_lists, "update"], folder)
            _run(["apt-get", *fail_fast, *own_lists, "download", DEBIAN_PACKAGE], folder)
        (package,) = folder.glob(f"{DEBIAN_PACKAGE}_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(folder / "root")], folder)
    except ValueError as error:
        raise FmnistError(f"apt-get downloaded no package {DEBIAN_PACKAGE}") from error
    return folder / "root" / DEBIAN_FOLDER.relative_to("/")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=APT_TIMEOUT_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FmnistError(f"{command[0]} took longer than {APT_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        first_line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise FmnistError(f"{command[0]} failed: {first_line}")


SOURCES: dict[str, Callable[[NewFolder], Path]] = {
    "Keras' cache": _in_keras_cache,
    "Debian's folder": _in_debian_folder,
    "Keras' download": _download_as_keras_does,
    "Debian's package": _unpack_debian_package,
}
"""Name of each source, and a function that returns the folder with its files. In the order in which they are tried."""


def load_verified() -> tuple[dict[str, bytes], str]:
    """Load the four files from the first source that has them intact, and store them in Keras' cache.

    A file in the cache that is damaged, or part of another data set, is renamed to a name ending in `.damaged`.

    Returns:
        File names (without `.gz`) with their decompressed bytes, and the name of the source.

    Raises:
        FmnistError: if no source has them. The message lists what was tried and what to do.
    """
    tried = []
    with ExitStack() as stack:

        def new_folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fmnist-")))

        for source, locate in SOURCES.items():
            try:
                folder = locate(new_folder)
                contents = read_verified(folder)
            except (FmnistError, OSError) as error:  # one source's failure is not the end
                tried.append(f"{source} ({one_line(error)})")
                if locate is _in_keras_cache:
                    _rename_damaged_files()
                continue
            if locate is not _in_keras_cache:
                _fill_keras_cache(folder)
            return contents, source
    raise FmnistError(
        f"Fashion-MNIST was not found. Tried: {'; '.join(tried)}. "
        f"Put its four .gz files into {keras_folder()}, or name a folder that has them with --data or FMNIST_DATA"
    )


def _rename_damaged_files() -> None:
    folder = keras_folder()
    for name in FILES:
        path = folder / f"{name}.gz"
        if not os.path.lexists(path):
            continue
        try:
            _read_verified_file(folder, name)
        except DamagedFileError as error:
            new_path = _unused_path(path)
            try:
                os.replace(path, new_path)
            except OSError as failure:
                log.warning("%s is not used and cannot be renamed (%s): %s", path, failure.strerror, error)
            else:
                log.warning("%s is renamed to %s: %s", path, new_path.name, error)
        except FmnistError as error:
            log.warning("%s is not used: %s", path, error)


def _unused_path(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def _fill_keras_cache(folder: Path) -> None:
    """Copy the missing files, each in one atomic step. Failing to write the cache is only a warning."""
    cache = keras_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            target = cache / f"{name}.gz"
            if not os.path.lexists(target):
                write_atomic(target, (folder / target.name).read_bytes())
    except OSError as error:
        log.warning("Keras' cache %s cannot be written (%s); the data is used without it", cache, error.strerror)
