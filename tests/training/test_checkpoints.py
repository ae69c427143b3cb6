"""Checkpoints: read back bit for bit, or refused as damaged."""

import functools
import json
from datetime import UTC, datetime
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace
from safetensors.numpy import save

from fmnist.config import PRESETS
from fmnist.errors import FmnistError
from fmnist.files import sha256
from fmnist.runs.history import HISTORY_COLUMNS, history_row
from fmnist.runs.run import Run
from fmnist.training import checkpoints
from fmnist.training.checkpoints import Checkpoint, DamagedCheckpointError, from_bytes, to_bytes

CONFIG = PRESETS["fast"]

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
any_array = st.sampled_from([np.float32, np.int64, np.uint32]).flatmap(
    lambda dtype: arrays(dtype, st.lists(st.integers(0, 3), max_size=3).map(tuple))
)
values = st.none() | st.integers(0, 10**6) | st.floats(allow_nan=False)
histories = st.lists(st.fixed_dictionaries(dict.fromkeys(HISTORY_COLUMNS, values)), min_size=1, max_size=3)
any_checkpoint = st.builds(
    Checkpoint,
    weights=st.dictionaries(names, any_array, max_size=3),
    optimizer=st.dictionaries(names, any_array, max_size=3),
    losses=arrays(np.float32, st.integers(0, 5)),
    history=histories,
)


def example(num_epochs: int = 1) -> Checkpoint:
    history = [history_row(epoch, {"loss": 1 / 3}) for epoch in range(num_epochs)]
    return Checkpoint(
        {"conv/kernel": np.arange(4, dtype=np.float32)}, {"0/iterations": np.array(7)}, np.ones(3, np.float32), history
    )


@functools.cache
def example_bytes() -> bytes:
    return to_bytes(example(), CONFIG)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, CONFIG, datetime.now(UTC))


def exact_content(checkpoint: Checkpoint) -> tuple:
    """Return everything in a checkpoint in a form whose equality is that of types and bits."""
    groups = (checkpoint.weights, checkpoint.optimizer, {"losses": checkpoint.losses})
    content = [{name: (array.dtype, array.shape, array.tobytes()) for name, array in group.items()} for group in groups]
    # repr tells 1 from 1.0, which are equal. The columns may come in another order.
    return content, [{name: repr(value) for name, value in row.items()} for row in checkpoint.history]


@given(any_checkpoint)
@settings(deadline=None)
def test_checkpoint_is_read_back_bit_for_bit(tmp_path_factory, checkpoint):
    path = tmp_path_factory.getbasetemp() / "checkpoint"
    assert exact_content(from_bytes(to_bytes(checkpoint, CONFIG), CONFIG, path)) == exact_content(checkpoint)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_changed_truncated_or_extended_file_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "checkpoint"
    content = bytearray(example_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip a bit", "truncate", "insert", "zero the rest"])):
        case "flip a bit":
            content[position] ^= 1 << data.draw(st.integers(0, 7))
        case "truncate":
            del content[position:]
        case "insert":
            content[position:position] = data.draw(st.binary(min_size=1, max_size=9))
        case "zero the rest":
            content[position:] = bytes(len(content) - position)
    if bytes(content) == example_bytes():
        return
    with pytest.raises(DamagedCheckpointError, match="is damaged"):
        from_bytes(bytes(content), CONFIG, path)


def test_every_byte_is_protected_by_the_hash(tmp_path):
    content = example_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        with pytest.raises(DamagedCheckpointError):
            from_bytes(bytes(changed), CONFIG, tmp_path)


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    with pytest.raises(FmnistError, match=r"was written with other settings than those in .*; restore that file"):
        from_bytes(example_bytes(), replace(CONFIG, epochs=11), tmp_path / "checkpoint")


def test_checkpoint_of_another_format_version_is_refused(tmp_path, monkeypatch):
    newer_header = functools.partial(checkpoints.CheckpointHeader, format_version=99)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "CheckpointHeader", newer_header)
        content = to_bytes(example(), CONFIG)
    with pytest.raises(FmnistError, match="has format version 99; this fmnist reads version 2"):
        from_bytes(content, CONFIG, tmp_path / "checkpoint")


def test_two_checkpoints_are_kept_and_the_newest_intact_one_is_read(run, caplog):
    for num_epochs in (1, 2, 3):
        checkpoints.write_checkpoint(run, example(num_epochs))
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoint-0002.safetensors", "checkpoint-0003.safetensors",
    ]  # fmt: skip
    assert len(checkpoints.newest_checkpoint(run).history) == 3
    newest = run.folder / "checkpoint-0003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert len(checkpoints.newest_checkpoint(run).history) == 2
    assert "checkpoint-0003.safetensors is damaged" in caplog.text
    checkpoints.remove_checkpoints(run)
    assert checkpoints.newest_checkpoint(run) is None
    assert run.checkpoint_paths() == []


def test_damaged_checkpoints_of_later_epochs_do_not_displace_a_new_one(run):
    """Both checkpoints of a run are damaged. It restarts from the beginning and is interrupted again."""
    for num_epochs in (4, 5):
        checkpoints.write_checkpoint(run, example(num_epochs))
    for path in run.folder.iterdir():
        path.write_bytes(b"damaged")
    for num_epochs in (1, 2, 3):
        checkpoints.write_checkpoint(run, example(num_epochs))
        found = checkpoints.newest_checkpoint(run)
        assert found is not None
        assert len(found.history) == num_epochs
    assert len(list(run.folder.iterdir())) == checkpoints.NUM_KEPT


INVALID = {
    "no losses": ({"losses": None}, {}),
    "losses of another type": ({"losses": np.ones(3)}, {}),
    "losses of another shape": ({"losses": np.float32(1)}, {}),
    "no epoch": ({}, {"history": []}),
    "more epochs than planned": ({}, {"history": [history_row(epoch, {}) for epoch in range(CONFIG.epochs + 1)]}),
    "an extra column": ({}, {"history": [{**history_row(0, {}), "color": 1.0}]}),
    "a missing column": ({}, {"history": [{"epoch": 1}]}),
    "text in a column": ({}, {"history": [{**history_row(0, {}), "loss": "low"}]}),
    "no object": ({}, []),
}


@pytest.mark.parametrize("case", INVALID)
def test_valid_hash_over_invalid_content_is_refused(case, tmp_path):
    """A file from another person can have a hash that fits."""
    changed_arrays, changed_header = INVALID[case]
    arrays = {"weights/conv/kernel": np.ones(4, np.float32), "losses": np.ones(3, np.float32), **changed_arrays}
    header = checkpoints.CheckpointHeader(config_sha256=checkpoints._config_hash(CONFIG), history=example().history)
    values = {**header.to_json(), **changed_header} if isinstance(changed_header, dict) else changed_header
    content = save(
        {name: np.asarray(array) for name, array in arrays.items() if array is not None},
        {"sha256": checkpoints.NO_HASH, "header": json.dumps(values)},
    )
    content = content.replace(checkpoints.NO_HASH.encode(), sha256(content).encode(), 1)
    with pytest.raises(FmnistError, match=r"is damaged|has format version None"):
        from_bytes(content, CONFIG, tmp_path / "checkpoint")


def test_the_checkpoint_before_is_kept_though_epochs_were_skipped(run):
    for num_epochs in (1, 4, 9):
        checkpoints.write_checkpoint(run, example(num_epochs))
    assert [path.stem for path in run.checkpoint_paths()] == ["checkpoint-0004", "checkpoint-0009"]


@pytest.mark.parametrize(
    ("on_gpu", "epoch_seconds", "written", "drawn"),
    [
        (False, 0.1, [1, 2, 3, 4, 5, 6], [6]),
        (False, 6.0, [1, 2, 3, 4, 5, 6], [2, 4, 6]),
        (True, 3.0, [1, 2, 3, 4, 5, 6], [4, 6]),
        (True, 0.4, [1, 4, 6], [6]),
    ],
)
def test_files_that_were_written_just_before_are_skipped(run, monkeypatch, on_gpu, epoch_seconds, written, drawn):
    now = [0.0]
    monkeypatch.setattr(checkpoints, "is_on_gpu", lambda: on_gpu)
    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: now[0])
    calls = {"checkpoint": [], "curves": []}
    monkeypatch.setattr(checkpoints, "write_checkpoint", lambda _, each: calls["checkpoint"].append(len(each.history)))
    monkeypatch.setattr(checkpoints.curves, "training_curves", lambda history, _: calls["curves"].append(len(history)))
    monkeypatch.setattr(checkpoints.plots, "save", lambda *_: None)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile("sgd")
    callback = checkpoints.RunCheckpoint(run, SimpleNamespace(losses=np.ones(3, np.float32)))
    callback.set_model(network)
    for epoch in range(6):
        callback.on_epoch_begin(epoch)
        now[0] += epoch_seconds
        callback.on_epoch_end(epoch, {"loss": 1.0})
    callback.on_train_end()
    assert calls == {"checkpoint": written, "curves": drawn}
    assert [row["seconds"] for row in callback.latest.history] == pytest.approx([epoch_seconds] * 6)
    assert len(run.history()) == 6
