"""Fonts for class names in any script: Matplotlib's own font has no Japanese, Chinese or Indian characters."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from fmnist.errors import JOINERS

SHAPES_TEXT = tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11)
"""Whether Matplotlib joins Arabic letters and orders right-to-left text. Before, such text is drawn wrongly."""
FALLBACK_FONT = "Last Resort"
"""Has a box for every character."""
REGULAR = 400
PROBE_SIZE, PROBE_DPI = 12, 72


@dataclass(frozen=True)
class Labels:
    """How to write class names in a figure.

    Attributes:
        families: font families that have all characters, for Matplotlib's `fontfamily`.
        numbers: name to number, if no installed fonts can write all names; empty otherwise.
    """

    families: tuple[str, ...]
    numbers: dict[str, str]

    def text(self, text: str) -> str:
        """Return a text with names replaced by numbers where needed, and dollar signs escaped, which begin formulas."""
        if self.numbers:
            names = "|".join(map(re.escape, sorted(self.numbers, key=len, reverse=True)))
            text = re.sub(rf"(?<!\w)({names})(?!\w)", lambda match: self.numbers[match[0]], text)
        return text.replace("$", r"\$")


def labels_for(class_names: Sequence[str]) -> Labels:
    """Find fonts for class names. If there are none, the classes are numbered."""
    default = tuple(matplotlib.rcParams["font.family"])
    characters = {character for name in class_names for character in name if _has_glyph(character)}
    families = _families_with(frozenset(characters), default)
    if families is None:
        return Labels(default, {name: str(index) for index, name in enumerate(class_names)})
    return Labels((*default, *families), {})


def _has_glyph(character: str) -> bool:
    """Check that a character is drawn: blanks and variation selectors are not."""
    return not (character.isspace() or character in JOINERS or "\ufe00" <= character <= "\ufe0f")


@lru_cache(maxsize=64)
def _families_with(characters: frozenset[str], default: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return further font families that have the characters which the default family lacks. None if there are none."""
    if not SHAPES_TEXT and any(_needs_shaping(character) for character in characters):
        return None
    own_font = font_manager.findfont(font_manager.FontProperties(family=list(default)))
    missing = characters - _drawn_by(own_font, 0, characters)
    families: list[str] = []
    for entry in sorted(font_manager.fontManager.ttflist, key=_unlike_regular_text):
        if not missing:
            break
        if found := _drawn_by(entry.fname, getattr(entry, "index", 0), missing):
            missing -= found
            families.append(entry.name)
    return None if missing else tuple(families)


def _unlike_regular_text(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str]:
    is_sans = "sans" in entry.name.lower() or "gothic" in entry.name.lower()
    return entry.style != "normal", entry.weight != REGULAR, not is_sans, entry.name


def _drawn_by(path: str, index: int, characters: Iterable[str]) -> set[str]:
    """Return those of some characters that a font can draw. Fonts of colored bitmaps, as for emoji, can draw none."""
    try:
        font = FT2Font(path, face_index=index) if index else FT2Font(path)
        if font.family_name.startswith(FALLBACK_FONT):
            return set()
        codes = font.get_charmap()
        found = {character for character in characters if ord(character) in codes}
        if found:
            font.set_size(PROBE_SIZE, PROBE_DPI)
            font.load_char(ord(next(iter(found))))
    except (OSError, RuntimeError, TypeError, ValueError):
        return set()
    return found


def _needs_shaping(character: str) -> bool:
    return unicodedata.bidirectional(character) in {"R", "AL"} or unicodedata.category(character) in {"Mn", "Mc"}
