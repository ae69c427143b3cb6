"""What every kept result says of its making, and how it is kept."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmnist.runs import environment


def provenance() -> dict[str, Any]:
    """Describe what is measured and on what; to be called before the measurement, which may take long."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **environment.installed_versions()},
        "processor": environment.processor_name(),
        "threads": environment.num_processors(),
    }


def commit() -> str:
    """Name the commit that is measured, with a mark if the tree differs from it in more than kept results."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[1]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{git('rev-parse', '--short=12', 'HEAD') or 'unknown'}{'-dirty' if changes else ''}"


def keep(document: dict[str, Any], path: Path, as_json: bool) -> None:
    """Write a result to its file and, if it was asked for, as the last line of stdout."""
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written: {path}", file=sys.stderr)
    if as_json:
        print(json.dumps(document))
