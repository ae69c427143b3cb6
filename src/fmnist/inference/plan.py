"""The plan by which any number of pictures is classified: which ones, by which model, in which parts.

It is written before the first answer, to `plan.json`, with the names of all pictures in `pictures.jsonl`.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, structs

from fmnist.documents import FORMAT_VERSION, Document, read_document, write_document
from fmnist.errors import FmnistError
from fmnist.files import is_temporary_file, remove_temporary_files, write_atomic
from fmnist.runs.schemas import Count, Sha256

if TYPE_CHECKING:
    from fmnist.inference.classifier import Classifier

PLAN_FILE = "plan.json"
PICTURES_FILE = "pictures.jsonl"
PART_SIZE = 1_000
"""Pictures in a part of a new plan."""
OTHER_FOLDER = "name a new folder with --out"

Kind = Literal["image", "photo"] | None
"""As in `Classifier.classify`."""


class ModelRecord(Document, frozen=True, kw_only=True):
    """What answers depend on."""

    name: str
    """In the answers."""
    sha256: Sha256
    """Of the graph, or of the weights of an adapted model."""
    color_sha256: Sha256 | None
    """Of the color network, if the model has one."""
    class_names: tuple[str, ...]
    threshold: float | None
    photo_threshold: float | None


class PicturesRecord(Document, frozen=True, kw_only=True):
    """The list of pictures."""

    number: Count
    sha256: Sha256
    """Of `pictures.jsonl`."""
    folder: str | None
    """Working folder, if a picture is named relative to it."""


class Plan(Document, frozen=True, kw_only=True):
    """`plan.json`: what is answered, by which model, in which parts. It does not change."""

    format_version: int = FORMAT_VERSION
    model: ModelRecord
    kind: Kind
    pictures: PicturesRecord
    part_size: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Pictures in each part but the last."""


def describe_model(classifier: "Classifier") -> ModelRecord:
    """Return what the answers of a model depend on."""
    return ModelRecord(
        name=classifier.name,
        sha256=classifier.sha256,
        color_sha256=classifier.color.record.sha256 if classifier.color else None,
        class_names=tuple(classifier.class_names),
        threshold=classifier.threshold,
        photo_threshold=classifier.photo_threshold,
    )


def is_same_model(model: ModelRecord, other: ModelRecord) -> bool:
    """Check that two models give the same answers. They may have different names."""
    return structs.replace(model, name=other.name) == other


def freeze_plan(folder: Path, model: ModelRecord, kind: Kind, pictures: Iterable[str]) -> Plan:
    """Write the plan, or check that the plan in the folder is the same.

    Args:
        folder: new, empty, or with a plan. It is locked, see `fmnist.files.lock_folder`.
        model: of all answers.
        kind: what all pictures are taken for.
        pictures: names of files. They are not kept in memory.

    Raises:
        FmnistError: if there are no pictures, the folder has a plan for other ones or for another model, or has other
            files.
    """
    path, list_path = folder / PLAN_FILE, folder / PICTURES_FILE
    lines = (json.dumps(picture).encode() + b"\n" for picture in pictures)
    if os.path.lexists(path):
        plan = read_document(path, Plan, OTHER_FOLDER)
        _check_plan(folder, plan, model, kind, lines)
        remove_temporary_files(folder)
        return plan
    others = (entry.name for entry in folder.iterdir() if entry.name != PICTURES_FILE and not is_temporary_file(entry))
    if other := min(others, default=None):
        raise FmnistError(f"{folder} has {other} and no {PLAN_FILE}; expected a new folder, so {OTHER_FOLDER}")
    remove_temporary_files(folder)
    write_atomic(list_path, lines)
    with list_path.open("rb") as file:
        record = _describe_list(file)
    if not record.number:
        list_path.unlink()
        raise FmnistError("no picture is named; expected pictures, folders of pictures, or a list of them")
    plan = Plan(model=model, kind=kind, pictures=record, part_size=PART_SIZE)
    write_document(path, plan)
    return plan


def _describe_list(lines: Iterable[bytes]) -> PicturesRecord:
    """Describe the lines of `pictures.jsonl`."""
    digest, number, is_relative = hashlib.sha256(), 0, False
    for line in lines:
        digest.update(line)
        number += 1
        is_relative = is_relative or not os.path.isabs(json.loads(line))
    return PicturesRecord(number=number, sha256=digest.hexdigest(), folder=os.getcwd() if is_relative else None)


def _check_plan(folder: Path, plan: Plan, model: ModelRecord, kind: Kind, lines: Iterable[bytes]) -> None:
    if not is_same_model(model, plan.model):
        raise FmnistError(
            f"{folder} has answers of {plan.model.name} (SHA-256 {plan.model.sha256[:12]}), and this command names "
            f"{model.name} (SHA-256 {model.sha256[:12]}); name that model with --model, or {OTHER_FOLDER}"
        )
    if kind != plan.kind:
        words = [f"with --as {value}" if value else "without --as" for value in (plan.kind, kind)]
        raise FmnistError(f"{folder} was started {words[0]}, and this command is {words[1]}; {OTHER_FOLDER}")
    record = _describe_list(lines)
    if (record.number, record.sha256) == (plan.pictures.number, plan.pictures.sha256) and record != plan.pictures:
        raise FmnistError(
            f"{folder} was started in {plan.pictures.folder}, and its pictures are named relative to that folder; "
            f"repeat the command there, or {OTHER_FOLDER}"
        )
    if record != plan.pictures:
        raise FmnistError(
            f"{folder} has answers to other pictures ({plan.pictures.number:,}; this command names {record.number:,}, "
            f"and the SHA-256 of the lists differ); name the same pictures in the same order, or {OTHER_FOLDER}"
        )
