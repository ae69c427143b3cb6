"""Classify any number of pictures in parts, so that the answers of a killed process are kept.

Beside the plan, a folder has the answers in parts: `part-00000.jsonl` has those to the first pictures, in their order.
The parts are the only state. A part whose file is there is finished, because every file is written atomically.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from platform import node
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from fmnist.errors import FmnistError, one_line
from fmnist.files import MAX_MODEL_BYTES, read_bounded, write_atomic
from fmnist.inference.plan import (
    OTHER_FOLDER,
    PICTURES_FILE,
    PLAN_FILE,
    Kind,
    ModelRecord,
    Plan,
    describe_model,
    is_same_model,
)
from fmnist.inference.runtime import limited_threads
from fmnist.runs.environment import version_differences

if TYPE_CHECKING:
    from fmnist.inference.classifier import Classifier
    from fmnist.inference.prediction import Prediction

log = logging.getLogger("fmnist")


@dataclass(frozen=True)
class Work:
    """A plan, and where it is carried out."""

    folder: Path
    plan: Plan
    model: Path | None
    """What `Classifier.load` opens: the folder of a run or of an adapted model, an ONNX file, or the pretrained one."""
    threads: int
    """Pictures that a process classifies at the same time, and threads of its ONNX Runtime."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of packages that every process needs."""


class Part(NamedTuple):
    """Some pictures that follow each other in the list."""

    number: int
    """From 0."""
    offset: int
    """Of its first line in `pictures.jsonl`, in bytes."""

    @property
    def file(self) -> str:
        """Name of the file with its answers."""
        return f"part-{self.number:05}.jsonl"


class Counts(NamedTuple):
    """What came of some pictures."""

    answered: int
    errors: int

    def __add__(self, other: tuple[Any, ...]) -> "Counts":
        """Return the sums."""
        return Counts(self[0] + other[0], self[1] + other[1])


def classify_file(classifier: "Classifier", file: Path, kind: Kind) -> "Prediction":
    """Classify the picture in a file. A folder is an error.

    Raises:
        FmnistError: as `Classifier.classify`.
        OSError: if the file is a folder that cannot be listed.
    """
    if os.path.isdir(file):  # `Path.is_dir` raises an error for a name that is too long
        next(file.iterdir(), None)  # raises an error if it may not be listed
        raise FmnistError(f"{file} has no pictures; name a picture, or a folder of pictures")
    return classifier.classify(file, kind=kind)


def answer_item(file: str, answer: "Prediction | Exception") -> dict[str, Any]:
    """Return an answer as plain values: `file` and those of the prediction, or `file` and `error`."""
    if isinstance(answer, Exception):
        return {"file": file, "error": one_line(answer)}
    return {"file": file, **answer.to_json()}


def find_missing(work: Work) -> tuple[Counts, list[Part]]:
    """Find the parts that are not finished.

    A finished part that is damaged counts as missing, with a warning.

    Returns:
        The counts of the finished parts, and the others in order.

    Raises:
        FmnistError: if the list of pictures is damaged.
    """
    digest, counts, missing = hashlib.sha256(), Counts(0, 0), []
    with _open_list(work) as file:
        offset = 0
        for number in range(-(-work.plan.pictures.number // work.plan.part_size)):
            part, lines = Part(number, offset), list(islice(file, work.plan.part_size))
            content = b"".join(lines)
            digest.update(content)
            offset += len(content)
            found = _read_counts(work.folder / part.file, lines)
            if found:
                counts += found
            else:
                missing.append(part)
        is_complete = not file.read(1)
    if not is_complete or digest.hexdigest() != work.plan.pictures.sha256:
        raise FmnistError(
            f"{work.folder / PICTURES_FILE} is not the file that {PLAN_FILE} names (SHA-256 differs); {OTHER_FOLDER}"
        )
    return counts, missing


def _read_counts(path: Path, lines: Sequence[bytes]) -> Counts | None:
    """Count answers and errors of a part. None if it is missing or damaged.

    Args:
        path: its file.
        lines: those of its pictures in the list.
    """
    if not os.path.lexists(path):
        return None
    *answers, rest = read_bounded(path, MAX_MODEL_BYTES, "remove it").split(b"\n")
    starts = [b'{"file": %s, "' % line.rstrip(b"\n") for line in lines]
    is_intact = len(answers) == len(starts) and not rest
    if not is_intact or not all(
        answer.startswith(start) and answer.endswith(b"}") for answer, start in zip(answers, starts, strict=True)
    ):
        log.warning("%s is damaged; its pictures are classified again", path)
        return None
    errors = sum(answer.startswith(b'error":', len(start)) for answer, start in zip(answers, starts, strict=True))
    return Counts(len(answers) - errors, errors)


def answer_parts(work: Work, parts: Iterable[Part], executor: Executor, max_waiting: int) -> Iterator[Counts]:
    """Classify the pictures of some parts.

    Args:
        work: the plan and its folder.
        parts: as `find_missing` returns them.
        executor: runs `answer_part`. Its processes need the folder and the pictures under the same absolute names.
        max_waiting: parts that are submitted to the executor at the same time.

    Yields:
        The counts of each part, once its file is written.

    Raises:
        BrokenExecutor: if a process has ended. The parts of the others are finished first, if the executor waits.
        FmnistError: if the model has changed.
        OSError: if a part cannot be written.
    """
    waiting: set[Future[Counts]] = set()
    try:
        for part in parts:
            waiting.add(executor.submit(answer_part, work, part))
            if len(waiting) >= max_waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        for future in waiting:
            future.cancel()


def answer_part(work: Work, part: Part) -> Counts:
    """Classify the pictures of a part, and write their answers. Whatever is wrong with a picture is its own answer.

    Raises:
        FmnistError: if the model has changed, or this process has other versions or no such folder.
        OSError: if the part cannot be written.
    """
    if different := version_differences(work.versions):
        raise FmnistError(f"{node()} has {', '.join(different)}; install the same on all machines")
    classifier = _open_model(work.model, work.plan.model, work.threads)
    with _open_list(work) as file:
        file.seek(part.offset)
        lines = list(islice(file, work.plan.part_size))
    pool = ThreadPoolExecutor(work.threads, "classify")
    try:
        answers = list(pool.map(lambda line: _answer(classifier, json.loads(line), work.plan), lines))
    finally:
        pool.shutdown(cancel_futures=True)
    write_atomic(work.folder / part.file, "".join(line for line, _ in answers).encode())
    errors = sum(is_error for _, is_error in answers)
    return Counts(len(answers) - errors, errors)


def _answer(classifier: "Classifier", picture: str, plan: Plan) -> tuple[str, bool]:
    """Return the line of a picture in its part, and whether it is an error."""
    path, folder = Path(picture), plan.pictures.folder
    is_elsewhere = folder not in (None, os.getcwd())  # the workers of a cluster were started in other folders
    if folder and is_elsewhere:
        path = Path(folder, picture)
    try:
        item = answer_item(picture, classify_file(classifier, path, plan.kind))
        return json.dumps(item, allow_nan=False) + "\n", False
    except Exception as error:
        item = answer_item(picture, error)
        if is_elsewhere:
            item["error"] = item["error"].replace(str(path), picture)
        return json.dumps(item) + "\n", True


def _open_list(work: Work) -> IO[bytes]:
    path = work.folder / PICTURES_FILE
    try:
        return path.open("rb")
    except OSError as error:
        raise FmnistError(
            f"{path} cannot be read on {node()} ({error.strerror}); on a cluster, all machines need this folder, "
            f"otherwise {OTHER_FOLDER}"
        ) from error


@lru_cache(maxsize=1)
def _open_model(path: Path | None, expected: ModelRecord, threads: int) -> "Classifier":
    """Open a model once in each process."""
    from fmnist.inference.classifier import Classifier

    with limited_threads(threads):
        classifier = Classifier.load(path)
    if not is_same_model(describe_model(classifier), expected):
        raise FmnistError(
            f"{path or 'the pretrained model'} has changed since the first answers; restore it, or {OTHER_FOLDER}"
        )
    classifier.name = expected.name
    return classifier
