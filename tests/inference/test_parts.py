"""Plan and parts: every picture has one answer, in the order given, whatever happened before."""

import json
import logging
import os

import numpy as np
import pytest
from PIL import Image

from fmnist.errors import FmnistError
from fmnist.files import write_atomic
from fmnist.inference import parts, plan
from fmnist.inference.executors import SerialExecutor
from fmnist.inference.parts import Counts, Part, Work, answer_parts, find_missing
from fmnist.inference.plan import describe_model, freeze_plan
from fmnist.inference.runtime import limited_threads, session_options

NAMES = ["b.png", "a.png", "text.png", "none.png", 'quote".png', "new\nline.png", "ä\N{JEANS}.png", "\udcff.png"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with pictures, of which one is a text and one is missing, and parts of 3 pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "PART_SIZE", 3)
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(name, "PNG")
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "none.png").unlink()
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def start(here, classifier, small_run):
    """Freeze the plan for the pictures, or for others."""

    def freeze(names=NAMES, kind=None):
        return Work(
            here / "out", freeze_plan(here / "out", describe_model(classifier), kind, names), small_run.folder, 2
        )

    return freeze


def answer_all(work):
    """Return the counts before and after, and the numbers of the parts that were missing."""
    before, missing = find_missing(work)
    after = before
    for counts in answer_parts(work, missing, SerialExecutor(), 1):
        after += counts
    return before, after, [part.number for part in missing]


def lines(folder):
    return [json.loads(line) for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]


def test_answers_are_those_of_one_picture_at_a_time(start, here, classifier):
    assert answer_all(start()) == (Counts(0, 0), Counts(6, 2), [0, 1, 2])
    items = lines(here / "out")
    assert [item["file"] for item in items] == NAMES
    assert ["error" in item for item in items] == [name in {"text.png", "none.png"} for name in NAMES]
    assert items[0] == {"file": "b.png", **classifier.classify("b.png").to_json()}
    assert "text.png is not a picture (a text)" in items[2]["error"]


def test_finished_parts_are_not_answered_again(start, here):
    answer_all(start())
    before = {path.name: path.stat().st_ino for path in (here / "out").iterdir()}
    (here / "out" / "part-00001.jsonl").unlink()
    (here / "out" / ".part-00001.jsonl.0123abcd").write_text("of a killed process")
    work = start()
    assert answer_all(work) == (Counts(4, 1), Counts(6, 2), [1])
    after = {path.name: path.stat().st_ino for path in (here / "out").iterdir()}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"part-00001.jsonl"}
    assert answer_all(work) == (Counts(6, 2), Counts(6, 2), [])


DAMAGES = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-20],
    "a line less": lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    "a line more": lambda content: content + content.splitlines(keepends=True)[0],
    "another order": lambda content: b"".join(content.splitlines(keepends=True)[::-1]),
    "zeros": lambda content: bytes(len(content)),
    "a line without an end": lambda content: content[:-1],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_answered_again(start, here, caplog, damage):
    answer_all(start())
    path = here / "out" / "part-00001.jsonl"
    intact = path.read_bytes()
    path.write_bytes(DAMAGES[damage](intact))
    with caplog.at_level(logging.WARNING):
        assert answer_all(start())[1:] == (Counts(6, 2), [1])
    assert "part-00001.jsonl is damaged; its pictures are classified again" in caplog.text
    assert path.read_bytes() == intact


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        (NAMES[::-1], None, "out has answers to other pictures (8; this command names 8, and the SHA-256 of the lists"),
        ([*NAMES, "more.png"], None, "has answers to other pictures (8; this command names 9"),
        ([], None, "has answers to other pictures (8; this command names 0"),
        (NAMES, "photo", "out was started without --as, and this command is with --as photo; name a new folder"),
    ],
)
def test_another_plan_is_refused(start, here, names, kind, expected):
    answer_all(start())
    before = lines(here / "out")
    with pytest.raises(FmnistError) as error:
        start(names, kind)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert lines(here / "out") == before


def test_the_same_names_in_another_folder_are_other_pictures(start, here, monkeypatch):
    start()
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    with pytest.raises(FmnistError, match="its pictures are named relative to that folder; repeat the command there"):
        start()


def test_absolute_names_are_the_same_pictures_in_any_folder(start, here, monkeypatch):
    names = [str(here / name) for name in NAMES]
    assert start(names).plan.pictures.folder is None
    monkeypatch.chdir("/")
    assert answer_all(start(names))[1] == Counts(6, 2)


def test_a_folder_whose_name_is_not_unicode(start, here, monkeypatch):
    os.mkdir(b"\xff")
    monkeypatch.chdir(here / "\udcff")
    assert start().plan == start().plan


@pytest.mark.parametrize("field", ["sha256", "color_sha256", "class_names", "threshold", "photo_threshold"])
def test_another_model_is_refused(start, here, classifier, field):
    values = {"class_names": ("a", "b"), "threshold": 0.125, "photo_threshold": None}
    model = describe_model(classifier)
    work = start()
    changed = type(model)(**{**model.to_json(), field: values.get(field, "0" * 64), "name": "another"})
    with pytest.raises(
        FmnistError, match=r"has answers of .* \(SHA-256 \w{12}\), and this command names another \(SHA"
    ):
        freeze_plan(here / "out", changed, None, NAMES)
    renamed = type(model)(**{**model.to_json(), "name": "another"})
    assert freeze_plan(here / "out", renamed, None, NAMES) == work.plan


def test_a_model_that_changes_meanwhile_is_refused(start, here, copied_run):
    work = start()
    work = Work(work.folder, type(work.plan)(**{**work.plan.to_json(), "model": {
        **work.plan.model.to_json(), "sha256": "0" * 64}}), copied_run.folder, 1)  # fmt: skip
    with pytest.raises(FmnistError, match="has changed since the first answers; restore it, or name a new folder"):
        parts.answer_part(work, Part(0, 0))


def test_answers_have_the_name_by_which_the_model_was_first_opened(start, here, copied_run):
    work = start()
    answer_all(Work(work.folder, work.plan, copied_run.folder, 1))
    assert {item["model"] for item in lines(here / "out") if "model" in item} == {work.plan.model.name}


def test_a_list_that_was_changed_is_refused(start, here):
    work = start()
    path = here / "out" / "pictures.jsonl"
    content = path.read_bytes()
    for changed in (content + b'"more.png"\n', content[:-12], content.replace(b"a.png", b"c.png"), b""):
        path.write_bytes(changed)
        with pytest.raises(
            FmnistError, match=r"pictures.jsonl is not the file that plan.json names \(SHA-256 differs\)"
        ):
            find_missing(work)
    path.unlink()
    with pytest.raises(FmnistError, match=r"cannot be read on .* \(No such file or directory\); .*a new"):
        find_missing(work)


def test_only_a_new_folder_gets_a_plan(start, here):
    (here / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FmnistError, match=r"out has notes.txt and no plan.json; expected a new folder"):
        start()
    (here / "out" / "notes.txt").unlink()
    (here / "out" / "pictures.jsonl").write_text("of a process that was killed before it wrote the plan")
    (here / "out" / ".pictures.jsonl.0123abcd").write_text("the same")
    assert answer_all(start())[1] == Counts(6, 2)


def test_no_pictures(start, here):
    with pytest.raises(FmnistError, match="no picture is named"):
        start([])
    assert list((here / "out").iterdir()) == []


def test_a_failed_write_keeps_the_other_parts(start, here, monkeypatch):
    def fail_second(path, content):
        if path.name == "part-00001.jsonl":
            raise OSError(28, "No space left on device", str(path))
        write_atomic(path, content)

    work = start()
    monkeypatch.setattr(parts, "write_atomic", fail_second)
    with pytest.raises(OSError, match="No space left"):
        answer_all(work)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert answer_all(work) == (Counts(2, 1), Counts(6, 2), [1, 2])


def test_a_picture_that_exhausts_the_memory_is_its_own_answer(start, here, monkeypatch):
    def fail(classifier, file, kind):
        raise MemoryError

    monkeypatch.setattr(parts, "classify_file", fail)
    assert answer_all(start())[1] == Counts(0, 8)
    assert {item["error"].partition(";")[0] for item in lines(here / "out")} == {"not enough memory"}


def test_graphs_get_the_threads_that_are_asked_for():
    before = session_options().intra_op_num_threads
    with limited_threads(7):
        assert session_options().intra_op_num_threads == 7
    assert session_options().intra_op_num_threads == before
