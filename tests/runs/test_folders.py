"""The folder `runs/`."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import as_unprivileged_user

from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.runs.folders import finished_runs, make_run_folder, newest_finished_run
from fmnist.runs.schemas import RunDescription


def test_runs_that_start_in_the_same_second_get_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(16) as threads:
        folders = list(threads.map(make_run_folder, ["fast"] * 64))
    assert len(set(folders)) == 64
    assert all(folder.is_dir() for folder in folders)


def test_the_newest_run_is_found_by_the_time_in_its_config(small_run, tmp_path):
    for name, day in (("a", 2), ("b", 3), ("c", 1), ("without a manifest", 4)):
        folder = shutil.copytree(small_run.folder, tmp_path / name)
        created = small_run.created.replace(year=2026, month=1, day=day)
        write_document(folder / "config.json", RunDescription(created=created, config=small_run.config))
    (tmp_path / "without a manifest" / "manifest.json").unlink()
    assert newest_finished_run(tmp_path).folder == tmp_path / "b"


def test_no_finished_run(tmp_path):
    with pytest.raises(FmnistError, match=r"no finished run in .*; `fmnist train` trains one"):
        newest_finished_run(tmp_path)


@pytest.mark.parametrize("mode", [0o311, 0o444], ids=["cannot be listed", "cannot be entered"])
def test_a_closed_folder_does_not_hide_the_other_runs(open_folder, small_run, mode):
    for name in ("closed", "open"):
        shutil.copytree(small_run.folder, open_folder / name)
    (open_folder / "closed").chmod(mode)
    with as_unprivileged_user():
        found = finished_runs(open_folder)
    (open_folder / "closed").chmod(0o755)
    assert [run.name for run in found] == ["open"]
