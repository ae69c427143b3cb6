"""Class names in any script are drawn with installed fonts, or the classes are numbered."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from fmnist import fonts, plots
from fmnist.cli import tables

KANA = ("お", "き", "す")
DEFAULT = tuple(matplotlib.rcParams["font.family"])
IMAGES = np.zeros((3, 28, 28), np.uint8)


@pytest.fixture
def only_matplotlibs_fonts(monkeypatch):
    own = [entry for entry in fonts.font_manager.fontManager.ttflist if matplotlib.get_data_path() in entry.fname]
    monkeypatch.setattr(fonts.font_manager.fontManager, "ttflist", own)
    fonts._families_with.cache_clear()
    yield
    fonts._families_with.cache_clear()


@pytest.mark.parametrize(
    "names", [("Coat", "Würfel"), ("Кот", "Ω", "∀"), ("T\N{NO-BREAK SPACE}shirt", "a\N{ZERO WIDTH JOINER}b"), ()]
)
def test_names_in_matplotlibs_own_font_need_no_other(names):
    assert fonts.labels_for(names) == fonts.Labels(DEFAULT, {})


def test_classes_are_numbered_where_no_font_has_the_names(only_matplotlibs_fonts):
    labels = fonts.labels_for(KANA)
    assert labels == fonts.Labels(DEFAULT, {"お": "0", "き": "1", "す": "2"})
    assert labels.text("between き and す for $5") == r"between 1 and 2 for \$5"
    figure = plots.examples(IMAGES, np.arange(3), KANA)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0", "1", "2"]


def test_only_whole_names_are_replaced_by_their_numbers(only_matplotlibs_fonts):
    labels = fonts.labels_for(("1", "a", "お", "a+b", "4"))
    assert labels.text("a label 14: predicted お, 4, 1 or a+b") == "1 label 14: predicted 2, 4, 0 or 3"


def test_an_installed_font_with_the_characters_is_found(only_matplotlibs_fonts, monkeypatch):
    entries = [
        SimpleNamespace(fname=name, name=name, style=style, weight=weight)
        for name, style, weight in (
            ("Slanted", "italic", 400),
            ("Half Sans", "normal", 400),
            ("Full Sans", "normal", 700),
        )
    ]
    glyphs = {"Slanted": set(KANA), "Half Sans": {"お", "き"}, "Full Sans": set(KANA)}
    real = fonts._drawn_by

    def drawn_by(path, index, characters):
        return glyphs[path] & set(characters) if path in glyphs else real(path, index, characters)

    monkeypatch.setattr(fonts.font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "_drawn_by", drawn_by)
    assert fonts.labels_for(KANA[:2]) == fonts.Labels((*DEFAULT, "Half Sans"), {})
    assert fonts.labels_for(KANA) == fonts.Labels((*DEFAULT, "Half Sans", "Full Sans"), {})


@pytest.mark.parametrize(("shapes_text", "is_numbered"), [(True, False), (False, True)])
def test_arabic_is_numbered_where_matplotlib_cannot_join_its_letters(monkeypatch, shapes_text, is_numbered):
    monkeypatch.setattr(fonts, "SHAPES_TEXT", shapes_text)
    fonts._families_with.cache_clear()
    assert bool(fonts.labels_for(("قميص", "بنطال")).numbers) == is_numbered
    fonts._families_with.cache_clear()


def test_a_font_that_cannot_be_opened_draws_nothing(tmp_path):
    (tmp_path / "font.ttf").write_bytes(b"no font")
    assert fonts._drawn_by(str(tmp_path / "font.ttf"), 0, {"a"}) == set()


HUNDRED = tuple(f"class {index}" for index in range(100))


def hundred_records():
    return [
        {"index": 1, "true": "class 99", "predicted": "class 1", "probabilities": [0.5 - i / 1e3 for i in range(100)]}
    ]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.projection(np.random.default_rng(0).random((200, 2)), np.arange(200) % 100, HUNDRED),
        lambda: plots.class_counts({"train": [5] * 100, "test": [1] * 100}, HUNDRED),
        lambda: plots.examples(IMAGES, np.arange(3), HUNDRED, num_columns=2),
        lambda: plots.samples(IMAGES[:1], hundred_records(), HUNDRED),
    ],
)
def test_figures_of_a_hundred_classes(draw):
    figure = draw()
    assert plots.png(figure).startswith(b"\x89PNG")


def test_of_many_classes_the_most_probable_and_the_true_one_are_drawn():
    figure = plots.samples(IMAGES[:1], hundred_records(), HUNDRED)
    names = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert names == [*HUNDRED[:9], "class 99"]


def test_confusion_of_many_classes_is_a_list_of_the_most_frequent():
    matrix = np.eye(62, dtype=int) * 50
    matrix[3, 7], matrix[9, 1] = 12, 30
    evaluation = {"class_names": [f"c{i}" for i in range(62)], "confusion": matrix.tolist()}
    table = tables.confusion_table(evaluation, width=80)
    assert table.title == "Most frequent confusions"
    assert [list(column.cells) for column in table.columns] == [
        ["9 c9", "3 c3"],
        ["1 c1", "7 c7"],
        ["30 of 80", "12 of 62"],
    ]
    assert len(tables.confusion_table(evaluation, width=1_000).columns) == 63
