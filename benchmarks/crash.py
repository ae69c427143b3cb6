"""Kill training at random moments, resume it, and compare the results: python benchmarks/crash.py --kills 100.

First one run is trained without interruption, by the command `fmnist train` in a process of its own, and timed. Then
further runs with the same settings are started, killed with SIGKILL at a random moment, resumed by
`fmnist train --resume`, killed again, and so on, until a command ends by itself. Then the next run is started.

Three kills of four are drawn uniformly from the time that startup, export and two epochs take, and one of four from the
time of a whole run. So kills hit all parts of a command, from the first import to the last write of the export, while a
run still completes some epochs between two kills. A run is lost if a command ends with an error. A run is identical if
`weights.safetensors` has the SHA-256 of the uninterrupted run and `history.csv` is the same except for the seconds.
"""

import argparse
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provenance import describe_provenance, write_result

from fmnist.config import PRESETS
from fmnist.files import sha256
from fmnist.runs.run import open_run

RESULTS = Path(__file__).parent / "results"
LATE_KILLS_FRACTION = 1 / 4


def train_command(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Return the command that starts the run in a folder or, if it was started already, resumes it."""
    words = [sys.executable, "-m", "fmnist", "train"]
    if (folder / "config.json").exists():
        return [*words, "--resume", str(folder)]
    words += ["--preset", arguments.preset, "--run", str(folder)]
    words += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    return [*words, "--data", str(arguments.data)] if arguments.data else words


def run_for(words: list[str], seconds: float | None) -> tuple[int | None, str]:
    """Run a command and kill it after some seconds; None lets it end.

    Returns:
        The exit code, None if the command was killed, and the last line of stderr.
    """
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None, ""
    return process.returncode, (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return what has to be identical in all runs."""
    run = open_run(folder)
    return {
        "status": run.status,
        "weights_sha256": sha256(run.weights_path.read_bytes()),
        "history": [{**row, "seconds": None} for row in run.history()],
    }


def read_progress(folder: Path) -> dict[str, Any]:
    """Describe how far a run was when it was killed."""
    newest = max((path.name for path in folder.glob("checkpoint-*")), default=None)
    files = [name for name in ("config.json", "weights.safetensors", "model.onnx") if (folder / name).exists()]
    return {"newest_checkpoint": newest, "files": files, "temporary_files": len(list(folder.glob(".*")))}


def train_with_kills(
    arguments: argparse.Namespace, folder: Path, draw_seconds: Callable[[], float], max_kills: int
) -> dict[str, Any]:
    """Start a run, kill it and resume it, until a command ends by itself.

    Args:
        arguments: of this program.
        folder: of the run.
        draw_seconds: returns the seconds after which the next command is killed.
        max_kills: number of kills, at most; after the last one the run is resumed to its end.

    Returns:
        `kills`, a list, and `error`, the message of a command that failed.
    """
    kills: list[dict[str, Any]] = []
    while True:
        after = draw_seconds() if len(kills) < max_kills else None
        code, message = run_for(train_command(arguments, folder), after)
        if code is not None:
            return {"kills": kills, "error": message if code else None}
        kills.append({"after_seconds": after, **read_progress(folder)})
        print(f"killed: {kills[-1]}", file=sys.stderr)


def main() -> None:
    """Kill, resume and compare; print a line and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--preset", choices=PRESETS, default="fast")
    parser.add_argument("--seed", type=int, help="seed of the moments; random by default, and part of the result")
    parser.add_argument("--epochs", type=int, help="instead of the preset's number")
    parser.add_argument("--data", type=Path, help="another data set of the same format")
    parser.add_argument("--out", type=Path, default=RESULTS / "crash.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    moments = random.Random(seed)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        folder = Path(scratch) / "uninterrupted"
        started = time.perf_counter()
        code, message = run_for(train_command(arguments, folder), None)
        total_seconds = time.perf_counter() - started
        if code != 0:
            sys.exit(f"the uninterrupted run failed: {message}")
        expected = read_outcome(folder)
        epoch_seconds = [float(row["seconds"] or 0) for row in open_run(folder).history()]
        # Everything except the epochs, the export included, and two epochs.
        early_seconds = total_seconds - sum(epoch_seconds) + 2 * sum(epoch_seconds) / len(epoch_seconds)

        def draw_seconds() -> float:
            return moments.uniform(0, total_seconds if moments.random() < LATE_KILLS_FRACTION else early_seconds)

        num_kills = 0
        while num_kills < arguments.kills and not any(run["error"] for run in runs):
            folder = Path(scratch) / f"run{len(runs) + 1}"
            run = train_with_kills(arguments, folder, draw_seconds, arguments.kills - num_kills)
            num_kills += len(run["kills"])
            outcome = None if run["error"] else read_outcome(folder)
            is_identical = outcome == expected
            runs.append({**run, "is_identical": is_identical, "outcome": "same" if is_identical else outcome})
            print(f"run {len(runs)}: {len(run['kills'])} kills, identical: {is_identical}", file=sys.stderr)
    num_identical, num_lost = (sum(bool(run[name]) for run in runs) for name in ("is_identical", "error"))
    result = {
        "preset": arguments.preset,
        "epochs": len(expected["history"]),
        "seed": seed,
        "num_kills": num_kills,
        "num_runs": len(runs),
        "num_lost": num_lost,
        "num_identical": num_identical,
        "all_identical": num_identical == len(runs),
        "weights_sha256": expected["weights_sha256"],
        "uninterrupted_seconds": total_seconds,
        "runs": runs,
        **provenance,
    }
    print(
        f"{arguments.preset}: {num_kills} kills in {len(runs)} runs, {num_lost} lost, "
        f"{num_identical} bit for bit identical; seed {seed}"
    )
    write_result(result, arguments.out, arguments.json)
    sys.exit(0 if result["all_identical"] else 1)


if __name__ == "__main__":
    main()
