"""Reading of CSV files of any layout: what is read, and what is said about it."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest

from mlflow_hp.errors import UserError
from projects.datasets import headers, tables
from tests.helpers.tables import ALL

PLAIN = [["a", "b"], ["1", "2.5"], ["3", "4.5"], ["-5", "1000.25"]]
VALUES = {"a": [1, 3, -5], "b": [2.5, 4.5, 1000.25]}


def read(tmp_path, content, header="auto"):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read(str(path), header)


def joined(separator, rows=PLAIN, end="\n"):
    return "".join(separator.join(row) + end for row in rows)


EUROPEAN = "a;b\n1;2,5\n3;4,5\n-5;1.000,25\n"


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (joined(","), []),
        (joined(", "), []),
        (joined(",", end=",\n"), []),
        (joined(",", end="\r\n"), []),
        (joined(",", end="\r"), []),
        (joined(",").rstrip("\n"), []),
        (joined(",", end="\n\n"), []),
        (joined(",").encode("utf-8-sig"), []),
        (gzip.compress(joined(",").encode(), mtime=0), []),
        (joined(",").encode("utf-16"), ["read as UTF-16"]),
        (joined(";"), ["the columns are separated by semicolons"]),
        (joined("\t"), ["the columns are separated by tabs"]),
        (joined("|"), ["the columns are separated by vertical bars"]),
        (joined("   "), ["the columns are separated by whitespace"]),
        ("sep=;\n" + joined(";"), ["the columns are separated by semicolons"]),
        (EUROPEAN, ["the columns are separated by semicolons", "decimal commas in b"]),
        ('a,b\n1,"2,5"\n3,"4,5"\n-5,"1000,25"\n', ["decimal commas in b"]),
        ('a,b\n1,2.5\n3,4.5\n-5,"1,000.25"\n', []),
        ("a,b\n1,$2.5\n3,$4.5\n-5,$1000.25\n", []),
        ("# made by hand\n" + joined(","), ["1 comment line left out"]),
        (
            "# a,b\n" + joined(",", PLAIN[1:]),
            ["the names of the columns are those of the comment line above the rows"],
        ),
        (joined(",") + ",\n", ["1 row without any value left out"]),
        (' "a" , b \n1,2.5\n3,4.5\n-5,1000.25\n', []),
    ],
)
def test_the_same_table_in_many_forms(tmp_path, content, notes):
    table = read(tmp_path, content)
    assert {name: table.frame[name].tolist() for name in table.frame} == VALUES
    assert table.notes == notes
    assert table.has_header


def test_latin(tmp_path):
    table = read(tmp_path, "größe;ort\n1;Köln\n2;Genève\n3;€\n".encode("cp1252"))
    assert list(table.frame) == ["größe", "ort"]
    assert table.frame["ort"].tolist() == ["Köln", "Genève", "€"]
    assert table.notes[0] == "read as Latin-1 (Windows-1252), since it is not UTF-8"


def test_dots_between_thousands_in_a_file_with_decimal_commas(tmp_path):
    table = read(tmp_path, "a;b;c\n1.234;1,5;0.5\n12.000;2,5;0.25\n")
    assert table.frame["a"].tolist() == [1234, 12000]
    assert table.frame["c"].tolist() == [0.5, 0.25]
    assert "dots between thousands, as in 1.234, in a" in table.notes


@pytest.mark.parametrize("missing", ["", " ", "?", "NA", "NaN", "N/A", "null", '""', '" "', "-", "."])
def test_missing_numbers(tmp_path, missing):
    frame = read(tmp_path, f"a,b\n1,x\n{missing},y\n3,z\n").frame
    assert frame["a"].isna().tolist() == [False, True, False]
    assert pd.api.types.is_integer_dtype(frame["a"])  # a target of classes stays one


def test_quoted_separators_and_line_ends(tmp_path):
    frame = read(tmp_path, 'a,b\n1,"x, y"\n2,"one\ntwo"\n3,"so ""called"""\n').frame
    assert frame["b"].tolist() == ["x, y", "one\ntwo", 'so "called"']


@pytest.mark.parametrize(
    ("rows", "has_names"),
    [
        ("a,b\n1,2\n3,4", True),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n6,2,virginica", False),  # iris.data
        ("M,0.455,15\nF,0.53,7\nM,0.3,9", False),  # abalone.data
        ("vhigh,low,unacc\nlow,vhigh,acc\nvhigh,vhigh,unacc\nlow,low,unacc", False),  # car.data
        ("edible,shape\np,x\ne,x\np,b\ne,b", True),
        ("1,?,3\n2,3,4\n5,6,7", False),
        ("label,0,1\n5,0,255\n3,12,7", True),  # pixels
        ("0,1,2\n0.5,1.5,7\n0.1,0.2,0.3", True),  # pandas' own names
        (",a,b\n0,1,2\n1,3,4", True),
        ("name,city\nAnn,Rome\nBob,Oslo", True),
        ("1,2\n1,2", False),
        ('"x","1,5"\n"y","2,5"\n"x","3,5"', False),
    ],
)
def test_whether_there_is_a_header(tmp_path, rows, has_names):
    table = read(tmp_path, rows)
    assert table.has_header == has_names
    assert len(table.frame) == rows.count("\n") + (not has_names)
    if not has_names:
        assert table.frame.columns.tolist() == [str(index + 1) for index in range(len(table.frame.columns))]
        assert any("no header" in note and "header=true" in note for note in table.notes)
    elif not headers.looks_like_names([line.split(",") for line in rows.split("\n")])[1]:
        assert any("taken for the names" in note for note in table.notes)


def test_a_header_by_order(tmp_path):
    assert list(read(tmp_path, "a,b\n1,2\n", "false").frame["1"]) == ["a", "1"]
    assert list(read(tmp_path, "1,2\n3,4\n", "true").frame) == ["1", "2"]


def test_names_that_are_twice(tmp_path):
    table = read(tmp_path, "a,a,,b\n1,2,3,4\n5,6,7,8\n")
    assert list(table.frame) == ["a", "a.1", "Unnamed: 2", "b"]
    assert "column 2 is called 'a.1', since there is another 'a'" in table.notes


def test_the_two_line_rows_of_the_first_boston_file_are_refused(tmp_path):
    row = " 0.00632 18.00 2.310 0 0.5380 6.5750 65.20 4.0900 1 296.0 15.30\n 396.90 4.98 24.00\n"
    with pytest.raises(UserError, match=r"row 2 .* has 3 values, and most have 11|row 1 .* value") as told:
        read(tmp_path, row * 20)
    assert len(str(told.value)) < 600


def test_a_table_is_read_once_while_it_is_remembered(tmp_path):
    with tables.remembered():
        first = read(tmp_path, "a,b\n1,2\n")
        assert read(tmp_path, "a,b\n3,4\n") is first
    assert read(tmp_path, "a,b\n3,4\n").frame["a"].tolist() == [3]


@pytest.mark.parametrize("lookalike", ALL, ids=lambda make: make.__name__)
def test_lookalikes_are_whole(tmp_path, lookalike):
    made = lookalike()
    table = read(tmp_path, made.content)
    assert len(table.frame) == len([line for line in made.content.splitlines() if line.strip()]) - table.has_header
    n_columns = {"auto_mpg": 9, "pima": 9, "wine_quality": 7, "bank_marketing": 12, "telco_churn": 10, "boston": 14,
                 "california": 8}  # fmt: skip
    assert table.frame.shape[1] == n_columns[lookalike.__name__]
    assert table.has_header == (lookalike.__name__ not in ("auto_mpg", "pima", "boston"))
    for name in table.frame:
        is_text = not pd.api.types.is_numeric_dtype(table.frame[name])
        known = {"9", "job", "marital", "education", "default", "housing", "contact", "month", "y", "customerID",
                 "gender", "Partner", "InternetService", "Contract", "Churn", "ocean_proximity"}  # fmt: skip
        assert is_text == (name in known and lookalike.__name__ != "pima" and lookalike.__name__ != "boston")
