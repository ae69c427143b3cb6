"""How `fmnist demo` bears many clients at once: python benchmarks/serving.py --clients 50 --seconds 60.

The real command runs as a process of its own. Every client sends picture after picture over one connection, and waits
when a 503 tells it to. An answer counts as right if it equals what `Classifier` gives for the same file in this
process; anything but a right 200 or a 503 fails the benchmark.
"""

import argparse
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import keep, provenance

import fmnist
from fmnist.inference import photo
from fmnist.runs import run as runs

RESULTS = Path(__file__).parent / "results"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
MOST_PICTURES = 100


@dataclass
class Record:
    """What the clients met; its lists and counters are shared between threads."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def find_pictures(folder: Path | None) -> list[bytes]:
    """Read pictures, evenly spread over a folder, or make some up.

    Args:
        folder: where to look, subfolders included; None makes 20 pictures of dark shapes on coloured ground.

    Returns:
        At most `MOST_PICTURES` files.
    """
    if folder:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [path.read_bytes() for path in paths[:: -(-len(paths) // MOST_PICTURES) or 1]]
    made_up = []
    for number in range(20):
        picture = Image.new("RGB", (600 + 20 * number, 800), (250 - 9 * number, 200, 90 + 8 * number))
        picture.paste((40, 5 * number, 60), (120, 100, 420 + 10 * number, 700))
        file = io.BytesIO()
        picture.save(file, "JPEG")
        made_up.append(file.getvalue())
    return made_up


def expected_answers(classifier: fmnist.Classifier, pictures: list[bytes]) -> dict[bytes, dict[str, Any]]:
    """Ask the classifier itself; what it cannot use is left out."""
    answers = {}
    for picture in pictures:
        try:
            answers[picture] = classifier.answer(photo.convert(photo.read(picture)))
        except fmnist.FmnistError:
            continue
    return answers


def send(port: int, answers: dict[bytes, dict[str, Any]], start: int, deadline: float, record: Record) -> None:
    """Be one client until the deadline."""
    pictures = list(answers)
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
            with record.lock:
                record.failures.append(repr(error))
            continue
        seconds = time.perf_counter() - started
        with record.lock:
            record.statuses[response.status] += 1
            if response.status == 200:
                record.seconds.append(seconds)
                record.wrong += json.loads(content) != answers[picture]
        if response.status == 503:
            time.sleep(float(response.headers["Retry-After"]))
    connection.close()


def memory_mb(process: int, name: str = "VmRSS") -> float:
    """Read the resident memory of a process in MB, as Linux tells; VmHWM is the most that it ever had."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1_000


def measure(run: runs.Run, answers: dict[bytes, dict[str, Any]], num_clients: int, seconds: float) -> dict[str, Any]:
    """Start the server, load it, and sum up what the clients and the memory did."""
    command = [sys.executable, "-m", "fmnist", "demo", "--model", str(run.folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            lines = iter(server.stdout or [])
            document = json.loads("".join(line for line in iter(lambda: next(lines), "}\n")) + "}")
            port = int(document["url"].rpartition(":")[2])
            warm_up = Record()
            send(port, answers, 0, time.perf_counter() + min(5.0, seconds), warm_up)
            memory, record = [memory_mb(server.pid)], Record()
            began = time.perf_counter()
            with ThreadPoolExecutor(num_clients) as clients:
                deadline = began + seconds
                sent = [clients.submit(send, port, answers, number, deadline, record) for number in range(num_clients)]
                for share in (0.5, 1.0):
                    time.sleep(max(0.0, began + share * seconds - time.perf_counter()))
                    memory.append(memory_mb(server.pid))
            for client in sent:
                client.result()
            peak = memory_mb(server.pid, "VmHWM")
        finally:
            server.terminate()
    failures = warm_up.failures + record.failures
    milliseconds = 1_000 * np.array(record.seconds or [np.nan])
    return {
        "clients": num_clients,
        "seconds": seconds,
        "pictures": len(answers),
        "answers": {str(status): count for status, count in sorted(record.statuses.items())},
        "wrong": warm_up.wrong + record.wrong,
        "failures": len(failures),
        "first_failures": failures[:3],
        "latency_ms_one_client_p50": 1_000 * float(np.median(warm_up.seconds or [np.nan])),
        "latency_ms_p50": float(np.percentile(milliseconds, 50)),
        "latency_ms_p95": float(np.percentile(milliseconds, 95)),
        "memory_mb": dict(zip(("start", "middle", "end"), memory, strict=True)),
        "memory_mb_peak": peak,
    }


def main() -> None:
    """Measure, print a table for people and, with --json, one document as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--photos", type=Path, help="folder with pictures; without it some are made up")
    parser.add_argument("--run", type=Path, help="folder of a finished run; the newest by default")
    parser.add_argument("--out", type=Path, default=RESULTS / "serving.json")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    made_by = provenance()
    run = runs.open_run(arguments.run) if arguments.run else runs.newest_finished()
    answers = expected_answers(fmnist.Classifier.load(run), find_pictures(arguments.photos))
    if not answers:
        parser.error(f"no picture in {arguments.photos} that can be used")
    result = measure(run, answers, arguments.clients, arguments.seconds)
    is_good = set(result["answers"]) <= {"200", "503"} and not result["wrong"] and not result["failures"]
    document = {
        "is_good": is_good,
        **result,
        "made_up_pictures": arguments.photos is None,
        "model_sha256": run.manifest()["sha256"]["model.onnx"],
        **made_by,
    }
    memory = result["memory_mb"]
    print(f"{arguments.clients} clients for {arguments.seconds:g} s: {'good' if is_good else 'NOT GOOD'}")
    print(f"answers {result['answers']}, wrong {result['wrong']}, failures {result['failures']}")
    print(
        f"latency p50 {result['latency_ms_p50']:.0f} ms, p95 {result['latency_ms_p95']:.0f} ms; "
        f"one client alone p50 {result['latency_ms_one_client_p50']:.0f} ms"
    )
    print(
        f"memory {memory['start']:.0f} MB at the start, {memory['middle']:.0f} in the middle, {memory['end']:.0f} at "
        f"the end, {result['memory_mb_peak']:.0f} at most"
    )
    keep(document, arguments.out, arguments.json)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
