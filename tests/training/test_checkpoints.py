"""A checkpoint reads back as it was written, or says that it is damaged."""

import dataclasses
import functools
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fmnist.config import PRESETS
from fmnist.errors import FmnistError
from fmnist.runs import run as runs
from fmnist.training import checkpoints
from fmnist.training.checkpoints import Checkpoint, DamagedCheckpointError

CONFIG = PRESETS["fast"]

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
numbers = st.sampled_from([np.float32, np.int64, np.uint32]).flatmap(
    lambda dtype: arrays(dtype, st.lists(st.integers(0, 3), max_size=3).map(tuple))
)
histories = st.lists(
    st.dictionaries(st.sampled_from(runs.HISTORY_COLUMNS), st.none() | st.floats(allow_nan=False)), max_size=3
)
any_checkpoint = st.builds(
    Checkpoint,
    weights=st.dictionaries(names, numbers, max_size=3),
    optimizer=st.dictionaries(names, numbers, max_size=3),
    losses=arrays(np.float32, st.integers(0, 5)),
    history=histories,
)


def example(num_epochs: int = 1) -> Checkpoint:
    history = [runs.history_row(epoch, {"loss": 1 / 3}) for epoch in range(num_epochs)]
    return Checkpoint(
        {"conv/kernel": np.arange(4, dtype=np.float32)}, {"0/iterations": np.array(7)}, np.ones(3), history
    )


@functools.cache
def example_bytes() -> bytes:
    return checkpoints.to_bytes(example(), CONFIG)


@pytest.fixture
def run(tmp_path):
    return runs.Run(tmp_path, CONFIG, datetime.now(UTC))


def equal(once: Checkpoint, again: Checkpoint) -> bool:
    pairs = [(once.weights, again.weights), (once.optimizer, again.optimizer)]
    pairs.append(({"losses": once.losses}, {"losses": again.losses}))
    return once.history == again.history and all(
        left.keys() == right.keys()
        and all(
            (left[name].dtype == right[name].dtype and left[name].shape == right[name].shape
                and left[name].tobytes() == right[name].tobytes())
            for name in left
        )
        for left, right in pairs
    )  # fmt: skip


@given(any_checkpoint)
@settings(deadline=None)
def test_it_reads_back_to_the_bit(tmp_path_factory, checkpoint):
    path = tmp_path_factory.getbasetemp() / "file"
    assert equal(checkpoints.from_bytes(checkpoints.to_bytes(checkpoint, CONFIG), CONFIG, path), checkpoint)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_whatever_is_flipped_or_cut_or_added_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "checkpoint"
    content = bytearray(example_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "add", "zero the rest"])):
        case "flip":
            content[position] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[position:]
        case "add":
            content[position:position] = data.draw(st.binary(min_size=1, max_size=9))
        case "zero the rest":
            content[position:] = bytes(len(content) - position)
    if bytes(content) == example_bytes():
        return
    with pytest.raises(DamagedCheckpointError, match="is damaged"):
        checkpoints.from_bytes(bytes(content), CONFIG, path)


def test_every_single_bit_counts(tmp_path):
    content = example_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1
        with pytest.raises(DamagedCheckpointError):
            checkpoints.from_bytes(bytes(flipped), CONFIG, tmp_path)


def test_it_belongs_to_its_configuration(tmp_path):
    with pytest.raises(FmnistError, match="under other settings than"):
        checkpoints.from_bytes(example_bytes(), dataclasses.replace(CONFIG, epochs=11), tmp_path / "checkpoint")


def test_another_version_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FORMAT_VERSION", 99)
    content = checkpoints.to_bytes(example(), CONFIG)
    monkeypatch.undo()
    with pytest.raises(FmnistError, match="has format version 99; this fmnist reads version 1"):
        checkpoints.from_bytes(content, CONFIG, tmp_path / "checkpoint")


def test_two_are_kept_and_the_newest_that_is_intact_counts(run, caplog):
    for num_epochs in (1, 2, 3):
        checkpoints.write(run, example(num_epochs))
    assert [path.name for path in sorted(run.folder.iterdir())] == [
        "checkpoint-0002.safetensors", "checkpoint-0003.safetensors",
    ]  # fmt: skip
    assert len(checkpoints.newest(run).history) == 3
    newest = run.folder / "checkpoint-0003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert len(checkpoints.newest(run).history) == 2
    assert "checkpoint-0003.safetensors is damaged" in caplog.text
    checkpoints.remove(run)
    assert checkpoints.newest(run) is None
    assert not checkpoints.exist(run)


def test_damaged_ones_of_later_epochs_do_not_push_out_a_new_one(run):
    """Epochs 4 and 5 were over, their checkpoints are spoilt, and the run began anew and is cut off again."""
    for num_epochs in (4, 5):
        checkpoints.write(run, example(num_epochs))
    for path in run.folder.glob("checkpoint-*"):
        path.write_bytes(b"spoilt")
    for num_epochs in (1, 2, 3):
        checkpoints.write(run, example(num_epochs))
        found = checkpoints.newest(run)
        assert found is not None
        assert len(found.history) == num_epochs
    assert len(list(run.folder.glob("checkpoint-*"))) == checkpoints.NUM_KEPT
