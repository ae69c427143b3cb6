"""Comparison of runs by their stored predictions."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from msgspec.structs import replace

from fmnist.documents import write_document
from fmnist.errors import FmnistError
from fmnist.evaluation.compare import compare, read_evaluated
from fmnist.evaluation.compare_page import render_comparison, run_labels
from fmnist.evaluation.predictions import predictions_csv
from fmnist.runs.run import open_run
from fmnist.runs.schemas import CustomPart, RunDescription

NUM_IMAGES = 200


@pytest.fixture
def make_run(small_run, small, tmp_path):
    """Make an evaluated run: name, indices of wrong predictions, custom parts and changed settings to the run."""

    def make(name, wrong=(), custom=(), class_names=small.class_names, **changes):
        folder = shutil.copytree(small_run.folder, tmp_path / name)
        config = replace(small_run.config, **changes)
        write_document(folder / "config.json", RunDescription(created=small_run.created, config=config, custom=custom))
        predicted = small.test_labels.astype(int)
        predicted[list(wrong)] = (predicted[list(wrong)] + 1) % 10
        confidence = np.linspace(0.5, 0.9, NUM_IMAGES)[:, np.newaxis]
        probabilities = np.where(np.eye(10)[predicted] == 1, confidence, (1 - confidence) / 9)
        (folder / "predictions.csv").write_bytes(predictions_csv(probabilities, small.test_labels, class_names))
        return open_run(folder)

    return make


def compared(*runs):
    return compare(read_evaluated(runs))


def test_runs_are_compared_image_by_image(make_run, small):
    # `a` has 20 wrong, `b` 12 of these and 2 others.
    result = compared(make_run("a", range(20)), make_run("b", [*range(12), 100, 150], seed=1))
    a, b = result["runs"]
    assert (a["accuracy"], b["accuracy"]) == (0.9, 0.93)
    assert a["accuracy_interval_95"] == pytest.approx([0.8506, 0.9343], abs=1e-4)
    (pair,) = result["pairs"]
    assert pair["difference"] == pytest.approx(0.03)
    assert pair["only_second_right"] == list(range(12, 20))
    assert pair["only_first_right"] == [100, 150]
    assert pair["p_value"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    for row in pair["classes"]:
        images = np.flatnonzero(small.test_labels == small.class_names.index(row["label"]))
        assert row["recall_first"] == pytest.approx(1 - np.isin(images, range(20)).mean())
        assert row["difference"] == pytest.approx(row["recall_second"] - row["recall_first"])
    sizes = [abs(row["difference"]) for row in pair["classes"]]
    assert sizes == sorted(sizes, reverse=True)
    json.dumps(result, allow_nan=False)


def test_runs_with_the_same_predictions_do_not_differ(make_run):
    (pair,) = compared(make_run("a", [1]), make_run("b", [1], seed=1))["pairs"]
    assert (pair["difference"], pair["p_value"], pair["only_first_right"]) == (0, 1, [])


def test_class_names_of_the_first_run_are_used(make_run, small):
    names = tuple(f"class {index}" for index in range(10))
    result = compared(make_run("a", [3]), make_run("b", [3], class_names=names, seed=1))
    assert result["class_names"] == list(small.class_names)
    assert result["pairs"][0]["only_first_right"] == []


def test_configurations_are_compared_seed_by_seed(make_run):
    runs = [
        make_run("a0", range(20), seed=0),
        make_run("b1", range(6), seed=1, shift=0),
        make_run("a1", range(10), seed=1),
        make_run("b0", range(12), seed=0, shift=0),
        make_run("a2", range(30), seed=2),
    ]
    result = compared(*runs)
    assert [row["configuration"] for row in result["runs"]] == [1, 2, 1, 2, 1]
    a, b = result["configurations"]
    assert (a["seeds"], a["difference"]) == ([0, 1, 2], None)
    assert a["accuracy"]["mean"] == pytest.approx((0.9 + 0.95 + 0.85) / 3)
    assert a["accuracy"]["sd"] == pytest.approx(0.05)
    assert (b["seeds"], b["common_seeds"]) == ([0, 1], [0, 1])
    assert b["difference"]["mean"] == pytest.approx((0.04 + 0.02) / 2)
    assert b["difference"]["sd"] == pytest.approx(0.02 / np.sqrt(2))
    # 12.7062 is the 97.5 % quantile of Student's t for 1 degree of freedom.
    assert b["difference"]["interval_95"] == pytest.approx((0.03 - 0.127062, 0.03 + 0.127062), abs=1e-5)
    assert a["settings"].keys() == b["settings"].keys() == {"shift", "tta_views"}
    assert (a["settings"]["shift"], b["settings"]["shift"]) == (1, 0)


def test_configurations_without_common_seeds_have_no_difference(make_run):
    a, b = compared(make_run("a", seed=0), make_run("b", seed=1, shift=0))["configurations"]
    assert (a["accuracy"]["n"], a["accuracy"]["sd"]) == (1, None)
    assert (b["common_seeds"], b["difference"]) == ([], None)


def test_runs_of_the_same_seed_count_as_one(make_run):
    runs = [make_run("a", range(20)), make_run("again", range(10)), make_run("b", range(10), shift=0)]
    a, b = compared(*runs)["configurations"]
    assert a["accuracy"] == {"n": 1, "mean": pytest.approx(0.925), "sd": None, "interval_95": None}
    assert b["difference"]["mean"] == pytest.approx(0.025)


OWN = {"part": "network", "name": "mine.py:net"}


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({}, {"data": "/elsewhere"}, set()),
        ({}, {"photos": "/elsewhere"}, set()),
        ({}, {"learning_rate": 0.06, "seed": 1}, {"learning_rate"}),
        ({"custom": (CustomPart(**OWN, sha256="a" * 64),)}, {"custom": (CustomPart(**OWN, sha256="b" * 64),)},
         {"own_network"}),
        ({}, {"custom": (CustomPart(**OWN, sha256=None),)}, {"own_network"}),
        ({}, {"epochs": 9}, {"epochs", "epochs_trained"}),  # it was exported after four
    ],
)  # fmt: skip
def test_settings_that_differ(make_run, one, two, expected):
    configurations = compared(make_run("a", **one), make_run("b", **two))["configurations"]
    assert {name for row in configurations for name in row["settings"]} == expected
    assert len(configurations) == (2 if expected else 1)


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def remove_predictions(folder):
    (folder / "predictions.csv").unlink()


def cut_predictions(folder):
    path = folder / "predictions.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:50]))


def damage_predictions(folder):
    (folder / "predictions.csv").write_text("text")


def change_data(folder):
    path = folder / "environment.json"
    hashes = json.loads(path.read_text())["data_sha256"]
    change(path, data_sha256=dict.fromkeys(hashes, "0" * 64))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove_predictions, r"not evaluated yet: .*b; run `fmnist evaluate .*b` first"),
        (cut_predictions, r"b/predictions.csv is about other images than .*; `fmnist evaluate .*b` writes it again"),
        (damage_predictions, r"b/predictions.csv is damaged \(.*; `fmnist evaluate .*b` writes it again"),
        (change_data, r"b was trained on other data than .*a \(its SHA-256 differs\); .* compare it with others"),
        (lambda folder: (folder / "manifest.json").unlink(), r"run .*b is not finished; "),
        (lambda folder: (folder / "environment.json").unlink(), r"b/environment.json is missing; "),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(make_run, damage, expected):
    runs = [make_run("a"), make_run("b", seed=1)]
    damage(runs[1].folder)
    for order in (runs, runs[::-1]):
        with pytest.raises(FmnistError) as caught:
            read_evaluated(order)
        assert "\n" not in str(caught.value)
        if damage is not change_data or order is runs:
            assert re.search(expected, str(caught.value))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("abc", r"`fmnist evaluate [^`]*b`, `fmnist evaluate [^`]*c` first, or `fmnist study FOLDER --test`"),
        ("abcdef", r"not evaluated yet: \S+b, \S+c, \S+d, and 2 more; run (`[^`]*`(, )?){3} first"),
    ],
)
def test_runs_that_are_not_evaluated_are_named(names, expected, make_run):
    runs = [make_run(name, seed=seed) for seed, name in enumerate(names)]
    for run in runs[1:]:
        remove_predictions(run.folder)
    with pytest.raises(FmnistError, match=expected):
        read_evaluated(runs)


def test_a_run_is_not_compared_with_itself(make_run):
    run = make_run("a")
    with pytest.raises(FmnistError, match="is the same run as"):
        read_evaluated([run, open_run(run.folder.parent / "a" / ".." / "a")])
    with pytest.raises(FmnistError, match="1 run to compare; expected two or more"):
        read_evaluated([run])


def page_of(runs, dataset):
    evaluated = read_evaluated(runs)
    return render_comparison(evaluated, compare(evaluated), dataset).replace("\N{NO-BREAK SPACE}", " ")


def test_page_is_complete_and_needs_no_other_file(make_run, small):
    page = page_of([make_run("a", range(20)), make_run("b", [*range(12), 100, 150], seed=1, shift=0)], small)
    assert "http" not in page.replace("http-equiv", "")
    text = html.unescape(page)
    expected = (
        "2 runs on the same 200 test images",
        "85.06 % to 93.43 %",
        "+3.00",
        "0.1094",
        "Only b is right: 8 images",
        "Only a is right: 2 images",
        "<td>shift</td><td>1</td><td>0</td>",
        "10 views",
        "2 views",
    )
    for part in expected:
        assert part in text
    shown = [int(index) for index in re.findall(r'alt="Test image (\d+)"', page)]
    assert shown == [19, 18, 17, 16, 15, 14, 150, 100]  # those about which the wrong run is most confident
    assert page.count("data:image/png;base64,") == 8
    assert "seed by seed" not in page


def test_page_of_several_seeds_has_the_configurations(make_run, small):
    runs = [make_run(f"{name}{seed}", range(5 + seed), seed=seed, shift=shift)
            for shift, name in enumerate("ab") for seed in range(2)]  # fmt: skip
    page = page_of(runs, small)
    assert "seed by seed" in page
    assert "All runs have the same settings" not in page
    page = page_of(runs[:2], small)
    assert "<h2>Configurations" in page
    assert "seed by seed" not in page
    assert "All runs have the same settings" in page


def test_page_without_the_data_has_no_pictures(make_run):
    page = page_of([make_run("a", range(20)), make_run("b", seed=1)], None)
    assert "<img" not in page
    assert "Only b is right: 20 images" in page


def test_names_are_escaped_on_the_page(make_run, small):
    names = ("<b>class</b>", *small.class_names[1:])
    runs = [make_run("<i>a</i>".replace("/", "-"), range(20), class_names=names), make_run("b", preset="<u>own</u>")]
    page = page_of(runs, small)
    assert not {"<b>class", "<i>a", "<u>own"} & {
        page[match.start() : match.start() + 8] for match in re.finditer("<", page)
    }
    assert "&lt;u&gt;own" in page


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("/", "runs", "a"), ("/", "runs", "b")], ["a", "b"]),
        ([("/", "x", "a"), ("/", "y", "a"), ("/", "y", "b")], ["x/a", "y/a", "y/b"]),
    ],
)
def test_runs_have_short_names_that_tell_them_apart(parts, expected):
    assert run_labels(parts) == expected
