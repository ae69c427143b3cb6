"""What `fmnist predict` does with files: find the pictures in folders, and classify them on all processors."""

import io
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace
from PIL import Image, ImageOps

from fmnist.config import IMAGE_SIZE
from fmnist.data.names import BYTE_ORDER_MARKS
from fmnist.errors import FmnistError, one_line
from fmnist.files import write_atomic
from fmnist.inference.parts import classify_file
from fmnist.inference.picture_formats import NUM_BYTES, SUFFIXES, describe, identify
from fmnist.runs.environment import num_cpus

if TYPE_CHECKING:
    from fmnist.inference.classifier import Classifier
    from fmnist.inference.prediction import Prediction

STDIN = Path("-")
MAX_STEM_LENGTH = 60
"""Characters of a photo's name in the name of its steps: file systems allow 255 bytes, and a character has up to 4."""
MAX_NAMED = 20
"""Files that are named when a folder's files are passed over; of the others only the number is given."""


@dataclass(frozen=True)
class Answer:
    """What came of one file."""

    file: Path
    prediction: "Prediction | None" = None
    """Without its steps: the pictures of many files would fill the memory."""
    error: Exception | None = None
    """Why there is no prediction, or why its steps could not be saved."""


def list_pictures(paths: Iterable[Path], passed_over: list[str]) -> Iterator[Path]:
    """Replace each folder by the pictures in it, in the order of their names. Files are kept, whatever they are.

    A file in a folder is a picture if its content or its suffix is that of one. Hidden files are skipped.

    Args:
        paths: files and folders.
        passed_over: gets what was passed over in the folders: each file or folder with what it is.

    Yields:
        The pictures.
    """
    for path in paths:
        try:
            names = sorted(os.listdir(path), key=os.path.normcase) if path != STDIN and os.path.isdir(path) else []
        except OSError:
            names = []
        has_pictures = False
        for entry in (path / name for name in names if not name.startswith(".")):
            other = _describe_other(entry)
            if other is None:
                has_pictures = True
                yield entry
            else:
                passed_over.append(f"{entry} ({other})" if other else str(entry))
        if not has_pictures:
            yield path  # a folder without pictures is an error of its own


def read_list(path: Path) -> Iterator[Path]:
    """Read names of files from a text, one on each line.

    Args:
        path: UTF-8, or any encoding with a byte order mark. Blank lines are ignored. Bytes that are not UTF-8 are kept,
            as they can be part of a name.

    Raises:
        FmnistError: if it cannot be read.
    """
    try:
        with path.open("rb") as content:
            start = content.peek(4)
            encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
            errors = "replace" if encoding in {"utf-16", "utf-32"} else "surrogateescape"
            with io.TextIOWrapper(content, encoding, errors, newline="\n") as lines:
                yield from (Path(line) for line in map(_without_line_end, lines) if line.strip())
    except OSError as error:
        raise FmnistError(one_line(error)) from error


def _without_line_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _describe_other(path: Path) -> str | None:
    """Say what a file in a folder is if it is no picture, in words or `""`. None for a picture."""
    try:
        if path.is_dir():
            return "a folder"
        if path.suffix.lower() in SUFFIXES:
            return None
        if not path.is_file():
            return "no regular file"
        with path.open("rb") as file:
            start = file.read(NUM_BYTES)
    except OSError:
        return None  # reading it as a picture raises the error
    return None if identify(start) else describe(start) or ""


def describe_passed_over(passed_over: Sequence[str]) -> str:
    """Format what was passed over in folders as one line."""
    number = "1 entry that is not read" if len(passed_over) == 1 else f"{len(passed_over)} entries that are not read"
    more = f", and {len(passed_over) - MAX_NAMED} more" if len(passed_over) > MAX_NAMED else ""
    return f"Passed over {number}: {', '.join(passed_over[:MAX_NAMED])}{more}"


def classify_files(
    classifier: "Classifier",
    files: Sequence[Path],
    kind: Literal["image", "photo"] | None = None,
    steps: Path | None = None,
) -> Iterator[Answer]:
    """Classify files on all processors.

    Args:
        classifier: the model.
        files: `-` is the standard input.
        kind: as in `Classifier.classify`.
        steps: folder for a picture of the steps of each conversion.

    Yields:
        An answer for each file in the order given. Whatever goes wrong with a file is its own answer.
    """

    def classify(number: int, file: Path) -> Answer:
        try:
            if file == STDIN:
                prediction = classifier.classify(sys.stdin.buffer, kind=kind, name="standard input")
            else:
                prediction = classify_file(classifier, file, kind)
        except Exception as error:
            return Answer(file, error=error)
        failure = None
        if steps:
            try:
                stem = "stdin" if file == STDIN else file.stem[:MAX_STEM_LENGTH]
                save_steps(prediction, steps / f"{number:03}-{stem}.png")
            except (FmnistError, OSError) as error:
                failure = error
        return Answer(file, replace(prediction, steps={}), failure)

    num_threads = num_cpus()
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(num_threads, "classify") as pool:
        try:
            for number, file in enumerate(files, start=1):
                waiting.append(pool.submit(classify, number, file))
                if len(waiting) > 2 * num_threads:  # results are not collected faster than they are taken
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def save_steps(prediction: "Prediction", path: Path) -> None:
    """Save a picture of the steps of a prediction's conversion."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    contact_sheet(prediction.steps).save(content, "PNG")
    write_atomic(path, content.getvalue())


def contact_sheet(steps: dict[str, Image.Image], edge: int = 224) -> Image.Image:
    """Draw the steps of a conversion side by side, each in a square of `edge` pixels."""
    sheet = Image.new("RGB", (edge * len(steps), edge), "white")
    for index, step in enumerate(steps.values()):
        is_final = step.size == (IMAGE_SIZE, IMAGE_SIZE)
        resampling = Image.Resampling.NEAREST if is_final else Image.Resampling.BICUBIC
        fitted = ImageOps.contain(step.convert("RGB"), (edge - 8, edge - 8), resampling)
        sheet.paste(fitted, (edge * index + (edge - fitted.width) // 2, (edge - fitted.height) // 2))
    return sheet
