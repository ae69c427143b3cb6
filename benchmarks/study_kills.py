"""Kill runs, workers, a study and its scheduler at random moments: python benchmarks/study_kills.py [--kills 40].

A study of a small network runs on a Dask cluster of a scheduler and two workers on this machine, one processor for each
run. First it runs undisturbed. Then, in another folder, one of its processes after the other is ended by SIGKILL: in
turn a run, a worker, the study itself and the scheduler. Whatever has ended is started again, the study by the same
command. With `--search`, it is a search. In the end, all weights and the result file have to be those of the
undisturbed study, but for the timings. When a study ends before all kills are done, the next one begins in a new
folder.
"""

import argparse
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from provenance import describe_provenance, write_result

RESULT = Path(__file__).parent / "results" / "study_kills.json"
VICTIMS = ("run", "worker", "study", "scheduler")
NUM_WORKERS = 2
TIMINGS = {"train_seconds"}
DASK = [sys.executable, "-m", "dask"]


class Cluster:
    """The processes: a scheduler, workers, and a study that uses them."""

    def __init__(self, scratch: Path, data: str, options: list[str]):
        self.scratch, self.data, self.options = scratch, data, options
        self.scheduler_file = scratch / "scheduler.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.log = (scratch / "log.txt").open("ab")

    def start(self, name: str) -> None:
        """Start a process of the cluster, or the study in its folder."""
        if name == "scheduler":
            self.scheduler_file.unlink(missing_ok=True)
            command = [*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
            command += ["--scheduler-file", str(self.scheduler_file)]
        elif name.startswith("worker"):
            command = [*DASK, "worker", "--scheduler-file", str(self.scheduler_file), "--host", "127.0.0.1"]
            command += ["--nthreads", "1", "--memory-limit", "0", "--no-nanny", "--no-dashboard"]
            command += ["--local-directory", str(self.scratch), "--death-timeout", "10"]
        else:
            raise ValueError(name)
        self.processes[name] = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        if name == "scheduler":
            while not self.scheduler_file.exists():
                time.sleep(0.05)

    def start_study(self, folder: Path) -> None:
        """Start the study of a folder, or go on with it: the same command."""
        command = [sys.executable, "-m", "fmnist", "study", str(folder), "--data", self.data, "--preset", "textbook"]
        command += ["--epochs", "3", *self.options, "--cores", "1", "--cluster", str(self.scheduler_file), "--json"]
        self.processes["study"] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)

    def keep_running(self) -> None:
        """Start again what has ended, but the study."""
        names = ["scheduler", *(f"worker {number}" for number in range(NUM_WORKERS))]
        for name in names:
            if name not in self.processes or self.processes[name].poll() is not None:
                self.start(name)

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Kill a process. Returns False if there is none of that kind."""
        if victim == "run":
            runs = [pid for name in self.processes if name.startswith("worker") for pid in self._runs_of(name)]
            if not runs:
                return False
            subprocess.run(["kill", "-KILL", rng.choice(runs)], check=False)
            return True
        name = f"worker {rng.randrange(NUM_WORKERS)}" if victim == "worker" else victim
        self.processes[name].kill()
        self.processes[name].wait()
        return True

    def _runs_of(self, worker: str) -> list[str]:
        """Return the processes that a worker has started."""
        tasks = Path(f"/proc/{self.processes[worker].pid}/task")
        return [word for path in tasks.glob("*/children") for word in path.read_text().split()]

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.log.close()


def run_undisturbed(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Run a study to its end, and return its result without timings."""
    cluster.keep_running()
    cluster.start_study(folder)
    if code := cluster.processes["study"].wait():
        raise SystemExit(f"the undisturbed study has ended with exit code {code}:\n{last_lines(cluster.scratch)}")
    return read_result(folder)


def run_disturbed(
    cluster: Cluster, folder: Path, victims: list[str], pause: float, rng: random.Random
) -> dict[str, Any]:
    """Run a study to its end while processes are killed, and return its result without timings."""
    cluster.keep_running()
    cluster.start_study(folder)
    next_kill = time.monotonic() + rng.uniform(1, pause)
    while (code := cluster.processes["study"].poll()) != 0:
        if code is not None:
            cluster.start_study(folder)
        cluster.keep_running()
        if victims and time.monotonic() > next_kill:
            if cluster.kill(victims[0], rng):
                victims.pop(0)
            next_kill = time.monotonic() + rng.uniform(1, pause)
        time.sleep(0.1)
    return read_result(folder)


def read_result(folder: Path) -> dict[str, Any]:
    """Read the result of a study, without timings."""
    result: dict[str, Any] = without_timings(json.loads((folder / "results.json").read_text()))
    return result


def without_timings(document: Any) -> Any:
    """Return a document without what depends on the clock."""
    if isinstance(document, dict):
        return {name: without_timings(value) for name, value in document.items() if name not in TIMINGS}
    return [*map(without_timings, document)] if isinstance(document, list) else document


def last_lines(scratch: Path) -> str:
    """Return the end of the log of all processes."""
    return "\n".join((scratch / "log.txt").read_text(errors="replace").splitlines()[-20:])


def main() -> None:
    """Run, kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--runs", type=int, default=4, help="seeds of each of two configurations")
    parser.add_argument("--search", action="store_true", help="for the learning rate, instead of two given ones")
    parser.add_argument("--pause", type=float, default=12, help="longest time between two kills, in seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--data", required=True, help="a small data set")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    rng = random.Random(arguments.seed)
    options = ["--set", "learning_rate=0.001,0.003", "--seeds", str(arguments.runs)]
    if arguments.search:
        trials = str(2 * arguments.runs)
        options = ["--set", "learning_rate=0.0001:0.1:log", "--search", trials, "--jobs", str(NUM_WORKERS)]
    victims = [*itertools.islice(itertools.cycle(VICTIMS), arguments.kills)]
    planned = {victim: victims.count(victim) for victim in VICTIMS}
    num_studies, equal, started = 0, True, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch_folder:
        scratch = Path(scratch_folder)
        cluster = Cluster(scratch, arguments.data, options)
        try:
            expected = run_undisturbed(cluster, scratch / "undisturbed")
            while victims:
                found = run_disturbed(cluster, scratch / f"killed-{num_studies}", victims, arguments.pause, rng)
                num_studies += 1
                equal = equal and found == expected
                print(f"study {num_studies}: {len(victims)} kills left, equal: {found == expected}", file=sys.stderr)
        finally:
            cluster.stop()
    result = {
        "kills": planned,
        "studies": num_studies,
        "search": arguments.search,
        "runs_in_a_study": len(expected["runs"]),
        "same_weights_and_results": equal,
        "seconds": time.monotonic() - started,
        "seed": arguments.seed,
        **provenance,
    }
    write_result(result, arguments.out, arguments.json)
    if not equal:
        raise SystemExit("a study that was disturbed ended otherwise than the undisturbed one")


if __name__ == "__main__":
    main()
