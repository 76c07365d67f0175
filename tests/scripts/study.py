"""An Optuna study, with a Keras model in its objective."""

import keras
import numpy as np
import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
rng = np.random.default_rng(9)
x, y = rng.normal(size=(60, 4)).astype("float32"), rng.integers(0, 2, 60)
MODELS = []


def objective(trial):
    keras.utils.set_random_seed(9)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(trial.suggest_int("units", 2, 8)), keras.layers.Dense(1, "sigmoid")]
    )
    model.compile(
        keras.optimizers.Adam(trial.suggest_float("lr", 1e-3, 1e-1, log=True)),
        "binary_crossentropy",
        metrics=["accuracy"],
    )
    MODELS.append(model)
    model.fit(x, y, epochs=2, batch_size=20, verbose=0)
    return model.evaluate(x, y, verbose=0)[1]


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=9))
study.optimize(objective, n_trials=2)
