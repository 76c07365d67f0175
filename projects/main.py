"""The first thing to run: a descent that crawls, and two that follow the advice of its findings, on one surface."""

from __future__ import annotations

from projects import arguments, cost_contour
from projects.runner import main

PARAMETERS = [
    parameter._replace(default="2") if parameter is arguments.IMPROVE else parameter
    for parameter in cost_contour.PARAMETERS
]
QUESTION = "Why does this gradient descent not arrive at the minimum, and what makes it arrive?"

EXPERIMENT = cost_contour.EXPERIMENT._replace(name="main", question=QUESTION, parameters=PARAMETERS, stepwise=True)

if __name__ == "__main__":
    main(EXPERIMENT)
