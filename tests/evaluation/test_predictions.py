"""`predictions.csv`: what is written is read, and nothing else."""

import numpy as np
import pytest

from fmnist.errors import FmnistError
from fmnist.evaluation.predictions import predictions_csv, read_predictions

TABLE = "index,true,predicted,a,b\n0,a,a,0.75,0.25\n1,b,a,0.5,0.5\n"


def test_what_is_written_is_read(tmp_path):
    names = ('a, "b"', "シャツ", "c")
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet([1, 1, 1], 50), rng.integers(0, 2, 50)
    (tmp_path / "predictions.csv").write_bytes(predictions_csv(probabilities, labels, names))
    predictions = read_predictions(tmp_path / "predictions.csv", "hint")
    assert predictions.class_names == names
    assert predictions.labels.tolist() == labels.tolist()
    assert predictions.predicted.tolist() == probabilities.argmax(axis=1).tolist()
    np.testing.assert_allclose(predictions.confidence, probabilities.max(axis=1), rtol=1e-5)
    *recalls, without_images = predictions.recall()
    is_correct = probabilities.argmax(axis=1) == labels
    assert recalls == [is_correct[labels == label].mean() for label in (0, 1)]
    assert without_images is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "other columns"),
        ("index,true,predicted\n", "other columns"),
        ("index,true,predicted,a,a\n0,a,a,1,0\n", "other columns"),
        ("index,predicted,true,a,b\n0,a,a,1,0\n", "other columns"),
        ("index,true,predicted,a,b\n", "no images"),
        (TABLE.replace("1,b", "2,b"), "row 1 "),
        (TABLE.replace("1,b", "1,c"), "row 1 "),
        (TABLE.replace("1,b,a", "1,b,"), "row 1 "),
        (TABLE + "2,a,a\n", "row 2 "),
        (TABLE.replace("0.75", "nan"), "row 0 has the probability nan"),
        (TABLE.replace("0.75", "1.5"), "row 0 has the probability 1.5"),
        (TABLE.replace("0.75", "much"), "much"),
        (TABLE + "x" * 200_000, "field larger"),
        (b"\xff\xfe\0", "decode"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, content, problem):
    path = tmp_path / "predictions.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FmnistError, match=r"predictions\.csv is damaged \(.*; do this") as caught:
        read_predictions(path, "do this")
    assert problem in str(caught.value)


def test_a_missing_table_and_a_link_are_refused(tmp_path):
    (tmp_path / "table").write_text(TABLE)
    (tmp_path / "link").symlink_to(tmp_path / "table")
    assert len(read_predictions(tmp_path / "table", "hint").labels) == 2
    with pytest.raises(FmnistError, match="symbolic link"):
        read_predictions(tmp_path / "link", "hint")
    with pytest.raises(FmnistError, match="is missing; do this"):
        read_predictions(tmp_path / "none", "do this")
