"""Kill training at random moments and see that nothing is lost: python benchmarks/crash.py --kills 100.

First a run that nobody disturbs is trained, by the command `fmnist train` as a process of its own, and timed. Then runs
of the same settings are begun, killed with SIGKILL at a moment drawn by the seed, resumed by `fmnist train --resume`,
killed again, and so on, until one of the commands comes to its end by itself; then the next run is begun.

Every moment is drawn evenly from the time that starting and two epochs take, or, in one kill of four, from the time of
a whole run: so all of a command is met, from the first import to the last write of the export, while a run still gets
on by some epochs from kill to kill. A run is lost if a command ends with an error. A run is identical if
`weights.safetensors` has the SHA-256 of the undisturbed run and `history.csv` is the same but for the seconds.
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

from provenance import keep, provenance

from fmnist.config import PRESETS
from fmnist.data import formats as idx
from fmnist.runs import run as runs

RESULTS = Path(__file__).parent / "results"
SHARE_OF_LATE_KILLS = 1 / 4


def command(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Give the command that a person would type: begin the run, or go on with it."""
    words = [sys.executable, "-m", "fmnist", "train"]
    if (folder / "config.json").exists():
        return [*words, "--resume", str(folder)]
    words += ["--preset", arguments.preset, "--run", str(folder)]
    words += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    return [*words, "--data", str(arguments.data)] if arguments.data else words


def run_for(words: list[str], seconds: float | None) -> tuple[int | None, str]:
    """Run a command, killing it after so many seconds; give its exit code, None if so killed, and its last words."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None, ""
    return process.returncode, (err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]


def outcome(folder: Path) -> dict[str, Any]:
    """Give what must be the same to the bit."""
    run = runs.open_run(folder)
    return {
        "is_complete": run.is_complete,
        "weights_sha256": idx.sha256(run.weights_path.read_bytes()),
        "history": [{**row, "seconds": None} for row in run.history()],
    }


def state(folder: Path) -> dict[str, Any]:
    """Say how far a run had come when it was killed."""
    newest = max((path.name for path in folder.glob("checkpoint-*")), default=None)
    files = [name for name in ("config.json", "weights.safetensors", "model.onnx") if (folder / name).exists()]
    return {"newest_checkpoint": newest, "files": files, "half_written": len(list(folder.glob(".*")))}


def chain(arguments: argparse.Namespace, folder: Path, draw: Callable[[], float], most: int) -> dict[str, Any]:
    """Begin a run, kill it, resume it, kill it again, until it ends by itself or has been killed often enough.

    Args:
        arguments: of the program.
        folder: of the run.
        draw: gives the seconds after which the next command is killed.
        most: kills, at most; the command after the last one is left alone.
    """
    kills: list[dict[str, Any]] = []
    while True:
        after = draw() if len(kills) < most else None
        code, message = run_for(command(arguments, folder), after)
        if code is not None:
            return {"kills": kills, "error": message if code else None}
        kills.append({"after_seconds": after, **state(folder)})
        print(f"killed: {kills[-1]}", file=sys.stderr)


def main() -> None:
    """Kill, resume, compare; print a line for people and, with --json, one document as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--preset", choices=PRESETS, default="fast")
    parser.add_argument("--seed", type=int, help="draws the moments; without it one is drawn and kept in the result")
    parser.add_argument("--epochs", type=int, help="instead of the preset's own")
    parser.add_argument("--data", type=Path, help="another data set of the same format")
    parser.add_argument("--out", type=Path, default=RESULTS / "crash.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    made = provenance()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    moments = random.Random(seed)
    chains: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        folder = Path(scratch) / "undisturbed"
        started = time.perf_counter()
        code, message = run_for(command(arguments, folder), None)
        whole_seconds = time.perf_counter() - started
        if code != 0:
            sys.exit(f"the undisturbed run failed: {message}")
        expected = outcome(folder)
        epoch_seconds = [float(row["seconds"] or 0) for row in runs.open_run(folder).history()]
        # all that is no epoch, the export too, and two epochs
        early_seconds = whole_seconds - sum(epoch_seconds) + 2 * sum(epoch_seconds) / len(epoch_seconds)

        def draw() -> float:
            return moments.uniform(0, whole_seconds if moments.random() < SHARE_OF_LATE_KILLS else early_seconds)

        num_kills = 0
        while num_kills < arguments.kills and not any(done["error"] for done in chains):
            folder = Path(scratch) / f"run{len(chains) + 1}"
            done = chain(arguments, folder, draw, arguments.kills - num_kills)
            num_kills += len(done["kills"])
            found = None if done["error"] else outcome(folder)
            chains.append(
                {**done, "is_identical": found == expected, "outcome": found if found != expected else "same"}
            )
            print(f"run {len(chains)}: {len(done['kills'])} kills, identical: {found == expected}", file=sys.stderr)
    num_identical, num_lost = (sum(bool(done[name]) for done in chains) for name in ("is_identical", "error"))
    document = {
        "preset": arguments.preset,
        "epochs": len(expected["history"]),
        "seed": seed,
        "kills": num_kills,
        "runs": len(chains),
        "lost": num_lost,
        "identical": num_identical,
        "all_identical": num_identical == len(chains),
        "weights_sha256": expected["weights_sha256"],
        "undisturbed_seconds": whole_seconds,
        "chains": chains,
        **made,
    }
    print(
        f"{arguments.preset}: {document['kills']} kills in {document['runs']} runs, {document['lost']} lost, "
        f"{document['identical']} identical to the bit; seed {seed}"
    )
    keep(document, arguments.out, arguments.json)
    sys.exit(0 if document["all_identical"] else 1)


if __name__ == "__main__":
    main()
