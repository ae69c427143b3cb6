"""The provenance of a benchmark result: commit, versions and processor. Also writes the result files."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmnist.runs import environment

ROOT = Path(__file__).parents[1]
BUNDLED_COMMIT = ROOT / "build" / "gpu" / "commit"
"""Where `make gpu-bundle` writes it, for a machine without git."""


def describe_provenance() -> dict[str, Any]:
    """Describe what is measured and on which machine. Call it before a long measurement, while the commit is known."""
    return {
        "commit": current_commit(),
        "versions": {"python": platform.python_version(), **environment.installed_versions()},
        "processor": environment.cpu_name(),
        "threads": environment.num_cpus(),
    }


def current_commit() -> str:
    """Return the commit of the working tree, with the suffix `-dirty` if files other than results have changed."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:  # there is no git
            return ""

    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    bundled = BUNDLED_COMMIT.read_text().strip() if BUNDLED_COMMIT.is_file() else "unknown"
    return f"{git('rev-parse', '--short=12', 'HEAD') or bundled}{'-dirty' if changes else ''}"


def write_result(result: dict[str, Any], path: Path, as_json: bool) -> None:
    """Write a result to its file and, if `as_json`, print it as the last line of stdout."""
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {path}", file=sys.stderr)
    if as_json:
        print(json.dumps(result))
