"""Texts of pictures: shortened, literal, and in words instead of names of arguments."""

from __future__ import annotations

import re

MAX_LINE_LENGTH = 160
"""Letters of a line of text."""


def short(text: str, max_length: int = MAX_LINE_LENGTH) -> str:
    """Shorten `text` to `max_length` letters by cutting its middle, and escape dollar signs, which begin formulas."""
    return escaped(cut_middle(text, max_length))


def cut_middle(text: str, max_length: int) -> str:
    """Cut the middle of a `text` of more than `max_length` letters."""
    if len(text) <= max_length:
        return text
    head = (max_length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (max_length - 1 - head) :]}"


def escaped(text: str) -> str:
    """Escape dollar signs, which begin formulas."""
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def capitalized(text: str) -> str:
    """Begin `text` with a capital; a word with one elsewhere, and a single letter, stay as they are."""
    word = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if len(word) > 1 and word.isalpha() and word.islower() else text


def metric_in_words(metric: str) -> str:
    """Write the name of a metric in words: of ``val_loss`` comes "validation loss"."""
    words = metric.replace("_", " ")
    return f"validation {words.removeprefix('val ')}" if words.startswith("val ") else words


def in_words(label: str) -> str:
    """Write a combination in words: of ``learning_rate=0.1 batch_size=8`` comes "learning rate 0.1, batch size 8"."""
    spaced = re.sub(r"(?<![,:(\s])\s+(?=\w+=)", ", ", label)
    return re.sub(r"\b(\w+)=(?=\S)", lambda match: f"{re.sub('_+', ' ', match[1])} ", spaced)
