"""Entropy of a text: tell random secrets from words, names, numbers and addresses."""

from __future__ import annotations

import itertools
import math
import re

RANDOM_BITS = 40.0
"""Bits of randomness from which a text counts as a secret: eight lower-case letters and digits have that many."""

_PAIRS = """abcdfgiklmnprstuvwxy baeilorsu cacdehiklorstuy dacdefgilorstu eabcdefgilmnopqrstuvwxy faefilorstu
gaeghilmnorsu haeimorstuy iabcdefgklmnoprstvxz jaeou kaeils lacdefilopstuvy mabeimopsuy nabcdefghiklmnoprstuv
oabcdefgiklmnoprstuvwx padehiloprstuy qu rabcdefgiklmnoprstuvy sacefhiklmopstuy tacdefhilmnoprstuwy uabcdefgilmnprst
vaeio waehinors xceipt yeilmnpst zaei"""
_FOLLOWERS = {row[0]: row[1:] for row in _PAIRS.split()}
"""Letter -> the letters that follow it in 97 % of its pairs in technical English."""
_RUN = re.compile(r"[A-Za-z0-9]+|[^\W_]+")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^A-Za-z\d]+")
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?")


def looks_random(text: str) -> bool:
    """Whether a text holds more than words, numbers, and what consists of them: paths, hosts, versions, times.

    True for ``x7Kp9QzL``, keys in hexadecimal or base64, and UUIDs; false for ``production``, ``val_loss``,
    ``RandomForest``, ``/data/run-3``, ``https://db1.example.org:8080``, ``1e-3``, ``resnet50v2``.
    """
    if _UUID.search(text):
        return True
    return sum(map(_random_bits, _RUN.findall(_TIME.sub("", text)))) >= RANDOM_BITS


def count_words(text: str) -> int:
    """Number of words with three or more letters."""
    return sum(len(piece) > 2 and piece.isalpha() for piece in _PIECE.findall(text))


def _random_bits(run: str) -> float:
    """Bits of randomness in consecutive letters and digits; 0 for words and numbers."""
    pieces = _PIECE.findall(run)
    in_words = sum(len(piece) for piece in pieces if len(piece) > 3 and _is_word(piece))
    if run.isdigit() or len(run) <= 3 or (len(pieces) == 1 and len(run) < 8):
        return 0.0
    if 2 * in_words >= len(run):  # words, with numbers next to them
        run = run[in_words:] if len(run) - in_words > 6 else ""
    elif len(pieces) <= 2 and all(map(_is_word, pieces)):  # such as fp16
        run = ""
    if not run:
        return 0.0
    if re.fullmatch("[0-9a-f]+|[0-9A-F]+", run):
        return 4.0 * len(run)
    alphabets = (26, "[a-z]"), (26, "[A-Z]"), (10, r"\d"), (100, r"[^A-Za-z0-9]")
    return len(run) * math.log2(sum(size for size, pattern in alphabets if re.search(pattern, run)))


def _is_word(letters: str) -> bool:
    """Whether letters of one case may be a word; true for fewer than four letters, and up to four digits."""
    lower = letters.lower()
    if len(lower) < 4 or not lower.isascii() or lower.isdigit():
        return len(lower) <= 4 or not lower.isdigit()
    n_common_pairs = sum(second in _FOLLOWERS[first] for first, second in itertools.pairwise(lower))
    min_share = 0.75 if 8 <= len(lower) < 16 else 0.8 if len(lower) < 8 else 0.9
    return n_common_pairs >= min_share * (len(lower) - 1)
