"""Searches: Optuna's proposals follow from the plan and the run folders, so a search continues after anything."""

import json
import math
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pytest
import typer
from msgspec.structs import replace

from fmnist.cli.main import explain
from fmnist.cli.settings import parse_grid, parse_ranges
from fmnist.errors import FmnistError
from fmnist.studies import results, search
from fmnist.studies.plan import Range, Search, check_same_plan, make_plan, planned_folders, read_plan, write_plan
from fmnist.studies.study import StudyState

RANGES = (
    Range(name="learning_rate", low=1e-4, high=1.0, log=True),
    Range(name="batch_size", low=16, high=64),
    Range(name="optimizer", choices=("adam", "sgd", "rmsprop")),
)


@pytest.fixture
def plan(small):
    wanted = Search(trials=30, batch_size=3, ranges=RANGES, optuna=optuna.__version__)
    return make_plan(["textbook"], {}, 1, 1, "tensorflow", small, wanted, epochs=1)


def accuracy(config):
    """Return an accuracy that is highest at a learning rate of 0.01 with SGD."""
    return math.exp(-((math.log10(config.learning_rate) + 2) ** 2)) * (1 if config.optimizer == "sgd" else 0.8)


class Folders:
    """Stands for the run folders: configurations of those that have begun, and which of them are finished."""

    def __init__(self, monkeypatch):
        self.begun, self.finished = {}, set()
        monkeypatch.setattr(search, "open_run", self.open_run)
        monkeypatch.setattr(search, "finished_run", self.finished_run)

    def open_run(self, folder):
        if folder.name not in self.begun:
            raise FmnistError("is no run")
        return SimpleNamespace(config=self.begun[folder.name])

    def finished_run(self, planned, test):
        if planned.name not in self.finished:
            return None
        value = accuracy(self.begun[planned.name]) * (1 - 0.1 * planned.config.seed)
        validation = SimpleNamespace(accuracy=value)
        return SimpleNamespace(manifest=lambda: SimpleNamespace(validation=validation))

    def train(self, runs):
        self.begun |= {run.name: run.config.resolve(False) for run in runs}
        self.finished |= {run.name for run in runs}


@pytest.fixture
def folders(monkeypatch):
    return Folders(monkeypatch)


def complete(folder, plan, folders):
    """Do a search to its end. Returns the runs."""
    done = []
    for runs in search.rounds_of(folder, plan):
        done += runs
        folders.train(runs)
    return done


def test_a_search_proposes_within_the_ranges_and_gets_better(plan, tmp_path, folders):
    runs = complete(tmp_path, plan, folders)
    assert [run.name for run in runs] == [f"trial-{number:04}-seed-0" for number in range(30)]
    for run in runs:
        assert 1e-4 <= run.config.learning_rate <= 1
        assert 16 <= run.config.batch_size <= 64
        assert isinstance(run.config.batch_size, int)
        assert run.config.optimizer in {"adam", "sgd", "rmsprop"}
        assert (
            replace(run.config, learning_rate=0.001, batch_size=128, optimizer="adam") == plan.configurations[0].config
        )
    assert len({run.config.learning_rate for run in runs}) == 30
    values = [accuracy(run.config) for run in runs]
    assert sum(values[20:]) > 1.3 * sum(values[:10])  # the first ten are drawn at random


@pytest.mark.parametrize(("low", "high"), [(1e-4, 1.0), (1, 10_000)])
def test_every_order_of_magnitude_is_as_probable_in_a_logarithmic_range(low, high):
    ranges = (Range(name="learning_rate", low=low, high=high, log=True),)
    wanted = Search(trials=1, batch_size=1, ranges=ranges, optuna=optuna.__version__)
    values = [search.propose(wanted, [], number)["learning_rate"] for number in range(40)]
    assert 10 < sum(value < 100 * low for value in values) < 30


@pytest.mark.parametrize("completed", [0, 1, 4, 12, 17, 29])
def test_a_search_continues_with_the_same_settings(completed, plan, tmp_path, folders, monkeypatch):
    """Some runs are finished, the next one has begun."""
    undisturbed = complete(tmp_path, plan, folders)
    interrupted = Folders(monkeypatch)
    interrupted.train(undisturbed[:completed])
    interrupted.begun[undisturbed[completed].name] = undisturbed[completed].config
    assert complete(tmp_path, plan, interrupted) == undisturbed


def test_a_run_that_has_begun_keeps_its_settings(plan, tmp_path, folders, monkeypatch):
    """The first run failed, and is finished when the search is continued: other settings would follow from that."""
    rounds = search.rounds_of(tmp_path, plan)
    runs = [next(rounds)]
    folders.begun |= {run.name: run.config for run in runs[0]}  # all of them failed
    for _ in range(4):
        runs.append(next(rounds))
        folders.train(runs[-1])
    folders.train(runs[0])
    again = search.rounds_of(tmp_path, plan)
    assert [next(again) for _ in range(5)] == runs


def test_settings_out_of_the_ranges_are_not_taken_from_a_folder(plan, tmp_path, folders):
    expected = next(search.rounds_of(tmp_path, plan))
    for changes in ({"learning_rate": 2.0}, {"optimizer": "lion"}, {"batch_size": 65}):
        folders.begun[expected[0].name] = replace(expected[0].config, **changes)
        assert next(search.rounds_of(tmp_path, plan)) == expected


def test_the_value_of_a_trial_is_the_mean_of_its_seeds(plan, tmp_path, folders, monkeypatch):
    """Seed 1 of the second trial is not finished."""
    plan = replace(plan, seeds=(0, 1))
    known = []
    monkeypatch.setattr(search, "propose", lambda _, trials, number: known.append(trials) or {
        "learning_rate": 10.0 ** -(1 + number % 3), "batch_size": 32, "optimizer": "sgd",
    })  # fmt: skip
    rounds = search.rounds_of(tmp_path, plan)
    folders.train([run for run in next(rounds) if run.name != "trial-0001-seed-1"])
    next(rounds)
    values = [value for _, value in known[3]]
    assert values == pytest.approx([0.95 * math.exp(-1), 1.0, 0.95 * math.exp(-1)])
    assert [value for _, value in known[5]][3:] == [None, None]  # of its own batch


def test_a_search_for_mirroring_has_the_views_for_it(small, tmp_path, folders, monkeypatch):
    """Without mirroring, which is the default for data that is not Fashion-MNIST, the views are dropped."""
    wanted = Search(trials=2, batch_size=2, ranges=(Range(name="flip", choices=(False, True)),), optuna="5.0.0")
    plan = make_plan(["fast"], {}, 1, 1, "tensorflow", small, wanted)
    monkeypatch.setattr(search, "propose", lambda _, trials, number: {"flip": bool(number)})
    assert [len(run.config.tta_views) for run in next(search.rounds_of(tmp_path, plan))] == [5, 10]


def test_a_study_without_a_search_has_one_round(plan, tmp_path):
    (runs,) = search.rounds_of(tmp_path, replace(plan, search=None))
    assert [run.name for run in runs] == ["textbook-seed-0"]


def test_the_plan_of_a_search_is_frozen(plan, tmp_path):
    folder = tmp_path / "study"
    write_plan(folder, plan)
    assert read_plan(folder) == plan
    assert plan.num_runs == 30
    assert StudyState(plan.num_runs).count("waiting") == 30
    with pytest.raises(FmnistError, match="planned with other settings of its search"):
        check_same_plan(folder, plan, replace(plan, search=replace(plan.search, batch_size=2)))
    assert planned_folders(folder) == []
    (folder / "runs" / "trial-0004-seed-0").mkdir(parents=True)
    assert planned_folders(folder) == [folder / "runs" / "trial-0004-seed-0"]


@pytest.mark.parametrize(
    ("presets", "ranges", "trials", "message"),
    [
        (["fast", "tiny"], RANGES, 1, "a search has 2 configurations to start from; expected one preset"),
        (["fast"], [Range(name="momentum", low=0.5, high=1.5)], 1, "momentum is 1.5"),
        (["fast"], [Range(name="optimizer", choices=("adam", "adem"))], 1, "optimizer is adem; expected one of"),
        (["fast"], [Range(name="optimizer", choices=("adam", "custom"))], 1, "optimizer is custom"),
        (["fast"], [Range(name="optimizer", choices=("adam", "adam"))], 1, "optimizer has the same choice twice"),
        (["fast"], [Range(name="flip", choices=(True, "auto"))], 1, "flip of auto would become False for this data"),
        (["fast"], [Range(name="photo_fraction", low=0.0, high=0.5)], 1, "photo_fraction of 0.5 would become 0.0"),
        (["fast"], RANGES, 10_000, "the study has 20000 runs"),
    ],
)
def test_what_cannot_be_searched(presets, ranges, trials, message, small):
    with pytest.raises(FmnistError, match=message):
        make_plan(
            presets,
            {},
            2,
            1,
            "tensorflow",
            small,
            Search(trials=trials, batch_size=1, ranges=tuple(ranges), optuna="5.0.0"),
        )


def test_ranges_on_the_command_line():
    changes = {"epochs": 3}
    options = ["learning_rate=.03:3e-1:log", "batch-size=64:512", "optimizer=adam,sgd", "momentum=0.9", "shift=0:2"]
    options += ["photos=C:/photos.npz", "weight-decay=0.1,0.2"]
    assert parse_ranges(options, changes) == [
        Range(name="learning_rate", low=0.03, high=0.3, log=True),
        Range(name="batch_size", low=64, high=512),
        Range(name="optimizer", choices=("adam", "sgd")),
        Range(name="shift", low=0, high=2),
        Range(name="weight_decay", choices=(0.1, 0.2)),
    ]
    assert changes == {"epochs": 3, "momentum": 0.9, "photos": "C:/photos.npz"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is nothing to search"),
        (["momentum=0.9"], "there is nothing to search"),
        (["learning_rate=.3:.03"], "low below high"),
        (["learning_rate=.3:.3"], "low below high"),
        (["learning_rate=0:.3:log"], "more than 0"),
        (["optimizer=adam:sgd"], "optimizer is adam:sgd"),
        (["optimizer=1:2"], "optimizer is 1"),
        (["class_weights=false:true"], "class_weights is false:true"),
        (["learning_rate=a:b"], "learning_rate is a:b"),
        (["learningrate=1:2"], "did you mean learning_rate"),
        (["seed=1:2"], "--seeds"),
        (["epochs=1:2"], "epochs is given twice"),
        (["shift=0:2", "shift=1:2"], "shift is given twice"),
        (["shift=0:2", "shift=1"], "shift is given twice"),
    ],
)
def test_ranges_that_are_refused(options, message):
    with pytest.raises(typer.BadParameter, match=message):
        parse_ranges(options, {"epochs": 3})


def test_a_range_needs_a_search():
    with pytest.raises(typer.BadParameter, match="shift=0:2 is a range, which needs --search N"):
        parse_grid(["shift=0:2"], {})
    assert parse_grid(["learning-rate=.1,.2"], {}) == {"learning_rate": [0.1, 0.2]}


def test_another_version_of_optuna_is_refused(plan):
    search.check_optuna(plan.search)
    with pytest.raises(FmnistError, match=r"proposes other settings than 4.6.0, .*install Optuna 4.6.0"):
        search.check_optuna(replace(plan.search, optuna="4.6.0"))


def test_a_search_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        search.propose(Search(trials=1, batch_size=1, ranges=RANGES, optuna="5.0.0"), [], 0)
    assert "`pip install 'fmnist[search]'` installs it" in str(explain(raised.value))


def test_the_result_of_a_search_ranks_the_settings(plan, tmp_path):
    def record(number, value):
        settings = {"learning_rate": 10.0**-number, "batch_size": 32, "optimizer": "sgd"}
        return {
            "run": f"trial-{number:04}-seed-0", "configuration": f"trial-{number:04}", "seed": 0, "error": None,
            "val_accuracy": value, "test_accuracy": None, "weights_sha256": "0", "train_seconds": 1.0,
            "settings": settings,
        }  # fmt: skip

    summary = results.summarize_study(plan, [record(0, 0.5), record(1, 0.7), record(2, None)], test=False)
    assert [row["configuration"] for row in summary["configurations"]] == ["trial-0001", "trial-0000", "trial-0002"]
    assert summary["configurations"][0]["settings"]["learning_rate"] == 0.1
    assert summary["differences"] == []
    assert summary["planned"] == 30
    axes = results.draw_search(summary["configurations"], RANGES, "val_accuracy").axes
    assert [each.get_xscale() for each in axes] == ["log", "linear", "linear"]
    assert [label.get_text() for label in axes[2].get_xticklabels()] == ["adam", "sgd", "rmsprop"]
    results.write_html(tmp_path / "study.html", tmp_path, plan, summary, "fmnist study s")
    page = (tmp_path / "study.html").read_text()
    assert re.search(r"trial-0001</td><td>0.1</td><td>32</td><td>sgd</td>\s*<td>1</td><td>70.00</td>", page)
    assert "best of 3" in page


@pytest.mark.slow
def test_a_search_on_this_machine_is_continued(small_folder, tmp_path):
    """A run that is missing afterwards is proposed and trained again, with the same bits."""
    folder = tmp_path / "study"
    command = [sys.executable, "-m", "fmnist", "study", str(folder), "--json"]
    options = ["--preset", "textbook", "--search", "2", "--set", "learning_rate=.0001:.01:log", "--epochs", "1"]
    results = []
    for arguments in ([*options, "--data", str(small_folder), "--cores", "1"], []):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout)["runs"])
        shutil.rmtree(folder / "runs" / "trial-0001-seed-0")
    for first, second in zip(*results, strict=True):
        assert first["settings"] == second["settings"]
        assert first["weights_sha256"] == second["weights_sha256"]
