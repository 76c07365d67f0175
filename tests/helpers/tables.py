"""Look-alikes of well-known tables: generated rows in the layout of the original files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Lookalike(NamedTuple):
    """File of a table: its name, content, and the settings with which it is trained on."""

    name: str
    content: bytes
    settings: dict[str, str]


def auto_mpg(n=200):
    """UCI's auto-mpg.data: aligned by spaces, a tab before the quoted name, ? for horsepower, no header."""
    rng = np.random.default_rng(0)
    lines = []
    for index in range(n):
        cylinders, weight, year, origin = (
            rng.choice([4, 6, 8]),
            rng.integers(1600, 5000),
            index % 13 + 70,
            index % 3 + 1,
        )
        mpg = 46 - weight / 150 + (year - 76) * 0.5 + rng.normal()
        horsepower = "?" if index % 33 == 32 else f"{weight / 30:.1f}"
        lines.append(
            f"{mpg:.1f}   {cylinders}   {cylinders * 40:.1f}      {horsepower:<10} {weight}.      "
            f'{rng.uniform(8, 24):.1f}   {year}  {origin}\t"chevrolet no. {index}"'
        )
    return Lookalike("auto-mpg.data", "\n".join(lines).encode() + b"\n", {"target": "1"})


def pima(n=200):
    """Kaggle's first pima-indians-diabetes.csv: commas, no header, the class 0 or 1 last."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(n):
        glucose, bmi = rng.integers(60, 200), rng.uniform(18, 50)
        ill = int(glucose + bmi + rng.normal(0, 20) > 165)
        numbers = [rng.integers(0, 15), glucose, rng.integers(0, 110), rng.integers(0, 60), rng.integers(0, 400)]
        lines.append(
            ",".join(map(str, [*numbers, f"{bmi:.1f}", f"{rng.uniform(0.1, 2):.3f}", rng.integers(21, 70), ill]))
        )
    return Lookalike("pima-indians-diabetes.csv", "\n".join(lines).encode(), {"target": "9"})


def wine_quality(n=240):
    """UCI's winequality-red.csv: semicolons, a quoted header with spaces, whole qualities from 3 to 8."""
    rng = np.random.default_rng(0)
    names = ["fixed acidity", "volatile acidity", "citric acid", "residual sugar", "pH", "alcohol", "quality"]
    lines = [";".join(f'"{name}"' for name in names)]
    for index in range(n):
        quality = index % 6 + 3
        values = [f"{rng.uniform(4, 15):.1f}", f"{1.2 - quality / 10:.2f}", f"{rng.uniform(0, 1):.2f}",
                  f"{rng.uniform(1, 9):.1f}", f"{rng.uniform(2.8, 3.9):.2f}", f"{8 + quality / 2:.1f}"]  # fmt: skip
        lines.append(";".join([*values, str(quality)]))
    return Lookalike("winequality-red.csv", "\n".join(lines).encode() + b"\n", {"target": "quality"})


def bank_marketing(n=240):
    """UCI's bank.csv: semicolons, quoted texts, "unknown" for what is missing, the target yes or no."""
    rng = np.random.default_rng(0)
    lines = ['"age";"job";"marital";"education";"default";"balance";"housing";"contact";"day";"month";"duration";"y"']
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    for index in range(n):
        duration = rng.integers(10, 1500)
        texts = [rng.choice(["admin.", "blue-collar", "technician", "unknown"]), rng.choice(["married", "single"]),
                 rng.choice(["primary", "secondary", "tertiary", "unknown"]),
                 "yes" if index % 30 == 0 else "no"]  # fmt: skip
        quoted = ";".join(f'"{text}"' for text in texts)
        lines.append(
            f"{rng.integers(18, 90)};{quoted};{rng.integers(-900, 9000)};"
            f'"{rng.choice(["yes", "no"])}";"cellular";{rng.integers(1, 31)};"{months[index % 12]}";{duration};'
            f'"{"yes" if duration > 900 else "no"}"'
        )
    return Lookalike("bank.csv", "\r\n".join(lines).encode() + b"\r\n", {"target": "y"})


def telco_churn(n=240):
    """Kaggle's WA_Fn-UseC_-Telco-Customer-Churn.csv: customerID, a blank for TotalCharges of the new, Yes or No."""
    rng = np.random.default_rng(0)
    lines = [
        "customerID,gender,SeniorCitizen,Partner,tenure,InternetService,Contract,MonthlyCharges,TotalCharges,Churn"
    ]
    for index in range(n):
        tenure, monthly = (index * 7) % 72, rng.uniform(18, 118)
        total = " " if tenure == 0 else f"{tenure * monthly:.2f}"
        lines.append(
            f"{index:04d}-ABCDE,{rng.choice(['Female', 'Male'])},{index % 2},{rng.choice(['Yes', 'No'])},{tenure},"
            f"{rng.choice(['DSL', 'Fiber optic', 'No'])},{rng.choice(['Month-to-month', 'One year', 'Two year'])},"
            f"{monthly:.2f},{total},{'Yes' if tenure < 20 else 'No'}"
        )
    return Lookalike("churn.csv", "\n".join(lines).encode() + b"\n", {"target": "Churn"})


def boston(n=200):
    """UCI's housing.data: fixed width, a space first, 14 columns, no header."""
    rng = np.random.default_rng(0)
    lines = []
    for index in range(n):
        rooms, poor = rng.uniform(4, 9), rng.uniform(2, 37)
        price = 9 * rooms - 0.5 * poor - 22 + rng.normal()
        lines.append(
            f" {rng.uniform(0, 9):.5f}  {rng.choice([0, 12.5, 25]):5.2f}  {rng.uniform(1, 27):6.3f}  "
            f"{index % 9 == 0:d}  "
            f"{rng.uniform(0.4, 0.8):.4f}  {rooms:.4f}  {rng.uniform(3, 100):5.1f}  {rng.uniform(1, 12):.4f}  "
            f"{rng.integers(1, 25):3d}  {rng.integers(187, 711)}.0  {rng.uniform(12, 22):5.2f} "
            f"{rng.uniform(0, 397):6.2f}  {poor:5.2f}  {price:5.2f}"
        )
    return Lookalike("housing.data", "\n".join(lines).encode() + b"\n", {"target": "14"})


def california(n=240):
    """Géron's housing.csv: commas, empty total_bedrooms, the text ocean_proximity, prices as floats."""
    rng = np.random.default_rng(0)
    lines = [
        "longitude,latitude,housing_median_age,total_rooms,total_bedrooms,median_income,median_house_value,ocean_proximity"
    ]
    for index in range(n):
        income, rooms = rng.uniform(0.5, 12), rng.integers(100, 9000)
        bedrooms = "" if index % 40 == 7 else f"{rooms / 5:.1f}"
        lines.append(
            f"{-rng.uniform(115, 124):.2f},{rng.uniform(32, 42):.2f},{rng.integers(1, 52)}.0,{rooms}.0,{bedrooms},"
            f"{income:.4f},{40000 * income + 10000 * rng.normal():.1f},"
            f"{['<1H OCEAN', 'INLAND', 'NEAR OCEAN', 'NEAR BAY'][index % 4]}"
        )
    return Lookalike("housing.csv", "\n".join(lines).encode() + b"\n", {"target": "median_house_value"})


ALL = [auto_mpg, pima, wine_quality, bank_marketing, telco_churn, boston, california]
