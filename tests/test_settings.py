"""Settings on the command line: `--set`, `--help-settings`, and the options for the usual ones."""

import json

import pytest
import typer

import fmnist
from fmnist.cli.settings import describe_settings, meanings, parse_settings
from fmnist.config import PRESETS, Config


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("learning_rate=.06", 0.06),
        ("learning-rate = 6e-2", 0.06),
        ("learning_rate=1", 1.0),
        ("epochs=3", 3),
        ("flip=auto", "auto"),
        ("flip=true", True),
        ("full=false", False),
        ("weight_decay=null", None),
        ("weight_decay=0.1", 0.1),
        ("optimizer=adamw", "adamw"),
        ("schedule=cosine", "cosine"),
        ("photos=123", "123"),
        ("photos=a=b.npz", "a=b.npz"),
        ("tta_views=[[false, 0, 0], [true, 0, 1]]", ((False, 0, 0), (True, 0, 1))),
    ],
)
def test_values_have_the_declared_type(pair, expected):
    ((name, value),) = parse_settings([pair]).items()
    assert value == expected
    assert type(value) is type(expected)
    assert getattr(Config.from_preset("fast", **{"flip": True, name: value}), name) == expected


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["epochs"], "has no =; expected name=value"),
        (["=3"], "unknown setting ''"),
        (["epoch=3"], "unknown setting 'epoch'; did you mean epochs? `fmnist train --help-settings` lists all"),
        (["network=own"], "unknown setting 'network'"),
        (["epochs=0"], "epochs is 0; expected int from 1 to 5000"),
        (["epochs=1.5"], "expected int"),
        (["epochs="], "epochs is ; expected int"),
        (["learning_rate=nan"], "expected float from 0 to 1000"),
        (["learning_rate=inf"], "expected float from 0 to 1000"),
        (["flip=maybe"], "expected true or false or auto"),
        (["optimizer=none"], "expected one of muon, adadelta"),
        (["tta_views=[[1,2]]"], "expected list of"),
        (["tta_views=" + "[" * 10_000], "expected list of"),
        (["epochs=3", "epochs=4"], "epochs is given twice"),
        (["seed=3"], "seed is given twice"),
    ],
)
def test_other_settings_are_usage_errors(pairs, message):
    with pytest.raises(typer.BadParameter) as raised:
        parse_settings(pairs, given=["seed"])
    assert message in raised.value.message


def test_every_field_is_explained():
    assert meanings().keys() == set(Config.__struct_fields__)
    assert all(meaning.endswith(".") for meaning in meanings().values())


def test_settings_are_listed_with_the_values_of_the_preset(cli):
    code, out, _ = cli("train", "--help-settings", "--preset", "tiny", "--json")
    assert code == 0
    listed = {row["name"]: row for row in json.loads(out)}
    assert listed["epochs"]["value"] == PRESETS["tiny"].epochs
    assert listed["epochs"]["type"] == "int from 1 to 5000"
    assert list(listed) == [row["name"] for row in describe_settings(PRESETS["tiny"])]
    assert "custom" not in listed["optimizer"]["type"]
    code, out, _ = cli("train", "--help-settings")
    assert code == 0
    assert "hard_example_fraction" in out


def test_options_of_a_run_to_resume_must_agree(cli, small_run):
    code, _, err = cli("train", "--resume", small_run.folder, "--lr", 0.5)
    assert code == 1
    assert "--lr 0.5, but" in err
    assert "was started with learning_rate 0.12; omit --lr" in err
    code, _, err = cli("train", "--resume", small_run.folder, "--set", "shift=3")
    assert code == 1
    assert "was started with shift 1; omit --set shift=3, or train into a new folder" in err
    code, _, err = cli("train", "--resume", small_run.folder, "--set", "shift=1", "--json")
    assert code == 0, err


@pytest.mark.parametrize("field", ["network", "optimizer"])
def test_custom_parts_are_no_settings(field, small):
    config = Config.from_preset("fast", **{field: "custom"})
    with pytest.raises(fmnist.FmnistError, match=f"{field} is 'custom'.*pass your own"):
        fmnist.train(config, dataset=small)
