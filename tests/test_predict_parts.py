"""`fmnist predict --out`: answers in parts, which no kill loses or repeats."""

import errno
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from helpers import interruptible
from PIL import Image

from fmnist import files
from fmnist.errors import FmnistError
from fmnist.files import lock_folder
from fmnist.inference import plan
from fmnist.inference.classifier import Classifier
from fmnist.inference.parts import Part, Work, answer_part

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NUM_PICTURES = 8
KEYS = ["out", "num_pictures", "num_answered", "num_errors", "num_parts", "seconds"]


def draw(folder, number):
    """Write images in the format of the data set, each different."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        pixels = np.zeros((28, 28), np.uint8)
        pixels[4:24, 6:22] = rng.integers(60, 256, (20, 16))
        Image.fromarray(pixels).save(folder / f"{index:04}.png")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a folder of pictures, and parts of 3 pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "PART_SIZE", 3)
    draw(tmp_path / "photos", NUM_PICTURES)
    return tmp_path


def answers(folder):
    return [json.loads(line) for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]


def test_answers_are_those_without_parts(cli, here):
    (here / "photos" / "text.png").write_text("text")
    (here / "photos" / "notes.txt").write_text("text")
    arguments = ("predict", "photos", "none.png", "photos/0003.png", "photos/0003.png")
    (here / "empty").mkdir()
    expected = json.loads(cli(*arguments, "empty", "--json")[1])
    code, out, err = cli(*arguments, "empty", "--out", "answers", "--json")
    assert code == 1
    assert answers(here / "answers") == expected
    document = json.loads(out)
    assert list(document) == KEYS
    assert [document[key] for key in KEYS[:-1]] == ["answers", NUM_PICTURES + 5, NUM_PICTURES + 2, 3, 5]
    assert "Model: the pretrained model" in err
    assert "Passed over 1 entry that is not read: photos/notes.txt (a text)" in err
    assert "13 pictures have a line in answers; for 3 of them the line has an error" in err


def test_processes_write_the_same_answers(cli, here):
    assert cli("predict", "photos", "--out", "one")[:2] == (0, f"{NUM_PICTURES} pictures have a line in one\n")
    code, out, _ = cli("predict", "photos", "--out", "two", "--jobs", 2, "--json")
    assert code == 0
    assert json.loads(out)["num_answered"] == NUM_PICTURES
    names = sorted(path.name for path in (here / "one").iterdir())
    assert names == [*(f"part-{number:05}.jsonl" for number in range(3)), "pictures.jsonl", "plan.json"]
    for name in names:
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_same_command_continues(cli, here, jobs):
    cli("predict", "photos", "--out", "answers")
    before = {path: path.stat().st_ino for path in (here / "answers").iterdir()}
    (here / "answers" / "part-00001.jsonl").unlink()
    code, out, err = cli("predict", "photos", "--out", "answers", "--jobs", jobs, "--json")
    assert code == 0
    assert f"5 of {NUM_PICTURES} pictures were answered before" in err
    assert json.loads(out)["num_answered"] == NUM_PICTURES
    assert [item["file"] for item in answers(here / "answers")] == [f"photos/{n:04}.png" for n in range(NUM_PICTURES)]
    changed = {path.name for path, number in before.items() if path.stat().st_ino != number}
    assert changed <= {"part-00001.jsonl"}


def test_the_folder_of_the_answers_is_none_of_pictures(cli, here):
    """A shell replaces `photos/*` by more names the second time."""
    names = [f"photos/{number:04}.png" for number in range(NUM_PICTURES)]
    assert cli("predict", *names, "--out", "photos/answers")[0] == 0
    assert cli("predict", *names, "photos/answers", "--out", "photos/answers")[0] == 0


def test_errors_of_earlier_commands_count(cli, here):
    shutil.copy(__file__, "photos/0001.png")
    assert cli("predict", "photos", "--out", "answers")[0] == 1
    code, out, _ = cli("predict", "photos", "--out", "answers", "--json")
    assert (code, json.loads(out)["num_errors"]) == (1, 1)


LISTS = {
    "plain": "photos/0001.png\nphotos\nä.png\n".encode(),
    "without a last line end": "photos/0001.png\nphotos\nä.png".encode(),
    "Windows' line ends and blank lines": "photos/0001.png\r\n\r\nphotos\r\nä.png\r\n  \r\n".encode(),
    "UTF-8 with a mark": "\ufeffphotos/0001.png\nphotos\nä.png\n".encode(),
    "UTF-16": "photos/0001.png\r\nphotos\r\nä.png\r\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("options", [(), ("--out", "answers")], ids=["table", "parts"])
def test_names_are_read_from_a_list(cli, here, name, options):
    draw(here / "more", 1)
    shutil.copy("more/0000.png", "ä.png")
    (here / "list.txt").write_bytes(LISTS[name])
    code, out, _ = cli("predict", "more", "--list", "list.txt", *options, "--json")
    assert code == 0
    items = answers(here / "answers") if options else json.loads(out)
    folder = [f"photos/{number:04}.png" for number in range(NUM_PICTURES)]
    assert [item["file"] for item in items] == ["more/0000.png", "photos/0001.png", *folder, "ä.png"]


def test_names_that_are_not_unicode(cli, here):
    name = os.fsencode("photos/") + b"\xff.png"
    shutil.copy("photos/0001.png", name)
    (here / "list.txt").write_bytes(name + b"\nnull\0.png\n")
    assert cli("predict", "--list", "list.txt", "--out", "answers")[0] == 1
    first, second = answers(here / "answers")
    assert (os.fsencode(first["file"]), "label" in first) == (name, True)
    assert "cannot be read" in second["error"]


REFUSED = {
    "other pictures": (("photos/0001.png", "--out", "answers"), "answers has answers to other pictures (8; this"),
    "another model": (("photos", "--out", "answers", "--model", "run"), "and this command names run (SHA-256"),
    "another kind": (("photos", "--out", "answers", "--as", "photo"), "answers was started without --as, and this"),
    "a folder with other files": (
        ("photos", "--out", "photos"),
        "photos has 0000.png and no plan.json; expected a new",
    ),
    "a file": (("photos", "--out", "photos/0001.png"), "is a file, where a folder was expected"),
    "the standard input": (("-", "--out", "new"), "- is standard input, which cannot be read again"),
    "a missing list": (("--list", "none.txt", "--out", "new"), "none.txt: no such file or folder; check the name"),
    "a missing list without parts": (("--list", "none.txt"), "none.txt: no such file or folder; check the name"),
    "a list that is a folder": (("--list", "photos", "--out", "new"), "photos: is a folder, where a file was expected"),
    "an empty list": (("--list", "empty.txt", "--out", "new"), "no picture is named; expected pictures, folders of"),
    "a missing model": (("photos", "--out", "new", "--model", "none"), "no run folder none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(cli, here, small_run, case):
    arguments, expected = REFUSED[case]
    (here / "run").symlink_to(small_run.folder)
    (here / "empty.txt").touch()
    cli("predict", "photos", "--out", "answers")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    code, out, err = cli("predict", *arguments)
    assert (code, out) == (1, "")
    (line,) = [line for line in err.splitlines() if not line.startswith("Model: ")]
    assert line.startswith("fmnist: error: ")
    assert expected in line
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [("--out", "answers"), ("photos", "--jobs", 2), ("photos", "--out", "answers", "--jobs", 0),
     ("photos", "--out", "answers", "--steps", "steps")],
    ids=str,
)  # fmt: skip
def test_usage_errors(cli, here, arguments):
    code, out, err = cli("predict", *arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_a_folder_is_written_by_one_process(cli, here):
    (here / "answers").mkdir()
    with lock_folder(here / "answers"):
        code, _, err = cli("predict", "photos", "--out", "answers")
    assert code == 1
    assert "answers is in use by another fmnist process" in err
    assert list((here / "answers").iterdir()) == []


def test_a_full_disk_is_one_line_and_the_same_command_continues(cli, here, monkeypatch):
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:  # each file is synced with its folder: the list, the plan and the first part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    code, out, err = cli("predict", "photos", "--out", "answers", "--json")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith("no space left on the disk; free some and try again")
    monkeypatch.setattr(files.os, "fsync", fsync)
    code, out, err = cli("predict", "photos", "--out", "answers", "--json")
    assert (code, json.loads(out)["num_answered"]) == (0, NUM_PICTURES)
    assert "3 of 8 pictures were answered before" in err


@pytest.mark.parametrize("seconds", [0, 30])
def test_progress_without_a_terminal_is_a_line_now_and_then(cli, here, monkeypatch, seconds):
    monkeypatch.setattr("fmnist.cli.parts.SECONDS_BETWEEN_LINES", seconds)
    _, _, err = cli("predict", "photos", "--out", "answers")
    lines = re.findall(r"^(\d) of 8 pictures, [\d,.]+/s, 0:00:0\d left$", err, re.MULTILINE)
    assert lines == (["3", "6", "8"] if seconds == 0 else [])


@pytest.mark.parametrize(
    ("done", "rate", "expected"),
    [
        (0, 0, "0 of 1,000,000 pictures"),
        (1_000, 0.5, "1,000 of 1,000,000 pictures, 0.5/s, 23 days, 3:00:00 left"),
        (200_000, 1_234.5, "200,000 of 1,000,000 pictures, 1,234/s, 0:10:48 left"),
    ],
)
def test_progress(done, rate, expected):
    from fmnist.cli.parts import describe_progress

    assert describe_progress(done, 1_000_000, rate) == expected


def stop_after_a_part(monkeypatch, error):
    from fmnist.cli import parts

    answer_parts = parts.answer_parts

    def stopped(*arguments, **options):
        yield next(answer_parts(*arguments, **options))
        raise error

    monkeypatch.setattr(parts, "answer_parts", stopped)


def test_an_interrupt_says_how_to_continue(cli, here, monkeypatch):
    stop_after_a_part(monkeypatch, KeyboardInterrupt())
    code, out, err = cli("predict", "photos", "--out", "answers", "--json")
    assert code == 130
    assert [json.loads(out)[key] for key in KEYS[:5]] == ["answers", NUM_PICTURES, 3, 0, 3]
    assert err.splitlines()[-1] == "Interrupted after 3 of 8 pictures; the same command continues"


def test_the_loss_of_a_process_is_one_line(cli, here, monkeypatch):
    stop_after_a_part(monkeypatch, BrokenProcessPool())
    code, out, err = cli("predict", "photos", "--out", "answers", "--jobs", 2, "--json")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("fmnist: error: a process that classified pictures was ended from outside")
    monkeypatch.undo()


COMMAND = "from fmnist.inference import plan; plan.PART_SIZE = {}; from fmnist.__main__ import main; main()"
AUDIT = """
import os, sys
log = os.open("opened.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".png"):
        os.write(log, (str(arguments[0]) + "\\n").encode())
sys.addaudithook(hook)
"""
"""Logs each picture that is opened."""


def start(code, *arguments):
    command = interruptible([sys.executable, "-c", code, "predict", *arguments])
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_parts(folder, number):
    end = time.monotonic() + 60
    while len(list(folder.glob("part-*"))) < number:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.slow
def test_kills_at_random_moments_lose_and_repeat_nothing_but_a_part(cli, here):
    """The first kill can hit the start; the others wait for some more parts."""
    part_size, num_pictures, num_kills = 5, 200, 5
    draw(here / "many", num_pictures)
    seed = secrets.randbelow(2**32)
    moments = random.Random(seed)
    code = AUDIT + COMMAND.format(part_size)
    targets = [0, *sorted(moments.sample(range(1, 30), num_kills - 1))]
    inodes = {}
    for target in targets:
        with start(code, "many", "--out", "answers") as process:
            wait_for_parts(here / "answers", target)
            time.sleep(moments.uniform(0, 0.6 if target == 0 else 0.02))
            process.kill()
        assert process.returncode == -signal.SIGKILL, seed
        found = {path.name: path.stat().st_ino for path in (here / "answers").glob("part-*")}
        assert found.items() >= inodes.items(), seed
        inodes = found
    with start(code, "many", "--out", "answers", "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["num_answered"] == num_pictures
    assert [item["file"] for item in answers(here / "answers")] == [f"many/{n:04}.png" for n in range(num_pictures)]
    opened = Counter((here / "opened.log").read_text().splitlines())
    assert len(opened) == num_pictures
    assert sum(opened.values()) - num_pictures <= num_kills * part_size, seed
    assert {path.name for path in (here / "answers").iterdir()} == {
        "plan.json",
        "pictures.jsonl",
        *(f"part-{number:05}.jsonl" for number in range(40)),
    }


@pytest.mark.slow
def test_a_killed_process_of_several_repeats_its_part_only(here):
    draw(here / "many", 200)
    (here / "answers").mkdir()
    with start(COMMAND.format(20), "many", "--out", "answers", "--jobs", 2) as process:
        wait_for_parts(here / "answers", 1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == 1
    lines = err.splitlines()
    assert lines[-1].startswith("fmnist: error: a process that classified pictures was ended from outside"), err
    assert len(lines) == 2
    finished = len(list((here / "answers").glob("part-*")))
    with start(COMMAND.format(20), "many", "--out", "answers", "--jobs", 2, "--json") as process:
        out, err = process.communicate()
    assert f"{20 * finished} of 200 pictures were answered before" in err
    assert json.loads(out)["num_answered"] == 200


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_all_processes_quickly(here, jobs):
    draw(here / "many", 200)
    with start(COMMAND.format(10), "many", "--out", "answers", "--jobs", jobs) as process:
        (here / "answers").mkdir(exist_ok=True)
        wait_for_parts(here / "answers", 2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        started = time.monotonic()
        _, err = process.communicate()
        assert time.monotonic() - started < 5
    assert process.returncode == 130, err
    assert re.fullmatch(r"Interrupted after \d+ of 200 pictures; the same command continues", err.splitlines()[-1])
    assert len(err.splitlines()) == 2, err


@pytest.mark.slow
def test_a_cluster_gives_the_same_answers(cli, here, monkeypatch):
    """Its workers were started in another folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from study_kills import Cluster

    assert cli("predict", "photos", "none.png", "--out", "expected")[0] == 1
    cluster = Cluster(here, "", 1)
    monkeypatch.chdir(here.parent)
    try:
        for name in ("scheduler", "worker 0"):
            cluster.start(name)
        monkeypatch.chdir(here)
        command = ("predict", "photos", "none.png", "--out", "answers", "--cluster", str(cluster.scheduler_file))
        code, _, errors = cli(*command)
    finally:
        cluster.stop()
    assert code == 1, errors
    for path in sorted((here / "expected").glob("part-*")):
        assert (here / "answers" / path.name).read_text() == path.read_text()


def test_the_pretrained_model_is_that_of_each_machine(cli, here, monkeypatch):
    works = []
    monkeypatch.setattr("fmnist.cli.parts.answer_parts", lambda work, *_: works.append(work) or [])
    cli("predict", "photos", "--out", "answers")
    assert (works[0].model, works[0].folder) == (None, here / "answers")


def test_finished_answers_need_no_cluster(cli, here):
    assert cli("predict", "photos", "--out", "answers")[0] == 0
    assert cli("predict", "photos", "--out", "answers", "--cluster", "missing.json")[0] == 0


def test_a_machine_of_the_cluster_that_differs_is_refused(here, monkeypatch):
    record = plan.describe_model(Classifier.load())
    (here / "out").mkdir()
    frozen = plan.freeze_plan(here / "out", record, None, ["photos/0000.png"])
    work = Work(here / "out", frozen, None, 1, {"fmnist": "9.0", "numpy": np.__version__})
    with pytest.raises(FmnistError, match=r"has fmnist \S+, not 9.0; install the same on all machines"):
        answer_part(work, Part(0, 0))
    elsewhere = Work(here / "elsewhere", frozen, None, 1)
    with pytest.raises(FmnistError, match="on a cluster, all machines need this folder"):
        answer_part(elsewhere, Part(0, 0))


def test_relative_names_are_those_of_the_plan(here, monkeypatch):
    record = plan.describe_model(Classifier.load())
    (here / "out").mkdir()
    frozen = plan.freeze_plan(here / "out", record, None, ["photos/0000.png"])
    monkeypatch.chdir(here / "photos")
    assert answer_part(Work(here / "out", frozen, None, 1), Part(0, 0)) == (1, 0)
    assert answers(here / "out")[0]["file"] == "photos/0000.png"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cluster", "x"), "expected --out with --cluster"),
        (("--cluster", "x", "--jobs", "2", "--out", "answers"), "the cluster's workers are its processes"),
    ],
)
def test_options_that_exclude_each_other(options, message, cli, here):
    code, _, errors = cli("predict", "photos", *options)
    assert code == 2
    assert message in " ".join(errors.split())
