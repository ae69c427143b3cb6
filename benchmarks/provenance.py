"""What every kept result says of its making: commit, versions, processor, threads."""

import platform
import subprocess
from pathlib import Path
from typing import Any

from fmnist import environment


def provenance() -> dict[str, Any]:
    """Describe what is measured and on what; to be called before the measurement, which may take long."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **environment.installed_versions()},
        "processor": environment.processor_name(),
        "threads": environment.num_processors(),
    }


def commit() -> str:
    """Name the commit that is measured, with a mark if the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
