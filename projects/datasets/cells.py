"""Cells of a CSV: which are missing, numbers however they are written, or dates."""

from __future__ import annotations

import re

import pandas as pd

MISSING = frozenset({
    "", "?", "NA", "Na", "na", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "NAN", "nan", "-nan", "-NaN", "NULL", "Null",
    "null", "None", "\\N",
})  # fmt: skip
"""Texts of a missing cell."""
MISSING_NUMBERS = frozenset({"-", "--", ".", ".."})
"""Texts of a missing cell in a column whose other cells are numbers."""
_EXPONENT = r"([eE][+-]?\d+)?"
_PLAIN = re.compile(rf"[+-]?(\d+\.?\d*|\.\d+){_EXPONENT}")
_DECIMAL_COMMA = re.compile(rf"[+-]?(\d+|\d{{1,3}}(\.\d{{3}})+),\d+{_EXPONENT}")
_THOUSANDS_COMMA = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_THOUSANDS_DOT = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")
_UNIT = re.compile(r"^[$€£]\s*|\s*[%€]$")
_TIME = r"([ T]+\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp][Mm])?(Z|[+-]\d{2}:?\d{2})?)?"
_MONTH = r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_DATE = re.compile(
    rf"(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}{_TIME}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](\d{{4}}|\d{{2}}){_TIME}"
    rf"|\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}{_TIME}|{_MONTH} \d{{1,2}},? \d{{4}}{_TIME}"
    r"|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\s*[AaPp][Mm])?)",
    re.IGNORECASE,
)
_SHARE = 0.9
"""Least share of the cells of a column that decides what it holds."""


def is_missing(text: str) -> bool:
    """Whether a cell is missing."""
    return text.strip() in MISSING


def is_number(text: str) -> bool:
    """Whether a cell is a number, with a decimal point or a decimal comma."""
    text = _UNIT.sub("", text.strip())
    return any(form.fullmatch(text) for form in (_PLAIN, _DECIMAL_COMMA, _THOUSANDS_COMMA))


def without_missing(column: pd.Series) -> pd.Series:
    """Strip the texts of a column, and replace those of missing cells by NA."""
    stripped = column.str.strip()
    return stripped.mask(stripped.isin(MISSING), pd.NA)


def decimal_commas(column: pd.Series, separator: str) -> bool:
    """Whether the texts of a column are numbers with decimal commas.

    Those such as ``1,234`` may also have commas between thousands: they count if `separator` is a semicolon, which
    is written where the comma is the decimal sign.
    """
    texts = _significant(column)
    if not len(texts) or not texts.str.contains(",", regex=False).any():
        return False
    forms = texts.map(lambda text: bool(_DECIMAL_COMMA.fullmatch(text) or _PLAIN.fullmatch(text)))
    if not forms.all():
        return False
    commas = texts[texts.str.contains(",", regex=False)]
    return separator == ";" or not commas.map(lambda text: bool(_THOUSANDS_COMMA.fullmatch(text))).all()


def are_thousands(texts: pd.Series) -> bool:
    """Whether all dots in the texts of a column stand between thousands, as in ``1.234``."""
    dotted = texts[texts.str.contains(".", regex=False)]
    return len(dotted) > 0 and bool(dotted.map(lambda text: bool(_THOUSANDS_DOT.fullmatch(text.strip()))).all())


def to_numbers(column: pd.Series, decimal: str) -> pd.Series | None:
    """Convert texts to numbers, Int64 or Float64; signs of money and percent are removed. None if some are no numbers.

    Parameters
    ----------
    column : Series of str
        Texts, NA where missing.
    decimal : str
        ``"."`` or ``","``; the other one stands between thousands.

    Returns
    -------
    Series or None
        The numbers.
    """
    texts = _significant(column)
    if not len(texts):
        return None
    if decimal == ",":
        is_form = texts.map(lambda text: bool(any(f.fullmatch(text) for f in (_DECIMAL_COMMA, _THOUSANDS_DOT, _PLAIN))))
        if not is_form.all():
            return None
        dotted = texts.str.contains(",", regex=False) | texts.map(lambda text: bool(_THOUSANDS_DOT.fullmatch(text)))
        plain = texts.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        texts = texts.mask(dotted, plain)
    else:
        with_commas = texts.map(lambda text: bool(_THOUSANDS_COMMA.fullmatch(text)))
        texts = texts.mask(with_commas, texts.str.replace(",", "", regex=False))
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.isna().any():
        return None
    is_whole = not texts.str.contains(r"[.eE]|inf", case=False, regex=True).any()
    if is_whole and numbers.abs().max() >= 2**63:
        is_whole = False
    return numbers.astype("Int64" if is_whole else "Float64").reindex(column.index)


def are_dates(column: pd.Series) -> bool:
    """Whether nearly all texts of a column are dates or times of day."""
    texts = column.dropna()
    return len(texts) > 0 and float(texts.map(lambda text: bool(_DATE.fullmatch(text))).mean()) >= _SHARE


def _significant(column: pd.Series) -> pd.Series:
    """Texts of a column that are not missing, without signs of money and percent."""
    texts = column.dropna()
    texts = texts[~texts.isin(MISSING_NUMBERS)]
    return texts.str.replace(_UNIT, "", regex=True) if len(texts) else texts
