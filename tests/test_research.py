"""The commands runs and compare: output, exit codes, errors in one line."""

import json
import shutil

import pytest
from msgspec.structs import replace

import fmnist
from fmnist.documents import write_document
from fmnist.runs.schemas import RunDescription


@pytest.fixture(scope="module")
def evaluated(small_run, small, tmp_path_factory):
    """The folder of a copy of `small_run` that is evaluated."""
    folder = shutil.copytree(small_run.folder, tmp_path_factory.mktemp("evaluated") / "run")
    fmnist.evaluate(folder, seed=0, dataset=small)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, evaluated, small_run):
    """A working folder with runs: `a` and `b`, of another seed and setting, are evaluated, `c` is not.

    `b` has predicted Bag for all images.
    """
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        shutil.copytree(evaluated, tmp_path / "runs" / name)
    shutil.copytree(small_run.folder, tmp_path / "runs" / "c")
    config = replace(small_run.config, seed=1, learning_rate=0.06)
    write_document(tmp_path / "runs" / "b" / "config.json", RunDescription(created=small_run.created, config=config))
    path = tmp_path / "runs" / "b" / "predictions.csv"
    header, *rows = path.read_text().splitlines(keepends=True)
    for number, row in enumerate(rows):
        index, true, _, *probabilities = row.split(",")
        rows[number] = ",".join([index, true, "Bag", *probabilities])
    path.write_text(header + "".join(rows))
    return tmp_path


def test_runs(cli, here, small_run):
    (here / "runs" / "d").mkdir()
    (here / "runs" / "d" / "config.json").write_text("{")
    code, out, err = cli("runs")
    assert (code, err) == (0, "")
    for text in (
        "runs/a",
        "runs/b",
        "runs/c",
        "finished",
        "damaged",
        f"{small_run.manifest().validation.accuracy:.2%}",
    ):
        assert text in out
    (line,) = [line for line in out.splitlines() if line.startswith("runs/d: ")]
    assert "config.json is damaged" in line
    code, out, err = cli("runs", "runs", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["run"] for row in rows] == ["runs/a", "runs/b", "runs/c", "runs/d"]
    assert [row["test_accuracy"] is None for row in rows] == [False, False, True, True]
    assert "runs/d: " in err


def test_no_runs(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("runs")
    assert (code, out) == (1, "")
    assert err.startswith("fmnist: error: no folder runs; ")
    (tmp_path / "runs").mkdir()
    code, out, _ = cli("runs")
    assert (code, out) == (0, "No runs in runs; `fmnist train` trains one\n")
    assert json.loads(cli("runs", "--json")[1]) == []


def test_compare(cli, here, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("fmnist.runs.data.load_from", fail)
    monkeypatch.setattr("fmnist.inference.classifier.Classifier.load", fail)
    code, out, err = cli("compare", "runs/a", "runs/b")
    assert (code, err) == (0, "")
    for text in ("2 runs on the same 200 test images", "Recall of the classes that differ most", "Settings that differ",
                 "learning_rate", "Right in runs/b and wrong in runs/a: "):  # fmt: skip
        assert text in out
    assert "Configurations" not in out
    document = json.loads(cli("compare", "runs/a", "runs/b", "--json")[1])
    assert set(document) == {"num_images", "class_names", "runs", "pairs", "configurations"}
    assert [row["run"] for row in document["runs"]] == ["runs/a", "runs/b"]


def test_compare_writes_a_page(cli, here, small_folder):
    for arguments in ((), ("--data", small_folder)):
        code, out, _ = cli("compare", "runs/a", "runs/b", "--out", "new/folder", *arguments)
        assert code == 0
        assert "Page: new/folder/compare.html" in out
        assert "data:image/png;base64," in (here / "new" / "folder" / "compare.html").read_text()


def test_compare_without_the_data_writes_a_page_without_pictures(cli, here):
    code, out, err = cli("compare", "runs/a", "runs/b", "--out", "page", "--data", here, "--json")
    assert code == 1
    assert "fmnist: error: the page has no pictures: " in err
    assert json.loads(out)["num_images"] == 200
    assert "<img" not in (here / "page" / "compare.html").read_text()


def test_compare_into_a_file_still_prints_the_result(cli, here):
    (here / "file").touch()
    code, out, err = cli("compare", "runs/a", "runs/b", "--out", "file", "--json")
    assert code == 1
    assert "fmnist: error: the page is not written: file: is a file, where a folder was expected" in err
    assert json.loads(out)["num_images"] == 200


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("runs/a", "runs/c"), 1, "fmnist: error: not evaluated yet: runs/c; run `fmnist evaluate runs/c` first"),
        (("runs/a", "runs/none"), 1, "fmnist: error: no run folder runs/none; "),
        (("runs/a", "runs/a"), 1, "fmnist: error: runs/a is the same run as runs/a"),
        (("runs/a",), 2, "expected two folders of runs or more"),
        ((), 2, "RUN..."),
        (("runs/a", "runs/b", "--data", "data"), 2, "only with --out"),
    ],
)
def test_what_cannot_be_compared_is_one_line(cli, here, arguments, code, expected):
    ended, out, err = cli("compare", *arguments)
    assert (ended, out) == (code, "")
    assert expected in err
    assert code == 2 or err.count("\n") == 1


def test_compare_several_seeds(cli, here, small_run):
    for name, seed, learning_rate in (("a1", 1, 0.12), ("b0", 0, 0.06)):
        shutil.copytree("runs/a", f"runs/{name}")
        config = replace(small_run.config, seed=seed, learning_rate=learning_rate)
        write_document(here / "runs" / name / "config.json", RunDescription(created=small_run.created, config=config))
    code, out, _ = cli("compare", "runs/a", "runs/a1", "runs/b", "runs/b0")
    assert code == 0
    assert "Differences to configuration 1, seed by seed" in out
    document = json.loads(cli("compare", "runs/a", "runs/a1", "runs/b", "runs/b0", "--json")[1])
    assert document["configurations"][1]["common_seeds"] == [0, 1]
    assert document["configurations"][1]["difference"]["n"] == 2
