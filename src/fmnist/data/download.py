"""Where Fashion-MNIST can come from, and how it gets to where Keras looks.

Each source is tried in turn; nothing is believed but the SHA-256 of the decompressed bytes.
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

from fmnist import atomic
from fmnist.data import formats as idx
from fmnist.errors import FmnistError

log = logging.getLogger("fmnist")

FILES: dict[str, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""The four files of the data set, and the SHA-256 of each once decompressed."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
TIMEOUT_SECONDS = 10
"""Without progress, a download is given up after this long."""


def keras_folder() -> Path:
    """Give the folder in which `keras.datasets.fashion_mnist.load_data()` looks, by Keras' own rules."""
    base = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("%s cannot be made (%s)", base, error.strerror)
    if not os.access(base, os.W_OK):
        base = Path("/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir(), ".keras")
    return base / "datasets" / "fashion-mnist"


def read_verified(folder: Path) -> dict[str, bytes]:
    """Read the four files of a folder and hold them against the known hashes.

    Returns:
        File name (without `.gz`) to decompressed bytes.

    Raises:
        FmnistError: naming the first file that is missing, damaged or not Fashion-MNIST.
    """
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except FileNotFoundError as error:
        raise FmnistError(f"{folder} is not there") from error
    except OSError as error:
        raise FmnistError(f"{folder} cannot be entered ({error.strerror})") from error
    if not is_folder:
        raise FmnistError(f"{folder} is no folder")
    return {name: _read_one(folder, name) for name in FILES}


def _read_one(folder: Path, name: str) -> bytes:
    path = folder / f"{name}.gz"
    content = idx.read(path)
    if idx.sha256(content) != FILES[name]:
        raise idx.DamagedFileError(
            f"{path} is not Fashion-MNIST's {name} (its SHA-256 differs; MNIST digits have the same form)"
        )
    return content


NewFolder = Callable[[], Path]
"""Makes an empty folder that is gone when the data has been loaded."""


def _in_keras_cache(_: NewFolder) -> Path:
    return keras_folder()


def _in_debian_folder(_: NewFolder) -> Path:
    return DEBIAN_FOLDER


def _download_as_keras_does(new_folder: NewFolder) -> Path:
    import pooch
    import requests

    # Only the errors that it raises are wanted, not its own report of each file.
    pooch.get_logger().setLevel("ERROR")
    folder = new_folder()
    try:
        for name in FILES:
            log.info("downloading %s.gz", name)
            pooch.retrieve(
                f"{KERAS_URL}/{name}.gz",
                known_hash=None,
                fname=f"{name}.gz",
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS),
            )
    except requests.Timeout as error:
        raise FmnistError(f"no answer within {TIMEOUT_SECONDS} s") from error
    except requests.ConnectionError as error:
        raise FmnistError("no connection to Keras' host") from error
    except requests.RequestException as error:
        raise FmnistError(f"Keras' host refused ({error})") from error
    return folder


def _unpack_debian_package(new_folder: NewFolder) -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FmnistError("no apt-get on this machine")
    private = new_folder()
    # apt drops to a user of its own to download; the folder must let that user in.
    private.chmod(0o755)
    for folder in ("lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True)
    quick = ["-qq", "-o", f"Acquire::http::Timeout={TIMEOUT_SECONDS}", "-o", "Acquire::Retries=0"]
    own_lists = ["-o", f"Dir::State::Lists={private}/lists", "-o", f"Dir::Cache={private}/cache"]
    log.info("fetching the Debian package %s", DEBIAN_PACKAGE)
    try:
        try:
            _run(["apt-get", *quick, "download", DEBIAN_PACKAGE], private)
        except FmnistError:
            _run(["apt-get", *quick, *own_lists, "update"], private)
            _run(["apt-get", *quick, *own_lists, "download", DEBIAN_PACKAGE], private)
        (package,) = private.glob(f"{DEBIAN_PACKAGE}_*.deb")
        _run(["dpkg-deb", "-x", str(package), str(private / "root")], private)
    except ValueError as error:
        raise FmnistError(f"apt-get gave no package {DEBIAN_PACKAGE}") from error
    return private / "root" / DEBIAN_FOLDER.relative_to("/")


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=600, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FmnistError(f"{command[0]} took longer than 10 minutes") from error
    if done.returncode != 0:
        complaint = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise FmnistError(f"{command[0]} failed: {complaint}")


SOURCES: dict[str, Callable[[NewFolder], Path]] = {
    "Keras' cache": _in_keras_cache,
    "Debian's folder": _in_debian_folder,
    "Keras' download": _download_as_keras_does,
    "Debian's package": _unpack_debian_package,
}
"""In the order in which they are tried: name to a function that gives the files' folder."""


def load_verified() -> tuple[dict[str, bytes], str]:
    """Get the four files from the first source that holds them intact, and leave them in Keras' cache.

    A file in the cache that is damaged or foreign is set aside under a name ending in `.damaged`.

    Returns:
        File name to decompressed bytes, and the name of the source.

    Raises:
        FmnistError: if no source has them; the message lists what was tried, and the mend.
    """
    tried = []
    with ExitStack() as stack:

        def new_folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fmnist-")))

        for source, locate in SOURCES.items():
            try:
                folder = locate(new_folder)
                contents = read_verified(folder)
            except FmnistError as error:
                tried.append(f"{source} ({error})")
                if locate is _in_keras_cache:
                    _set_damaged_files_aside()
                continue
            if locate is not _in_keras_cache:
                _fill_keras_cache(folder)
            return contents, source
    raise FmnistError(
        f"Fashion-MNIST was not found. Tried: {'; '.join(tried)}. "
        f"Put its four .gz files into {keras_folder()}, or name a folder that has them with --data or FMNIST_DATA"
    )


def _set_damaged_files_aside() -> None:
    folder = keras_folder()
    for name in FILES:
        path = folder / f"{name}.gz"
        if not os.path.lexists(path):
            continue
        try:
            _read_one(folder, name)
        except idx.DamagedFileError as error:
            log.warning("%s; it is set aside as %s.damaged", error, path.name)
            try:
                os.replace(path, _free_name(path))
            except OSError as failure:
                log.warning("%s cannot be set aside (%s); it is not used", path, failure.strerror)
        except FmnistError as error:
            log.warning("%s; it is left as it is, and not used", error)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def _fill_keras_cache(folder: Path) -> None:
    """Copy what is missing, each file in one atomic step; a cache that cannot be written is no failure."""
    cache = keras_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            target = cache / f"{name}.gz"
            if not os.path.lexists(target):
                atomic.write(target, (folder / target.name).read_bytes())
    except OSError as error:
        log.warning("Keras' cache %s cannot be filled (%s); the data is used all the same", cache, error.strerror)
