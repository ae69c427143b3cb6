"""Kill `fmnist predict --out` at random moments, and count its answers: python benchmarks/predict_parts.py --kills 5.

Test images are written as PNG files. First a command classifies them all without interruption. Then the same command is
started for another folder, its first process is killed with SIGKILL, it is started again, and so on. After the last
kill it ends by itself. The kills are spread over the whole work, whatever else the machine does: for each one a number
of finished parts is drawn, at which it is due, and a time to wait from then, up to what a command needs to start and to
finish a part.

Every file that a process opens is logged by an audit hook, which slows it down a little. A picture is repeated each
time that it is opened after the first. A kill can repeat one part for each process.
"""

import argparse
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import describe_provenance, write_result

import fmnist
from fmnist.inference.plan import PART_SIZE

RESULTS = Path(__file__).parent / "results"
LOG_VARIABLE = "FMNIST_OPENED_PICTURES"
AUDIT_HOOK = f"""
import os, sys
log = os.open(os.environ["{LOG_VARIABLE}"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        os.write(log, (os.path.basename(str(arguments[0])) + "\\n").encode())

sys.addaudithook(hook)
"""
"""As `sitecustomize.py`, runs in every process that Python starts."""


def write_pictures(folder: Path, number: int) -> None:
    """Write test images as PNG files. After the last one, the first one follows again."""
    images = fmnist.load().test_images
    folder.mkdir()
    for index in range(number):
        Image.fromarray(np.asarray(images[index % len(images)])).save(folder / f"{index:07}.png")


class Command:
    """The command for one folder of answers.

    Attributes:
        out: the folder.
        log: file with the names of the pictures that were opened, in this order.
    """

    def __init__(self, scratch: Path, name: str, jobs: int):
        self.out, self.log = scratch / name, scratch / f"{name}.log"
        words = ["predict", scratch / "pictures", "--out", self.out, "--jobs", jobs, "--json"]
        self.words = [sys.executable, "-m", "fmnist", *map(str, words)]
        path = os.pathsep.join([str(scratch / "hook"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        self.environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), LOG_VARIABLE: str(self.log)}

    def run(self) -> dict[str, Any]:
        """Run the command, and return the summary that it prints.

        Raises:
            SystemExit: if it fails.
        """
        done = subprocess.run(self.words, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(self.words)} failed: {done.stderr}")
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def run_and_kill(self, num_parts: int, seconds: float) -> None:
        """Run the command, and kill it some seconds after it has finished a number of parts.

        Raises:
            SystemExit: if it ends before.
        """
        with subprocess.Popen(
            self.words, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            while process.poll() is None and len(self.finished_parts()) < num_parts:
                time.sleep(0.002)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                sys.exit(f"the command ended before it was killed (exit code {process.returncode}); use more pictures")
            process.kill()

    def finished_parts(self) -> dict[str, int]:
        """Return the finished parts, each with the number of its file, which changes when it is written again."""
        return {path.name: path.stat().st_ino for path in sorted(self.out.glob("part-*.jsonl"))}

    def content(self) -> dict[str, bytes]:
        """Return the content of the finished parts by name."""
        return {name: (self.out / name).read_bytes() for name in self.finished_parts()}

    def opened(self) -> Counter[str]:
        """Count how often each picture was opened."""
        return Counter(self.log.read_text().splitlines())


def kill_repeatedly(command: Command, due: list[int], max_seconds: float, moments: random.Random) -> list[Any]:
    """Start the command and kill it, again and again; then let it end.

    Args:
        command: for a new folder.
        due: number of finished parts after which each kill is due.
        max_seconds: the longest time to wait from then.
        moments: draws the time.

    Returns:
        The moment of each kill, and the finished parts.
    """
    found: list[dict[str, Any]] = []
    parts: dict[str, int] = {}
    for num_parts in due:
        seconds = moments.uniform(0, max_seconds)
        command.run_and_kill(num_parts, seconds)
        now = command.finished_parts()
        rewritten = [name for name, number in parts.items() if now.get(name) != number]
        parts = now
        found.append(
            {
                "due_after_parts": num_parts,
                "seconds_later": seconds,
                "finished_parts": len(parts),
                "rewritten_parts": len(rewritten),
            }
        )
        print(f"killed: {found[-1]}", file=sys.stderr)
    command.run()
    return found


def measure(scratch: Path, jobs: int, kills: int, moments: random.Random) -> dict[str, Any]:
    """Compare a command that is killed with one that is not."""
    undisturbed, killed = Command(scratch, f"undisturbed{jobs}", jobs), Command(scratch, f"killed{jobs}", jobs)
    started = time.perf_counter()
    summary = undisturbed.run()
    total = time.perf_counter() - started
    started = time.perf_counter()
    undisturbed.run()  # it has nothing left to do: this is what a command needs to start
    startup = time.perf_counter() - started
    max_seconds = startup + max(0.0, total - startup) * jobs / summary["num_parts"]

    # Not after the last parts, where the command could end first.
    due = sorted(moments.sample(range(max(kills, summary["num_parts"] - 4 * jobs)), kills))
    found = kill_repeatedly(killed, due, max_seconds, moments)
    content = killed.content()
    files = Counter(json.loads(line)["file"] for part in content.values() for line in part.splitlines())
    opened = killed.opened()
    return {
        "jobs": jobs,
        "num_kills": len(found),
        "num_answers": sum(files.values()),
        "num_answered_once": sum(number == 1 for number in files.values()),
        "num_lost": summary["num_pictures"] - len(files),
        "num_repeated_pictures": sum(opened.values()) - len(opened),
        "num_rewritten_parts": sum(kill["rewritten_parts"] for kill in found),
        "is_identical": content == undisturbed.content(),
        "kills": found,
    }


def is_passed(row: dict[str, Any]) -> bool:
    """Check that every picture has one answer, and that no kill repeated more than a part for each process."""
    return (
        row["is_identical"]
        and row["num_lost"] == row["num_rewritten_parts"] == 0
        and row["num_answered_once"] == row["num_answers"]
        and row["num_repeated_pictures"] <= row["num_kills"] * row["jobs"] * PART_SIZE
    )


def main() -> None:
    """Kill, continue and count; print a line and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="numbers of processes to measure")
    parser.add_argument("--seed", type=int, help="seed of the moments; random by default, and part of the result")
    parser.add_argument("--out", type=Path, default=RESULTS / "predict_parts.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    seed = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        write_pictures(Path(scratch) / "pictures", arguments.pictures)
        (Path(scratch) / "hook").mkdir()
        (Path(scratch) / "hook" / "sitecustomize.py").write_text(AUDIT_HOOK)
        results = [measure(Path(scratch), jobs, arguments.kills, moments) for jobs in arguments.jobs]
    for row in results:
        print(
            f"{row['num_answers']:,} answers with --jobs {row['jobs']} and {row['num_kills']} kills: "
            f"{row['num_answered_once']:,} pictures answered once, {row['num_lost']} lost, "
            f"{row['num_repeated_pictures']:,} classified again; seed {seed}"
        )
    result = {
        "num_pictures": arguments.pictures,
        "part_size": PART_SIZE,
        "seed": seed,
        "results": results,
        **provenance,
    }
    write_result(result, arguments.out, arguments.json)
    sys.exit(0 if all(map(is_passed, results)) else 1)


if __name__ == "__main__":
    main()
