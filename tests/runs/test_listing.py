"""The list of the runs in a folder."""

import json
import shutil

import pytest
from helpers import as_unprivileged_user, tree
from msgspec.structs import replace

from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.runs.history import write_history
from fmnist.runs.listing import describe_run, find_run_folders
from fmnist.runs.schemas import RunDescription


@pytest.fixture
def copy(small_run, tmp_path):
    """Copy `small_run` to a folder of this name."""
    return lambda name: shutil.copytree(small_run.folder, tmp_path / "runs" / name)


def names(folder):
    return [str(path.relative_to(folder)) for path in find_run_folders(folder)]


def test_runs_are_found_also_one_level_below(copy, tmp_path):
    for name in ("b", "study/runs/fast-1", "sweep/1", "sweep/2", "a", ".hidden", "deep/er/run"):
        copy(name)
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "file").touch()
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "text.md").touch()
    (tmp_path / "runs" / "link").symlink_to("a")
    assert names(tmp_path / "runs") == ["a", "b", "link", "study/runs/fast-1", "sweep/1", "sweep/2"]
    assert names(tmp_path / "runs" / "study") == ["runs/fast-1"]
    assert find_run_folders(tmp_path / "runs" / "a") == [tmp_path / "runs" / "a"]


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(FmnistError, match=r"no folder .*none; expected a folder of runs"):
        find_run_folders(tmp_path / "none")


def test_a_run_is_described(small_run, copied_run):
    before = tree(copied_run.folder)
    row = describe_run(copied_run.folder)
    assert row == {
        "run": str(copied_run.folder),
        "preset": "fast",
        "data": small_run.config.data,
        "seed": 0,
        "status": "finished",
        "val_accuracy": small_run.manifest().validation.accuracy,
        "test_accuracy": None,
        "train_seconds": small_run.manifest().train_seconds,
        "bytes": sum(map(len, before.values())),
        "error": None,
    }
    (copied_run.folder / "evaluation.json").write_text(json.dumps({"num_images": 9, "accuracy": 0.5, "more": []}))
    assert describe_run(copied_run.folder)["test_accuracy"] == 0.5
    (copied_run.folder / "evaluation.json").unlink()
    assert tree(copied_run.folder) == before


def test_data_is_known_by_its_hash(copied_run):
    from fmnist.data.download import FILES

    path = copied_run.folder / "environment.json"
    environment = json.loads(path.read_text())
    write_document(
        copied_run.folder / "config.json",
        RunDescription(created=copied_run.created, config=replace(copied_run.config, data=None)),
    )
    assert describe_run(copied_run.folder)["data"] == "in memory"
    path.write_text(json.dumps({**environment, "data_sha256": FILES}))
    assert describe_run(copied_run.folder)["data"] == "Fashion-MNIST"


def test_runs_that_are_not_finished(copied_run):
    history = copied_run.history()
    copied_run.onnx_path.unlink()
    assert describe_run(copied_run.folder)["status"] == "trained"
    copied_run.manifest_path.unlink()
    write_history(copied_run.history_path, history[:2])
    row = describe_run(copied_run.folder)
    assert (row["status"], row["error"]) == ("training", None)
    assert row["val_accuracy"] == history[1]["val_accuracy"]
    assert row["train_seconds"] == history[0]["seconds"] + history[1]["seconds"]
    for name in ("history.csv", "environment.json", "weights.safetensors"):
        (copied_run.folder / name).unlink()
    row = describe_run(copied_run.folder)
    assert (row["status"], row["error"], row["preset"]) == ("training", None, "fast")
    assert (row["val_accuracy"], row["train_seconds"]) == (None, None)


@pytest.mark.parametrize("name", ["config.json", "environment.json", "history.csv", "manifest.json", "evaluation.json"])
@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b'{"accuracy": 2}', b"[" * 100_000])
def test_a_damaged_run_is_listed_with_its_error(copied_run, name, content):
    (copied_run.folder / name).write_bytes(content)
    row = describe_run(copied_run.folder)
    assert row["status"] == "damaged"
    assert name in row["error"]
    assert "\n" not in row["error"]
    assert row["bytes"] > 0
    assert row["preset"] == (None if name == "config.json" else "fast")


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_run_without_a_document_is_damaged_or_not_finished(copied_run, name):
    (copied_run.folder / name).unlink()
    assert find_run_folders(copied_run.folder.parent) == [copied_run.folder]
    row = describe_run(copied_run.folder)
    assert row["status"] == ("damaged" if name == "config.json" else "trained")


@pytest.mark.parametrize(
    ("mode", "has_run"),
    [(0o000, True), (0o311, True), (0o444, True), (0o000, False), (0o311, False)],  # neither, enter, list
)
def test_a_closed_folder_does_not_hide_the_other_runs(open_folder, small_run, mode, has_run):
    for name in ("closed", "open"):
        shutil.copytree(small_run.folder, open_folder / name)
    if not has_run:
        shutil.rmtree(open_folder / "closed")
        (open_folder / "closed").mkdir()
    (open_folder / "closed").chmod(mode)
    with as_unprivileged_user():
        rows = [describe_run(path) for path in find_run_folders(open_folder)]
    (open_folder / "closed").chmod(0o755)
    assert [row["run"] for row in rows] == [str(open_folder / "closed"), str(open_folder / "open")]
    assert [row["status"] for row in rows] == ["damaged", "finished"]
    assert "permission denied" in rows[0]["error"]
