"""The fuzz of pictures, in its smallest form and with a thousand files."""

import sys
from pathlib import Path

import pytest

import fmnist

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("num_files", [90, pytest.param(1_000, marks=pytest.mark.slow)])
def test_mutated_files_are_answered_or_refused_in_one_line(num_files, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import fuzz_pictures

    result = fuzz_pictures.fuzz(fmnist.Classifier.load(), num_files, seed=2)
    assert fuzz_pictures.is_clean(result), result
    assert result["answered"]["EXIF"] == -(-num_files // 3)
    assert result["refused"]["header"] > num_files // 10
    sys.modules.pop("fuzz_pictures")
