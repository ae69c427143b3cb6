"""Measure `fmnist demo` under many concurrent clients: python benchmarks/serving.py --clients 50 --seconds 60.

The command runs as a process of its own. Every client sends one picture after another over one connection, and after a
503 waits for as long as the response says. A response is correct if it equals what `Classifier` returns for the same
file in this process. Anything but a correct 200 or a 503 makes the benchmark fail.

With --hostile, there is one such client beside those of `hostile_clients.py`. The benchmark fails unless the client is
answered nearly always and in time, the memory is bounded and stays the same, no file is written, and only sizes and
times are logged.
"""

import argparse
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import describe_provenance, write_result

import fmnist
from fmnist.runs.folders import newest_finished_run
from fmnist.runs.run import Run, open_run

RESULTS = Path(__file__).parent / "results"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MAX_PICTURES = 100
NUM_SYNTHETIC_PICTURES = 20
MAX_WARM_UP_SECONDS = 5.0
HOSTILE_CLIENTS = Path(__file__).with_name("hostile_clients.py")
CLIENT_PAUSE = 0.05
"""Seconds between the pictures of the client among hostile ones."""
MIN_ANSWERED = 0.95
"""Share of the client's requests that are answered by a prediction."""
MAX_P99_MS = 2_000
MAX_MEMORY_MB = 600
MAX_MEMORY_GROWTH = 1.25
"""Least memory in the last quarter of the time, when no large picture was being decoded, relative to the second."""
LOG_LINE = re.compile(r"(fmnist: )?[\d,]+ bytes: \d{3} after \d+ ms")

Expected = dict[bytes, dict[str, Any]]
"""The content of a picture file to the response for it."""


@dataclass
class Responses:
    """The responses to all clients. Several threads change it, while they hold the lock."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Latency of each response with status 200."""
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    """Errors of connections."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def load_pictures(folder: Path | None) -> list[bytes]:
    """Read pictures evenly spaced over the files of a folder, or draw synthetic ones.

    Args:
        folder: is searched with its subfolders. None draws pictures of dark shapes on a colored background.

    Returns:
        The content of at most `MAX_PICTURES` files.
    """
    if folder:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [path.read_bytes() for path in paths[:: -(-len(paths) // MAX_PICTURES) or 1]]
    pictures = []
    for number in range(NUM_SYNTHETIC_PICTURES):
        picture = Image.new("RGB", (600 + 20 * number, 800), (250 - 9 * number, 200, 90 + 8 * number))
        picture.paste((40, 5 * number, 60), (120, 100, 420 + 10 * number, 700))
        file = io.BytesIO()
        picture.save(file, "JPEG")
        pictures.append(file.getvalue())
    return pictures


def expected_responses(classifier: fmnist.Classifier, pictures: list[bytes]) -> Expected:
    """Classify the pictures in this process. Pictures that cannot be used are left out."""
    expected = {}
    for picture in pictures:
        try:
            expected[picture] = classifier.classify(picture).to_json()
        except fmnist.FmnistError:
            continue
    return expected


def send_pictures(
    port: int, expected: Expected, start: int, deadline: float, responses: Responses, pause: float = 0
) -> None:
    """Send one picture after another, as one client, until the deadline.

    Args:
        port: of the server.
        expected: the pictures and their responses.
        start: index of the picture before the first one that is sent.
        deadline: by `time.perf_counter`.
        responses: the responses are added to these.
        pause: seconds between two requests.
    """
    pictures = list(expected)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.perf_counter() < deadline:
        start += 1
        picture = pictures[start % len(pictures)]
        started = time.perf_counter()
        try:
            connection.request("POST", "/v1/classify", picture, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            with responses.lock:
                responses.failures.append(repr(error))
            continue
        seconds = time.perf_counter() - started
        with responses.lock:
            responses.statuses[response.status] += 1
            if response.status == 200:
                responses.seconds.append(seconds)
                responses.wrong += json.loads(content) != expected[picture]
        time.sleep(float(response.headers["Retry-After"]) if response.status == 503 else pause)
    connection.close()


def memory_mb(process: int, name: str = "VmRSS") -> float:
    """Read the resident memory of a process in MB, from Linux. `VmHWM` is its highest value so far."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1_000


def read_port(server: subprocess.Popen[str]) -> int:
    """Read the port of a starting server from the JSON document on its stdout."""
    lines = iter(server.stdout or [])
    document = json.loads("".join(line for line in iter(lambda: next(lines), "}\n")) + "}")
    return int(document["url"].rpartition(":")[2])


def measure(run: Run, expected: Expected, num_clients: int, seconds: float) -> dict[str, Any]:
    """Start the server, load it with clients, and summarize their responses and the server's memory."""
    command = [sys.executable, "-m", "fmnist", "demo", "--model", str(run.folder), "--port", "0", "--json"]
    warm_up, responses = Responses(), Responses()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            port = read_port(server)
            send_pictures(port, expected, 0, time.perf_counter() + min(MAX_WARM_UP_SECONDS, seconds), warm_up)
            memory = [memory_mb(server.pid)]
            began = time.perf_counter()
            with ThreadPoolExecutor(num_clients) as pool:
                clients = [
                    pool.submit(send_pictures, port, expected, number, began + seconds, responses)
                    for number in range(num_clients)
                ]
                for fraction in (0.5, 1.0):
                    time.sleep(max(0.0, began + fraction * seconds - time.perf_counter()))
                    memory.append(memory_mb(server.pid))
            for client in clients:
                client.result()
            peak = memory_mb(server.pid, "VmHWM")
        finally:
            server.terminate()
    failures = warm_up.failures + responses.failures
    milliseconds = 1_000 * np.array(responses.seconds or [np.nan])
    return {
        "clients": num_clients,
        "seconds": seconds,
        "pictures": len(expected),
        "responses": {str(status): count for status, count in sorted(responses.statuses.items())},
        "wrong": warm_up.wrong + responses.wrong,
        "failures": len(failures),
        "first_failures": failures[:3],
        "latency_ms_one_client_p50": 1_000 * float(np.median(warm_up.seconds or [np.nan])),
        "latency_ms_p50": float(np.percentile(milliseconds, 50)),
        "latency_ms_p95": float(np.percentile(milliseconds, 95)),
        "memory_mb": dict(zip(("start", "middle", "end"), memory, strict=True)),
        "memory_mb_peak": peak,
    }


def measure_hostile(run: Run, expected: Expected, seconds: float) -> dict[str, Any]:
    """Start the server, load it with hostile clients beside a normal one, and summarize what they got and what it did.

    Returns:
        The measurements, and under `failed` the goals that were missed.
    """
    command = [sys.executable, "-m", "fmnist", "demo", "--model", str(run.folder.resolve()), "--port", "0", "--json"]
    responses = Responses()
    memory: list[float] = []
    log: list[str] = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as attack_output:
        environment = {**os.environ, "TMPDIR": folder, "HOME": folder}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment
        ) as server:
            try:
                port = read_port(server)
                reader = threading.Thread(target=lambda: log.extend(server.stderr or []))
                reader.start()
                attack = [sys.executable, str(HOSTILE_CLIENTS), str(port), "--seconds", str(seconds)]
                with subprocess.Popen(attack, stdout=attack_output) as hostile:
                    while hostile.poll() is None and not connections(port):
                        time.sleep(0.1)
                    deadline = time.perf_counter() + seconds
                    client = threading.Thread(
                        target=send_pictures, args=(port, expected, 0, deadline, responses, CLIENT_PAUSE)
                    )
                    client.start()
                    while client.is_alive():
                        memory.append(memory_mb(server.pid))
                        client.join(min(1.0, seconds / 20))
                peak = memory_mb(server.pid, "VmHWM")
            finally:
                server.terminate()
        reader.join()
        written = [str(path.relative_to(folder)) for path in Path(folder).rglob("*")]
        attack_output.seek(0)
        hostile_statuses = json.loads(attack_output.read().splitlines()[-1])
    quarters = np.array_split(memory, 4)
    other_lines = [line.strip() for line in log[2:] if not LOG_LINE.fullmatch(line.strip())]  # after model and address
    requests = sum(responses.statuses.values()) + len(responses.failures)
    milliseconds = 1_000 * np.array(responses.seconds or [np.nan])
    measured = {
        "seconds": seconds,
        "requests": requests,
        "answered": len(responses.seconds) / max(requests, 1),
        "responses": {str(status): count for status, count in sorted(responses.statuses.items())},
        "wrong": responses.wrong,
        "failures": len(responses.failures),
        "first_failures": responses.failures[:3],
        "latency_ms_p50": float(np.percentile(milliseconds, 50)),
        "latency_ms_p99": float(np.percentile(milliseconds, 99)),
        "memory_mb": [round(value) for value in memory],
        "memory_mb_peak": peak,
        "memory_growth": float(quarters[3].min() / quarters[1].min()),
        "log_lines": len(log),
        "other_log_lines": other_lines[:10],
        "written": written,
        "hostile": hostile_statuses,
        "server_exit_code": server.returncode,
    }
    goals = {
        "answered": measured["answered"] >= MIN_ANSWERED and not measured["wrong"],
        "latency": measured["latency_ms_p99"] < MAX_P99_MS,
        "memory": peak < MAX_MEMORY_MB and measured["memory_growth"] < MAX_MEMORY_GROWTH,
        "log": not other_lines,
        "files": not written,
    }
    return {**measured, "failed": [goal for goal, is_met in goals.items() if not is_met]}


def connections(port: int) -> int:
    """Return the number of connections to a port of this machine, from Linux."""
    lines = Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


def main() -> None:
    """Measure, print a table and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--photos", type=Path, help="folder of pictures; synthetic pictures by default")
    parser.add_argument("--run", type=Path, help="folder of a finished run; the newest by default")
    parser.add_argument("--hostile", action="store_true", help="one client among hostile ones")
    parser.add_argument("--out", type=Path, help="file of the result; in benchmarks/results by default")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    provenance = describe_provenance()
    run = open_run(arguments.run) if arguments.run else newest_finished_run()
    expected = expected_responses(fmnist.Classifier.load(run), load_pictures(arguments.photos))
    if not expected:
        parser.error(f"no picture in {arguments.photos} can be used")
    if arguments.hostile:
        measured = measure_hostile(run, expected, arguments.seconds)
        passed = not measured["failed"]
        print_hostile(measured)
    else:
        measured = measure(run, expected, arguments.clients, arguments.seconds)
        passed = set(measured["responses"]) <= {"200", "503"} and not measured["wrong"] and not measured["failures"]
        print_clients(measured, passed)
    result = {
        "passed": passed,
        **measured,
        "synthetic_pictures": arguments.photos is None,
        "model_sha256": run.manifest().sha256["model.onnx"],
        **provenance,
    }
    write_result(result, arguments.out or RESULTS / f"serving{'_hostile' * arguments.hostile}.json", arguments.json)
    sys.exit(not passed)


def print_clients(measured: dict[str, Any], passed: bool) -> None:
    """Print the measurements of many clients."""
    memory = measured["memory_mb"]
    print(f"{measured['clients']} clients for {measured['seconds']:g} s: {'passed' if passed else 'FAILED'}")
    print(f"responses {measured['responses']}, wrong {measured['wrong']}, failures {measured['failures']}")
    print(
        f"latency p50 {measured['latency_ms_p50']:.0f} ms, p95 {measured['latency_ms_p95']:.0f} ms; "
        f"one client alone p50 {measured['latency_ms_one_client_p50']:.0f} ms"
    )
    print(
        f"memory {memory['start']:.0f} MB at the start, {memory['middle']:.0f} MB in the middle, "
        f"{memory['end']:.0f} MB at the end, {measured['memory_mb_peak']:.0f} MB at most"
    )


def print_hostile(measured: dict[str, Any]) -> None:
    """Print the measurements of a client among hostile ones."""
    failed = f"FAILED: {', '.join(measured['failed'])}" if measured["failed"] else "passed"
    print(f"a client among hostile ones for {measured['seconds']:g} s: {failed}")
    print(
        f"{measured['requests']} requests, {100 * measured['answered']:.1f} % answered, responses "
        f"{measured['responses']}, wrong {measured['wrong']}, failures {measured['failures']} "
        f"{measured['first_failures']}"
    )
    print(f"latency p50 {measured['latency_ms_p50']:.0f} ms, p99 {measured['latency_ms_p99']:.0f} ms")
    print(f"memory {measured['memory_mb_peak']:.0f} MB at most, growth {measured['memory_growth']:.2f}")
    print(f"{measured['log_lines']} lines logged, others {measured['other_log_lines']}; written {measured['written']}")
    for kind, statuses in measured["hostile"].items():
        print(f"{kind}: {statuses}")


if __name__ == "__main__":
    main()
