"""The first fit of an architecture in each process does not count when fit times are compared."""

import numpy as np

from mlflow_hp.search.live.candidates import Candidate
from mlflow_hp.search.live.events import Fold
from mlflow_hp.search.live.warm_fits import fit_times
from mlflow_hp.search.live.workload import Trainings, Workload


def fold(task, seconds, workload, trained_by=None):
    return Fold(task, float(task), task + 1.0, (), 0, {}, {}, seconds, 0.1, None, None, trained_by, None, workload)


def candidates(*rows):
    made = {index: Candidate(None, {}, len(row)) for index, row in enumerate(rows)}
    for index, row in enumerate(rows):
        made[index].folds = dict(enumerate(row))
    return made


def test_first_fits_of_each_process_and_architecture_are_left_out():
    a, b, c = Workload("1", "small", "10 x 5"), Workload("2", "small", "10 x 5"), Workload("1", "large", "10 x 5")
    found = fit_times(
        candidates(
            [fold(0, 9.0, a), fold(1, 8.0, b), fold(2, 1.0, a)],
            [fold(3, 2.0, a), fold(4, 2.2, b), fold(5, 1.8, a)],
            [fold(6, 7.0, c), fold(7, 3.0, c), fold(8, 3.2, c)],
        ),
        4,
    )
    np.testing.assert_allclose(found.mean, [1.0, 2.0, 3.1, np.nan])
    assert found.n.tolist() == [1, 3, 2, 0]
    assert found.costs[0] == found.costs[1] != found.costs[2]
    assert found.costs[3] is None


def test_a_fit_that_shares_a_first_training_is_left_out_too():
    long, short = Workload("1", "small", "10 x 5"), Workload("1")
    found = fit_times(candidates([fold(1, 9.0, long)], [fold(0, 5.0, short, trained_by=1)]), 2)
    assert found.n.tolist() == [0, 0]
    assert found.costs[1] is None


def test_folds_of_an_earlier_process_do_not_count():
    assert fit_times(candidates([fold(0, 1.0, None)]), 1).n.tolist() == [0]


def test_the_workload_depends_on_layers_epochs_and_steps_alone():
    import keras

    def trained(units=4, rate=0.1, activation="relu", optimizer="SGD", epochs=3, steps=5):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation), keras.layers.Dense(1)])
        model.compile(getattr(keras.optimizers, optimizer)(rate), "mse")
        trainings = Trainings()
        trainings.add(model, epochs, steps)
        return trainings.workload()

    same = trained()
    assert trained(rate=0.2, activation="tanh").cost == same.cost
    others = [trained(units=8), trained(optimizer="Adam"), trained(epochs=4), trained(steps=6)]
    assert same.cost not in {each.cost for each in others}
    assert others[2].architecture == same.architecture
    assert Trainings().workload().cost is None
