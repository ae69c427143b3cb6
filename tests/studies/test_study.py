"""Studies: the plan is frozen, the run folders are the state, one failed run does not stop the others."""

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from msgspec.structs import replace

from fmnist.cli.main import explain
from fmnist.config import Config
from fmnist.errors import FmnistError
from fmnist.files import lock_folder
from fmnist.studies import engine, results, study
from fmnist.studies.child import PARENT_ENDED, Task, execute
from fmnist.studies.cluster import open_cluster
from fmnist.studies.engine import claim_cpus, run_task, task_for
from fmnist.studies.plan import check_same_plan, make_plan, planned_folders, planned_runs, read_plan, write_plan
from fmnist.studies.study import run_study


@pytest.fixture
def plan(small):
    """Two configurations with two seeds."""
    return make_plan(["textbook"], {"learning_rate": [0.001, 0.01]}, 2, 1, "tensorflow", small, epochs=1)


def test_a_plan_has_all_combinations_and_is_read_back(plan, tmp_path, small):
    write_plan(tmp_path / "study", plan)
    assert read_plan(tmp_path / "study") == plan
    runs = planned_runs(tmp_path / "study", plan)
    assert [run.name for run in runs] == [
        "textbook-learning_rate-0.001-seed-0", "textbook-learning_rate-0.01-seed-0",
        "textbook-learning_rate-0.001-seed-1", "textbook-learning_rate-0.01-seed-1",
    ]  # fmt: skip
    assert [(run.config.learning_rate, run.config.seed) for run in runs] == [
        (0.001, 0),
        (0.01, 0),
        (0.001, 1),
        (0.01, 1),
    ]
    assert plan.data_sha256 == small.sha256


def test_a_study_stands_for_its_runs(plan, tmp_path):
    write_plan(tmp_path / "study", plan)
    expected = [run.folder for run in planned_runs(tmp_path / "study", plan)]
    assert planned_folders(tmp_path / "study") == expected
    assert planned_folders(expected[0]) == [expected[0]]


@pytest.mark.parametrize(
    ("presets", "grid", "seeds", "message"),
    [
        (["fast", "fast"], {}, 1, "two configurations are the same"),
        (["fast"], {"shift": [1, 1]}, 1, "two configurations are the same"),
        (["fast"], {}, 20_000, "the study has 20000 runs; expected at most 10000"),
        (["fast"], {"shift": [99]}, 1, "shift is 99"),
        (["faster"], {}, 1, "unknown preset 'faster'"),
        (["fast"], {"optimizer": ["adam", "custom"]}, 1, "optimizer is custom, which is for a function of your own"),
    ],
)
def test_what_cannot_be_planned(presets, grid, seeds, message, small):
    with pytest.raises(FmnistError, match=message):
        make_plan(presets, grid, seeds, 1, "tensorflow", small)


def test_a_plan_is_not_written_over_other_files(plan, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FmnistError, match="is not empty and no study"):
        write_plan(tmp_path, plan)


@pytest.mark.parametrize(
    "change", [{"seeds": (0,)}, {"cores": 2}, {"backend": "jax"}, {"data_sha256": {"x": "0" * 64}}], ids=str
)
def test_other_options_than_planned_are_refused(plan, change, tmp_path):
    check_same_plan(tmp_path, plan, replace(plan, versions={"keras": "4"}))
    with pytest.raises(FmnistError, match=f"was planned with other {next(iter(change))}"):
        check_same_plan(tmp_path, plan, replace(plan, **change))


def test_processors_are_given_to_one_run_at_a_time(monkeypatch, tmp_path):
    monkeypatch.setattr(engine.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: {2, 3, 5})
    with claim_cpus(2) as first:
        assert first == (2, 3)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: claim_cpus(2).__enter__())
            with claim_cpus(1) as second:
                assert second == (5,)
            time.sleep(2 * engine.POLL_SECONDS)
            assert not waiting.done()
            monkeypatch.setattr(engine.os, "sched_getaffinity", lambda _: {2, 3, 5, 8})
            assert waiting.result(timeout=5) == (5, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": 10**6}, "processors; the study has 1000000 for each run"),
        ({"versions": {"keras": "0.1"}}, ", not 0.1; install what the study has, or start a new study"),
        ({"versions": {"no-such-package": "1"}}, "found no-such-package missing"),
    ],
)
def test_a_machine_that_does_not_fit_is_refused(change, message, plan, tmp_path):
    write_plan(tmp_path / "study", plan)
    run = planned_runs(tmp_path / "study", plan)[0]
    task = task_for(run.folder, run.config, plan.data_sha256, test=False)
    arguments = {"cores": 1, "versions": plan.versions, **change}
    assert message in run_task(task, backend="tensorflow", **arguments)


def test_a_machine_without_the_shared_folder_is_refused(plan, tmp_path):
    run = planned_runs(tmp_path / "elsewhere", plan)[0]
    task = task_for(run.folder, run.config, plan.data_sha256, test=False)
    assert "expected a folder that all machines of the study share" in run_task(task, 1, plan.versions, "tensorflow")


def test_data_on_another_computer_is_not_opened():
    config = Config.from_preset("fast", data=r"\\host\share")
    with pytest.raises(FmnistError, match="is on another computer; copy it to this one"):
        execute(Task(folder="runs/x", config=config, cpus=(), data_sha256={}, test=False))


FAILURES = {
    "wrong": 'sys.stdout.write(\'{"error": "the data is damaged"}\')',
    "crash": "raise ValueError('a bug')",
    "killed": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize(
    ("program", "message", "starts"),
    [
        ("wrong", "the data is damaged", 1),
        ("crash", "its process ended with exit code 1: ValueError: a bug", 1),
        ("killed", "its process was ended 3 times, the last time by SIGKILL", 3),
    ],
)
def test_only_a_process_that_was_killed_is_started_again(program, message, starts, plan, tmp_path, monkeypatch):
    write_plan(tmp_path / "study", plan)
    run = planned_runs(tmp_path / "study", plan)[0]
    started = tmp_path / "started"
    code = f"import os, sys; open({str(started)!r}, 'a').write('x'); {FAILURES[program]}"
    popen = subprocess.Popen
    monkeypatch.setattr(
        engine.subprocess, "Popen", lambda command, **options: popen([sys.executable, "-c", code], **options)
    )
    task = task_for(run.folder, run.config, plan.data_sha256, test=False)
    assert run_task(task, 1, plan.versions, "tensorflow") == message
    assert started.read_text() == "x" * starts


def test_a_failed_run_does_not_stop_the_others(plan, tmp_path, monkeypatch):
    asked = []

    def run(task, cores, versions, backend):
        asked.append(task["config"]["seed"])
        if task["config"]["learning_rate"] == 0.01:
            raise RuntimeError("the worker was lost")

    monkeypatch.setattr(study, "run_task", run)
    changes = []
    with ThreadPoolExecutor(1) as executor:
        state = run_study(
            plan,
            [planned_runs(tmp_path, plan)],
            executor,
            on_change=lambda state: changes.append(state.count("failed")),
        )
    assert asked == [0, 0, 1, 1]
    assert [each.state for each in state.runs] == ["done", "failed", "done", "failed"]
    assert "the worker was lost" in state.runs[1].error
    assert (len(changes), changes[0], changes[-1]) == (5, 0, 2)


def test_epochs_of_an_earlier_command_do_not_count_in_the_time_left(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "run_task", lambda *_: None)
    monkeypatch.setattr(study, "completed_epochs", lambda planned: 1 if planned.config.seed == 0 else 0)
    states = []

    def record(state):
        states.append((state.epochs_before, state.count("waiting"), state.seconds_left()))

    with ThreadPoolExecutor(1) as executor:
        run_study(plan, [planned_runs(tmp_path, plan)], executor, on_change=record)
    assert states[0] == (2, 4, None)


def test_no_further_round_is_asked_for_when_the_cluster_is_lost(plan, tmp_path, monkeypatch):
    """A search would wait for it for ever."""
    ended = {0: "wrong settings", 1: CancelledError()}

    def run(task, cores, versions, backend):
        if isinstance(error := ended[task["config"]["seed"]], Exception):
            raise error
        return error

    monkeypatch.setattr(study, "run_task", run)
    runs = planned_runs(tmp_path, plan)
    with ThreadPoolExecutor(1) as executor:
        state = run_study(plan, iter([runs[:2], runs[2:], pytest.fail]), executor)
    assert [each.error for each in state.runs] == ["wrong settings"] * 2 + ["CancelledError"] * 2


def test_differences_are_of_common_seeds():
    def record(name, seed, value):
        return {"configuration": name, "seed": seed, "val_accuracy": value}

    records = [record("a", seed, value) for seed, value in ((0, 0.9), (1, 0.8), (2, 0.7))]
    records += [record("b", seed, value) for seed, value in ((1, 0.7), (2, 0.65), (3, 0.1))]
    records.append(record("b", 0, None))
    (row,) = results.compare_configurations(records, ["a", "b"], "val_accuracy")
    assert (row["configuration"], row["minus"], row["n"]) == ("a", "b", 2)
    assert row["mean"] == pytest.approx(np.mean([0.1, 0.05]))


COMMAND = [sys.executable, "-m", "fmnist", "study"]


def start_study(folder, data, *options, **popen):
    """Start a study of a small network, on one processor for each run."""
    command = [*COMMAND, str(folder), "--data", str(data), "--preset", "textbook", "--epochs", "1", "--json"]
    options = ("--seeds", "2", "--jobs", "2", "--cores", "1", *options)
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)


def test_a_run_ends_with_the_process_that_started_it():
    program = "from fmnist.studies.child import end_with_parent; end_with_parent()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=2)
        child.stdin.close()
        assert child.wait(timeout=10) == PARENT_ENDED


@pytest.mark.slow
def test_a_study_on_this_machine_is_read_the_second_time(small_folder, tmp_path):
    """The first time there is no space for checkpoints. Then it trains. A run that is missing is trained again, with
    the same bits.
    """
    import resource

    folder = tmp_path / "study"
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    full = start_study(folder, small_folder, preexec_fn=limit)
    output, errors = full.communicate(timeout=300)
    assert full.returncode == 1
    assert "2 of 2 runs failed" in errors
    for run in json.loads(output)["runs"]:
        assert run["error"].endswith("may not grow that large here; raise the limit (ulimit -f) or choose another disk")

    first = start_study(folder, small_folder)
    output, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    result = json.loads(output)
    assert [run["run"] for run in result["runs"]] == ["textbook-seed-0", "textbook-seed-1"]
    assert all(0 < run["val_accuracy"] < 1 and run["test_accuracy"] is None for run in result["runs"])
    assert (folder / "study.html").stat().st_size > 1_000
    shutil.rmtree(folder / "runs" / "textbook-seed-1")
    command = [*COMMAND, str(folder), "--jobs", "2", "--test", "--json"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    tested = json.loads(again.stdout)
    assert tested == json.loads((folder / "results.json").read_text())
    for before, after in zip(result["runs"], tested["runs"], strict=True):
        assert after["weights_sha256"] == before["weights_sha256"]
        assert 0 < after["test_accuracy"] < 1
    assert tested["runs"][0]["train_seconds"] == result["runs"][0]["train_seconds"]

    (folder / "runs" / "textbook-seed-0" / "evaluation.json").write_text("{}")
    damaged = subprocess.run([*COMMAND, str(folder), "--json"], capture_output=True, text=True, check=False)
    assert damaged.returncode == 1
    assert "1 of 2 runs failed" in damaged.stderr
    first, second = json.loads(damaged.stdout)["runs"]
    assert "writes it again" in first["error"]
    assert second == tested["runs"][1]


def test_a_second_study_in_the_folder_is_refused(small_folder, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    with lock_folder(folder):
        second = start_study(folder, small_folder)
        _, errors = second.communicate(timeout=120)
    assert second.returncode == 1
    assert "is in use by another fmnist process" in errors
    assert list(folder.iterdir()) == []


def test_a_cluster_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError) as raised, open_cluster("scheduler.json"):
        pass
    assert "`pip install 'fmnist[cluster]'` installs it" in str(explain(raised.value))


@pytest.mark.parametrize("scheduler", ["scheduler.jsn", "127.0.0.1", "tcp://127.0.0.1:9", "{file}"])
def test_a_scheduler_that_does_not_answer_is_one_line(scheduler, tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text('{"address": "tcp://127.0.0.1:9"}')
    expected = r"no Dask scheduler answers at .*expected a scheduler file, or an address"
    with pytest.raises(FmnistError, match=expected), open_cluster(scheduler.format(file=path)):
        pass


def test_full_needs_the_test_images(small_folder, tmp_path):
    done = start_study(tmp_path / "study", small_folder, "--full")
    _, errors = done.communicate(timeout=120)
    assert done.returncode == 1
    assert "add --test" in errors


def test_config_can_be_planned_from_any_preset(small):
    """What depends on data and device is decided: the runs can be done on machines with and without a GPU."""
    plan = make_plan(["fast", "photo"], {}, 3, 1, "tensorflow", small)
    assert [each.config for each in plan.configurations] == [
        Config.from_preset("fast", data=small.path, flip=False, batch_size=512),
        Config.from_preset("photo", data=small.path, flip=False, batch_size=512, photo_fraction=0.0),
    ]
