"""The command line: output, exit codes, errors in one line."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import as_unprivileged_user, tree, write_folder
from PIL import Image

import fmnist
from fmnist import files
from fmnist.cli.options import require_backend
from fmnist.cli.train import training_summary
from fmnist.runs.run import Run, open_run


@pytest.fixture
def here(tmp_path, monkeypatch, small_run):
    """A working folder with one finished run in `runs/`, and a picture."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run.folder, tmp_path / "runs" / "first")
    Image.fromarray(fmnist.load(small_run.config.data).test_images[0]).save("boot.png")
    return tmp_path


def test_data(cli, small_folder):
    code, out, err = cli("data", "--data", small_folder, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["num_train_images"] == 1_200
    assert document["is_fashion_mnist"] is False
    assert "1,200 training" in err
    assert document["class_names"][9] == "Ankle boot"
    assert "Fashion-MNIST, verified by SHA-256" in cli("data")[1]


def test_data_that_train_refuses_is_named(cli, small, tmp_path):
    is_kept = small.train_labels != 3
    train = small.train_images[is_kept], small.train_labels[is_kept]
    write_folder(tmp_path / "data", train, (small.test_images, small.test_labels))
    code, out, err = cli("data", "--data", tmp_path / "data")
    assert code == 0
    assert "10 classes" in out
    assert err.startswith("Warning: `fmnist train` would refuse this: the data from")
    assert "has no training image of Dress" in err
    assert err.count("\n") == 1


def test_data_is_written_as_idx_files(cli, small, tmp_path):
    np.savez(
        tmp_path / "data.npz", x_train=small.train_images, y_train=small.train_labels,
        x_test=small.test_images, y_test=small.test_labels,
    )  # fmt: skip
    code, out, _ = cli("data", "--data", tmp_path / "data.npz", "--out", tmp_path / "idx")
    assert code == 0
    assert f"Written as IDX files: {tmp_path / 'idx'}" in out
    assert fmnist.load(tmp_path / "idx").sha256 == small.sha256
    code, _, err = cli("data", "--data", tmp_path / "data.npz", "--out", tmp_path / "idx")
    assert code == 1
    assert "is not empty; expected a new folder for the data" in err
    document = json.loads(cli("data", "--data", tmp_path / "idx", "--out", tmp_path / "again", "--json")[1])
    assert len(document["files"]) == 5


def test_explore_lists_the_numbers_of_names_that_no_font_has(cli, small, small_folder, tmp_path, monkeypatch):
    from fmnist import fonts

    monkeypatch.setattr(fonts, "_families_with", lambda *_: None)
    code, out, _ = cli("explore", "--data", small_folder, "--out", tmp_path)
    assert code == 0
    assert "so the figures have numbers: 0 T-shirt/top, 1 Trouser" in out


def test_explore(cli, small_folder, tmp_path):
    code, out, _ = cli("explore", "--data", small_folder, "--out", tmp_path / "figures")
    assert code == 0
    assert "1200 x 28 x 28" in out
    assert "Ankle boot" in out
    assert len(list((tmp_path / "figures").glob("*.png"))) == 5
    document = json.loads(cli("explore", "--data", small_folder, "--out", tmp_path / "figures", "--json")[1])
    assert document["parts"]["test"]["shape"] == [200, 28, 28]


def test_train_evaluate_predict(cli, small_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(
        "train", "--preset", "textbook", "--epochs", 1, "--seed", 3, "--data", small_folder, "--json"
    )  # fmt: skip
    assert code == 0
    document = json.loads(out)
    assert list(document) == [
        "run",
        "preset",
        "seed",
        "epochs",
        "parameters",
        "train_seconds",
        "val_accuracy",
        "val_recall_macro",
    ]
    assert 0 < document["val_recall_macro"] <= 1
    assert (document["preset"], document["seed"], document["epochs"]) == ("textbook", 3, 1)
    assert document["run"].startswith("runs/textbook-")
    for word in ("epoch 1/1", "accuracy", "precision", "recall", "validation"):
        assert word in err

    code, out, _ = cli("evaluate", "--seed", 1)
    assert code == 0
    for text in ("accuracy", "95 % interval", "Keras' precision, recall", "Random test image", "report.html"):
        assert text in out
    assert json.loads(cli("evaluate", document["run"], "--seed", 1, "--json")[1])["num_images"] == 200

    Image.fromarray(fmnist.load(small_folder).test_images[0]).save("boot.png")
    code, out, err = cli("predict", "boot.png", "--model", document["run"])
    assert code == 0
    assert "boot.png" in out
    assert f"Model: {document['run']}" in err


def test_train_prints_the_validation_accuracy(cli, small_folder, tmp_path):
    arguments = ("--preset", "textbook", "--epochs", 1, "--data", small_folder, "--run", tmp_path / "run")
    code, out, _ = cli("train", *arguments)
    assert code == 0
    accuracy = open_run(tmp_path / "run").manifest().validation.accuracy
    assert f"Validation accuracy {accuracy:.2%} after 1 epochs" in out


def test_validation_accuracy_is_that_of_the_exported_graph(copied_run, monkeypatch):
    """Not that of the last epoch, which has a single view."""
    monkeypatch.setattr(Run, "history", lambda _: [{"val_accuracy": -1.0}])
    assert training_summary(copied_run)["val_accuracy"] == copied_run.manifest().validation.accuracy


def test_file_names_are_not_interpreted_as_markup_or_emoji(cli, here):
    (here / "d[").mkdir()
    for name in ("a[red]b.png", "c:cat:.png", "d[/b].png"):
        shutil.copy("boot.png", name)
        code, out, _ = cli("predict", name)
        assert code == 0
        assert name in out


MISSING_PACKAGES = {
    "keras": (("train",), "this command needs the package keras; `pip install 'fmnist[train]'`"),
    "tensorflow": (("train",), "tensorflow missing: Keras needs a backend"),
    "jax": (("train", "--backend", "jax"), "`pip install 'fmnist[jax,tensorflow-cpu]'` for --backend jax"),
    "tensorboard": (("train", "--tensorboard"), "`pip install 'fmnist[tensorboard]'`"),
    "matplotlib": (("explore",), "`pip install 'fmnist[train]'`"),
    "sklearn": (("evaluate", "runs/first"), "`pip install 'fmnist[train]'`"),
    "onnx": (("export", "runs/first"), "`pip install 'fmnist[train]'`"),
    "fastapi": (("demo", "--port", "0"), "`pip install 'fmnist[demo]'`"),
}


@pytest.mark.parametrize("package", MISSING_PACKAGES)
def test_a_missing_package_is_one_line_with_the_extra_to_install(package, cli, here, small_folder, monkeypatch):
    arguments, expected = MISSING_PACKAGES[package]
    if arguments[0] in {"train", "explore"}:
        arguments = (*arguments, "--data", small_folder)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    packages = (package, *(f"fmnist.{name}" for name in ("demo", "evaluation", "export", "metrics", "plots")))
    for name in [name for name in sys.modules if name.startswith(packages)]:
        monkeypatch.delitem(sys.modules, name)
        # `fmnist` has its modules as attributes too, which have to be the same after the test as in `sys.modules`.
        monkeypatch.delitem(vars(fmnist), name.removeprefix("fmnist."), raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    (line,) = [line for line in err.splitlines() if line.startswith("fmnist: error: ")]
    assert expected in line
    assert [path.name for path in (here / "runs").iterdir()] == ["first"]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command_in_its_group(cli, option):
    code, out, _ = cli(option)
    assert code == 0
    assert re.search(r"Learn:\s+data .*\s+explore .*\s+train .*\s+evaluate .*", out)
    assert re.search(r"Use:\s+predict .*\s+demo .*\s+adapt .*\s+export .*\s+doctor ", out, re.DOTALL)
    assert re.search(r"Research:\s+runs .*\s+compare .*\s+study ", out)


def test_version(cli):
    assert cli("--version") == (0, f"fmnist {fmnist.__version__}\n", "")


def test_a_run_records_the_data_folder_of_the_environment(cli, small_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    assert cli("train", "--preset", "textbook", "--epochs", 1, "--run", tmp_path / "run")[0] == 0
    monkeypatch.delenv("FMNIST_DATA")
    assert json.loads(cli("evaluate", tmp_path / "run", "--json")[1])["num_images"] == 200


def test_full_training_has_no_validation_accuracy(cli, small_folder, tmp_path):
    arguments = (
        "--preset",
        "textbook",
        "--epochs",
        1,
        "--full",
        "--data",
        small_folder,
        "--run",
        tmp_path / "run",
    )
    code, out, err = cli("train", *arguments, "--json")
    assert code == 0
    assert json.loads(out)["val_accuracy"] is None
    assert "not calibrated" in err


def test_predict_keeps_the_order_and_continues_after_an_error(cli, here):
    (here / "notes.txt").write_text("no picture")
    code, out, err = cli("predict", "boot.png", "notes.txt", "none.png", "boot.png", "--json")
    assert code == 1
    items = json.loads(out)
    assert [item["file"] for item in items] == ["boot.png", "notes.txt", "none.png", "boot.png"]
    assert items[0] == items[3]
    assert set(items[0]) == {
        "file",
        "label",
        "class",
        "probability",
        "confidence",
        "accepted",
        "reason",
        "model",
        "kind",
        "top",
    }
    assert set(items[1]) == {"file", "error"}
    assert "none.png" in err
    assert "the pretrained model" in err


def scene(path, color=(30, 30, 80)):
    """Draw something like trousers on a light background."""
    picture = Image.new("RGB", (300, 400), (230, 220, 210))
    picture.paste(color, (100, 50, 200, 350))
    picture.save(path)


def test_predict_takes_photos_and_folders_in_order(cli, here):
    (here / "photos").mkdir()
    for name in ("b.JPG", "a.png", "c.webp"):
        scene(here / "photos" / name)
    (here / "photos" / "notes.txt").write_text("not asked about")
    (here / "photos" / "folder.png").mkdir()
    code, out, _ = cli("predict", "boot.png", "photos", "--json")
    assert code == 0
    items = json.loads(out)
    assert [item["file"] for item in items] == ["boot.png", "photos/a.png", "photos/b.JPG", "photos/c.webp"]
    assert all(0 <= item["confidence"] <= 1 for item in items)


def test_a_folder_is_searched_by_content(cli, here):
    """What is passed over is named. Hidden files are skipped, and a damaged picture is an error."""
    folder = here / "photos"
    (folder / "more").mkdir(parents=True)
    for name, file_format in (
        ("a.jfif", "JPEG"),
        ("b.JPE", "JPEG"),
        ("c", "PNG"),
        ("d.dat", "GIF"),
        ("e.tiff", "TIFF"),
    ):
        Image.new("RGB", (60, 80), "white").save(folder / name, file_format)
    Image.new("RGB", (60, 80)).save(folder / "f.jp2")
    Image.new("RGB", (60, 80)).save(folder / "more" / "below.png")
    (folder / "g.pdf").write_bytes(b"%PDF-1.7")
    (folder / "h.txt").write_text("text")
    (folder / "i.bin").write_bytes(b"\xfe\xff\x80")
    (folder / "j.jpg").write_text("text")
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"\0")
    code, out, err = cli("predict", "photos", "--json")
    assert code == 1
    items = json.loads(out)
    assert [item["file"] for item in items] == [
        f"photos/{name}" for name in ("a.jfif", "b.JPE", "c", "d.dat", "e.tiff", "j.jpg")
    ]
    assert ["error" in item for item in items] == [False] * 5 + [True]
    (line,) = [line for line in err.splitlines() if line.startswith("Passed over")]
    assert line == (
        "Passed over 5 entries that are not read: photos/f.jp2 (JPEG 2000), photos/g.pdf (a PDF document), "
        "photos/h.txt (a text), photos/i.bin, photos/more (a folder)"
    )


def test_many_files_that_are_passed_over_are_counted(cli, here):
    (here / "photos").mkdir()
    for number in range(30):
        (here / "photos" / f"{number:02}.txt").write_text("text")
    scene(here / "photos" / "a.png")
    code, out, err = cli("predict", "photos", "--json")
    assert (code, len(json.loads(out))) == (0, 1)
    assert "Passed over 30 entries" in err
    assert "19.txt (a text), and 10 more" in err


def test_other_files_do_not_harm_the_photos_of_a_batch(cli, here):
    contents = (b"%PDF-1.7\n", b"PK\3\4" + bytes(40), b"text", b"", b"\xff\xd8\xff\xe1" + bytes(9))
    names = []
    for number in range(45):
        names.append(f"{number:02}.{('pdf', 'zip', 'jpg', 'png', 'jpeg')[number % 5]}")
        if number % 9 == 4:
            names[-1] = f"{number:02}-photo.jpg"
            scene(names[-1])
        else:
            (here / names[-1]).write_bytes(contents[number % 5])
    code, out, err = cli("predict", *names, "--json")
    assert code == 1
    items = json.loads(out)
    assert [item["file"] for item in items] == names
    assert sum("label" in item for item in items) == 5
    assert err.count("fmnist: error: ") == 40


def test_any_failure_stays_with_its_file(cli, here, monkeypatch):
    from fmnist.inference import picture

    read = picture.read

    def fail(source, name="picture"):
        if "bad" in str(source):
            raise MemoryError
        return read(source, name)

    monkeypatch.setattr(picture, "read", fail)
    shutil.copy("boot.png", "bad.png")
    code, out, err = cli("predict", "boot.png", "bad.png", "boot.png", "--json")
    assert code == 1
    assert ["error" in item for item in json.loads(out)] == [False, True, False]
    assert "not enough memory" in err


def test_the_standard_input_is_a_picture(cli, here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((here / "boot.png").read_bytes())))
    code, out, _ = cli("predict", "-", "--json", "--steps", "steps")
    assert code == 0
    (item,) = json.loads(out)
    assert (item["file"], item["kind"]) == ("-", "image")
    assert (here / "steps" / "001-stdin.png").is_file()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text")))
    assert "standard input is not a picture (a text)" in cli("predict", "-")[2]


def test_predict_says_what_a_picture_was_taken_for_and_by_which_model(cli, here):
    scene("scene.png")
    code, out, _ = cli("predict", "boot.png", "scene.png")
    assert code == 0
    assert re.search(r"boot.png\s+│.*│\s+image ", out)
    assert re.search(r"scene.png\s+│.*│\s+product shot ", out)
    assert "Predictions of the pretrained model" in out
    items = json.loads(cli("predict", "boot.png", "--as", "photo", "--model", "runs/first", "--json")[1])
    assert (items[0]["kind"], items[0]["model"]) == ("photo", "runs/first")
    assert cli("predict", "boot.png", "--as", "scan")[0] == 2


def test_answers_are_those_of_one_picture_at_a_time(cli, here):
    rng = np.random.default_rng(0)
    for number in range(12):
        noise = rng.integers(120, 140, (160, 120, 3), np.uint8)
        noise[40:120, 30:90] = rng.integers(0, 256, 3, np.uint8)
        Image.fromarray(noise).save(f"{number}.png")
    names = [f"{number}.png" for number in range(12)]
    items = json.loads(cli("predict", *names, "--json")[1])
    assert [item.pop("file") for item in items] == names
    classifier = fmnist.Classifier.load()
    assert items == [classifier.classify(name).to_json() for name in names]


def test_an_interrupt_keeps_what_was_answered(cli, here, monkeypatch):
    from fmnist.cli import pictures

    classify_files = pictures.classify_files

    def interrupted(*arguments):
        for number, answer in enumerate(classify_files(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(pictures, "classify_files", interrupted)
    code, out, err = cli("predict", *["boot.png"] * 9, "--json")
    assert code == 130
    assert len(json.loads(out)) == 3
    assert "Interrupted after 3 of 9 pictures" in err


@pytest.mark.parametrize("columns", [20, 80])
def test_nothing_is_cut_where_there_is_no_terminal(here, columns):
    names = [f"{'summer-collection-' * 8}{number}.png" for number in range(2)]
    for name in names:
        shutil.copy("boot.png", name)
    done = subprocess.run(
        [sys.executable, "-m", "fmnist", "predict", *names],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": str(columns)},
    )  # fmt: skip
    assert all(re.search(rf"│ {name} │ .* │ +image │ .* │$", done.stdout, re.MULTILINE) for name in names)


def test_a_narrow_terminal_loses_nothing(here):
    from fmnist.cli import tables
    from fmnist.cli.terminal import PlainConsole

    name = "summer-collection-" * 8 + "1.png"
    file = io.StringIO()
    prediction = fmnist.Classifier.load().classify("boot.png")
    PlainConsole(file=file, width=50, force_terminal=True, no_color=True).print(
        tables.predictions_table([(name, prediction)])
    )
    rows = [line.split("│")[1].strip() for line in file.getvalue().splitlines() if line.startswith("│")]
    assert "".join(rows) == name
    assert "…" not in file.getvalue()


def test_a_folder_without_pictures_is_an_error(cli, here):
    (here / "photos").mkdir()
    code, out, err = cli("predict", "photos", "--json")
    assert code == 1
    assert set(json.loads(out)[0]) == {"file", "error"}
    assert "photos has no pictures; name a picture, or a folder of pictures" in err


def test_an_impossible_file_name_does_not_stop_the_others(cli, here):
    code, out, err = cli("predict", "x" * 300 + ".png", "boot.png", "--json")
    assert code == 1
    assert [set(item) >= {"error"} for item in json.loads(out)] == [True, False]
    assert "name a picture file" in err


def test_predict_prints_why_it_is_not_sure(cli, here):
    Image.new("RGB", (300, 400), (230, 220, 210)).save("wall.png")
    code, out, _ = cli("predict", "wall.png")
    assert code == 0
    assert "not sure: nothing found in the picture" in out


def test_predict_saves_the_steps_of_each_photo(cli, here):
    scene("one.png")
    (here / "other").mkdir()
    scene("other/one.png", "red")
    code, _, _ = cli("predict", "one.png", "none.png", "other/one.png", "--steps", "steps")
    assert code == 1
    assert sorted(path.name for path in (here / "steps").iterdir()) == ["001-one.png", "003-one.png"]
    with Image.open("steps/001-one.png") as sheet:
        assert sheet.size == (4 * 224, 224)


def test_steps_into_a_file_are_refused(cli, here):
    code, _, err = cli("predict", "boot.png", "--steps", "boot.png")
    assert code == 1
    assert "boot.png: is a file, where a folder was expected" in err


def test_export_copies_the_graph(cli, here):
    code, out, _ = cli("export", "runs/first", "--out", "model.onnx")
    assert (code, out) == (0, "Exported model.onnx\n")
    assert (here / "model.onnx").read_bytes() == (here / "runs" / "first" / "model.onnx").read_bytes()


def test_export_int8(cli, here):
    code, out, err = cli("export", "runs/first", "--int8", "--out", "small.onnx", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["file"] == "small.onnx"
    content = (here / "small.onnx").read_bytes()
    assert content == (here / "runs" / "first" / "model-int8.onnx").read_bytes()
    assert document["int8"]["bytes"] == len(content)
    assert "bytes; validation accuracy" in err


def test_export_int8_exports_an_unfinished_run_first(cli, here):
    (here / "runs" / "first" / "manifest.json").unlink()
    code, out, _ = cli("export", "runs/first", "--int8")
    assert code == 0
    assert "model-int8.onnx" in out
    manifest = open_run("runs/first").manifest()
    assert set(manifest.sha256) == {"weights.safetensors", "model.onnx", "model-int8.onnx"}


@pytest.mark.parametrize(("option", "file"), [("--plain", "model-plain.onnx"), ("--keras", "model.keras")])
def test_export_in_other_formats(cli, here, option, file):
    """The model and its manifest stay as they are."""
    before = (here / "runs" / "first" / "manifest.json").read_bytes()
    code, out, _ = cli("export", "runs/first", option, "--out", "copy", "--json")
    assert code == 0
    assert json.loads(out)["file"] == "copy"
    assert (here / "copy").read_bytes() == (here / "runs" / "first" / file).read_bytes()
    assert (here / "runs" / "first" / "manifest.json").read_bytes() == before


def test_predict_with_an_exported_file(cli, here, small):
    Image.fromarray(small.test_images[0]).save("image.png")
    code, out, err = cli("predict", "image.png", "--model", "runs/first/model.onnx", "--json")
    assert code == 0
    (answer,) = json.loads(out)
    assert (answer["model"], answer["accepted"]) == ("runs/first/model.onnx", None)
    assert answer["class"] == fmnist.Classifier.load("runs/first").classify(small.test_images[0]).class_index
    assert "Model: runs/first/model.onnx" in err
    code, _, err = cli("demo", "--model", "runs/first/model.onnx")
    assert (code, "expected the folder of its run" in err) == (1, True)


USAGE_ERRORS = [
    ("export", "runs/first", "--int8", "--plain"),
    ("train", "--preset", "fats"),
    ("train", "--epochs", "0"),
    ("train", "--epochs", "many"),
    ("train", "--seed", "-1"),
    ("train", "--color", "red"),
    ("predict",),
    ("export",),
    ("demo", "--port", "65536"),
    ("demo", "--port", "-1"),
    ("fly",),
]


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_usage_errors_exit_with_2(cli, arguments):
    code, out, err = cli(*arguments)
    assert code == 2
    assert out == ""
    assert "Error: " in err


ERRORS = {
    "no data folder": (("train", "--data", "none"), "no data folder"),
    "no data set": (("data", "--data", "."), "has no folder with pictures; expected a folder of pictures for each"),
    "no run": (("evaluate", "none"), "no run folder none; `fmnist train` creates one"),
    "a run that is a file": (("evaluate", "boot.png"), "`fmnist evaluate --model boot.png` scores a model"),
    "no run folder": (("evaluate", "runs"), "is not a run folder"),
    "a missing model": (("predict", "boot.png", "--model", "none"), "no run folder none"),
    "a missing model for the demo": (("demo", "--model", "none"), "no run folder none"),
    "a folder that is not empty": (("train", "--run", "runs"), "runs is not empty"),
    "figures into a file": (("explore", "--out", "boot.png"), "boot.png: is a file, where a folder was expected"),
    "a run into a file": (("train", "--run", "boot.png"), "boot.png: is a file, where a folder was expected"),
    "a graph into a missing folder": (
        ("export", "runs/first", "--out", "no/model.onnx"),
        "error: no/model.onnx: no such file",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_and_exit_with_1(cli, here, small_folder, case):
    arguments, expected = ERRORS[case]
    if "none" not in arguments and arguments[0] in {"train", "explore"}:
        arguments = (*arguments, "--data", small_folder)
    code, out, err = cli(*arguments)
    assert code == 1
    assert out == ""
    (line,) = [line for line in err.splitlines() if not line.startswith("Training ")]
    assert line.startswith("fmnist: error: ")
    assert expected in line


def test_no_finished_run_yet(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("evaluate")[::2] == (
        1, f"fmnist: error: no finished run in {tmp_path}/runs; `fmnist train` trains one\n",
    )  # fmt: skip


def test_debug_shows_the_traceback(here, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fmnist", "evaluate", "none", "--debug"])
    from fmnist.cli.main import main

    with pytest.raises(fmnist.FmnistError):
        main()


@pytest.mark.parametrize("command", ["train", "evaluate", "explore", "export", "export --int8"])
def test_a_full_disk_is_one_line_and_keeps_all_files(cli, here, small_folder, monkeypatch, command):
    """Every write fails when its bytes should reach the disk."""
    arguments = {
        "train": ("train", "--preset", "textbook", "--data", small_folder, "--run", "runs/second"),
        "evaluate": ("evaluate", "runs/first"),
        "explore": ("explore", "--data", small_folder),
        "export": ("export", "runs/first"),
        "export --int8": ("export", "runs/first", "--int8"),
    }[command]

    def tree():
        return {path: path.read_bytes() for path in (here / "runs").rglob("*") if path.is_file()}

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = tree()
    monkeypatch.setattr(files.os, "fsync", full)
    code, out, err = cli(*arguments)
    assert code == 1
    assert "no space left on the disk; free some" in err.splitlines()[-1]
    assert ("Random test image" in out) == (command == "evaluate")  # the scores are not lost
    assert tree() == before


def test_a_runs_folder_without_write_permission_is_named(cli, open_folder, small_folder, monkeypatch):
    monkeypatch.setenv("FMNIST_DATA", "")
    (open_folder / "runs").mkdir()
    (open_folder / "runs").chmod(0o555)
    data = shutil.copytree(small_folder, open_folder / "data")
    with as_unprivileged_user():
        code, _, err = cli("train", "--data", data, "--run", open_folder / "runs" / "mine", "--preset", "textbook")
    assert code == 1
    assert "permission denied; choose a folder of your own" in err.splitlines()[-1]


def test_a_folder_that_cannot_be_entered_does_not_stop_the_others(cli, open_folder, small_run):
    run = shutil.copytree(small_run.folder, open_folder / "run")
    Image.new("L", (28, 28)).save(open_folder / "picture.png")
    (open_folder / "closed").mkdir(mode=0o700)
    Image.new("L", (28, 28)).save(open_folder / "closed" / "inside.png")
    (open_folder / "closed").chmod(0o444)  # it can be listed, but not entered
    files = (open_folder / "closed", open_folder / "closed" / "inside.png", open_folder / "picture.png")
    with as_unprivileged_user():
        code, out, _ = cli("predict", *files, "--model", run, "--json")
    (open_folder / "closed").chmod(0o755)
    assert code == 1
    assert ["error" in item for item in json.loads(out)] == [True, True, False]


@pytest.mark.parametrize("name", ["ä" * 124 + ".png", "\N{JEANS}" * 62 + ".png"], ids=["two bytes", "four bytes"])
def test_steps_of_a_file_with_a_long_name(cli, here, name):
    shutil.copy("boot.png", name)
    code, out, _ = cli("predict", name, "boot.png", "--steps", "steps", "--json")
    assert code == 0
    assert [item["file"] for item in json.loads(out)] == [name, "boot.png"]
    assert len(list((here / "steps").iterdir())) == 2


def test_steps_that_cannot_be_saved_do_not_lose_the_predictions(cli, here):
    code, out, err = cli("predict", "boot.png", "boot.png", "--steps", "boot.png/steps", "--json")
    assert code == 1
    assert ["label" in item for item in json.loads(out)] == [True, True]
    assert err.count("boot.png/steps") == 2


def test_an_unforeseen_error_is_called_a_bug(cli, monkeypatch):
    def fail(*_):
        raise KeyError("tempreature")

    monkeypatch.setattr("fmnist.data.dataset.load", fail)
    code, out, err = cli("data")
    assert (code, out) == (1, "")
    assert err == (
        "fmnist: error: KeyError: 'tempreature'. This is a bug in fmnist: repeat the command with --debug, and report "
        "its output together with that of `fmnist doctor --json`\n"
    )


@pytest.mark.parametrize("options", [(), ("--run", "runs/mine")], ids=["named by fmnist", "named by the user"])
def test_a_run_that_cannot_start_changes_no_folder(cli, small, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    one_class = small.train_labels == 0
    train = small.train_images[one_class], small.train_labels[one_class]
    write_folder(tmp_path / "data", train, train, class_names=None)
    code, _, err = cli("train", "--data", "data", "--preset", "textbook", *options)
    assert code == 1
    assert "are of the class 'class 0'; expected at least two classes" in err
    assert tree(tmp_path / "runs").keys() == {"mine"}


def test_predict_keeps_no_pictures_of_the_steps(cli, here, monkeypatch):
    """The pictures of many photos would fill the memory."""
    kept = []

    def table(predictions):
        kept.extend(prediction for _, prediction in predictions)
        return ""

    monkeypatch.setattr("fmnist.cli.tables.predictions_table", table)
    scene("one.png")
    assert cli("predict", "one.png", "boot.png", "--steps", "steps")[0] == 0
    assert len(kept) == 2
    assert not any(prediction.steps for prediction in kept)


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [(None, None, "tensorflow"), (None, "jax", "jax"), ("tensorflow", "jax", "tensorflow")],
)
def test_the_backend_is_never_that_of_keras_own_settings(monkeypatch, option, variable, expected):
    """Keras reads its file only if KERAS_BACKEND is not set."""
    monkeypatch.setenv("KERAS_BACKEND", variable or "")
    require_backend(option)
    assert os.environ["KERAS_BACKEND"] == expected


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("numpy", "KERAS_BACKEND names the backend 'numpy', with which Keras cannot train; expected tensorflow or jax"),
        ("nonsense", "KERAS_BACKEND names the backend 'nonsense', with which Keras cannot train"),
        ("torch", "KERAS_BACKEND names the backend 'torch', which is not installed; unset KERAS_BACKEND"),
    ],
)
def test_a_backend_that_cannot_train_is_named_as_the_cause(
    cli, small_folder, tmp_path, monkeypatch, variable, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", variable)
    code, _, err = cli("train", "--data", small_folder)
    assert code == 1
    assert err.startswith(f"fmnist: error: {expected}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
