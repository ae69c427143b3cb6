"""Carry `make bench-gpu` to a machine without a network: python3 scripts/gpu_bundle.py [--unpack].

Without options, download wheels of what training needs besides JAX and NumPy, and the data set, into `build/gpu`. That
folder travels with the repository. With `--unpack`, which `make bench-gpu` does on the other machine, unpack the wheels
that are missing there, and print the PYTHONPATH. An installed package is never replaced. Only the standard library is
needed, and no pip on the other machine.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BUNDLE = REPOSITORY / "build" / "gpu"
PACKAGES = (
    "absl-py", "contourpy", "cycler", "filelock", "flatbuffers", "fonttools", "h5py", "keras", "kiwisolver",
    "markdown-it-py", "matplotlib", "mdurl", "msgspec", "namex", "onnx", "onnxruntime",
    "optree", "packaging", "pillow", "protobuf", "pygments", "pyparsing", "python-dateutil", "rich", "safetensors",
    "six", "typing-extensions",
)  # fmt: skip
"""What training imports, and what that imports. JAX brings NumPy, SciPy and ml-dtypes."""
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17)] + ["manylinux2014_x86_64"]


def download(python_version: str, names: Sequence[str]) -> None:
    """Download the wheels and the data set, and note the commit. Wheels have the locked versions.

    Args:
        python_version: of the other machine, as `3.12`.
        names: the packages.
    """
    shutil.rmtree(BUNDLE, ignore_errors=True)
    locked = (REPOSITORY / "requirements-dev.txt").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", locked, re.M))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation=cp", f"--python-version={python_version}", f"--dest={BUNDLE / 'packages'}"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    subprocess.run([*command, *(f"{name}=={versions[name]}" for name in names)], check=True)
    copy = "from pathlib import Path; import fmnist; from fmnist.data.dataset import write_folder; "
    copy += f"write_folder(fmnist.load(), Path({str(BUNDLE / 'data')!r}))"
    subprocess.run([sys.executable, "-c", copy], check=True)
    describe = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    (BUNDLE / "commit").write_bytes(subprocess.run(describe, check=True, capture_output=True).stdout)
    size = sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file())
    print(f"{BUNDLE}: {size / 1e6:.0f} MB for Python {python_version} on Linux on x86-64")


def unpack() -> list[Path]:
    """Unpack the wheels of packages that are missing. Returns the folders to import from."""
    site = BUNDLE / "site"
    for path in sorted(BUNDLE.glob("packages/*.whl")):
        if is_compatible(path.stem) and not is_installed(path.stem.split("-")[0]):
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(site)
    return [REPOSITORY / "src", *([site] if site.is_dir() else [])]


def is_installed(name: str) -> bool:
    """Check whether this Python has a package, of any version."""
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def is_compatible(stem: str) -> bool:
    """Check whether this Python can import a wheel, by the tags in its name."""
    pythons, abi, _ = stem.split("-")[-3:]
    major, minor = sys.version_info[:2]
    if abi == "abi3":
        oldest = re.fullmatch(r"cp3(\d+)", pythons.split(".")[0])
        return oldest is not None and int(oldest[1]) <= minor
    return f"cp{major}{minor}" in pythons.split(".") or "py3" in pythons.split(".")


def main() -> None:
    """Make the bundle, or unpack it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--unpack", action="store_true", help="unpack what is missing here, and print the PYTHONPATH")
    parser.add_argument("--python-version", default="3.12", help="of the other machine")
    parser.add_argument("--only", nargs="+", default=PACKAGES, metavar="PACKAGE", help="what the other machine lacks")
    arguments = parser.parse_args()
    if arguments.unpack:
        print(os.pathsep.join(map(str, unpack())))
    else:
        download(arguments.python_version, arguments.only)


if __name__ == "__main__":
    main()
