# %% [markdown]
# # The path of a descent on the exact cost surface
#
# A linear regression has two weights, so all of its cost surface can be drawn, and the recorded weights are a path on
# it. The feature is in its own units first, then standardised: the valley becomes round, and as many steps arrive.

# %%
import keras
import matplotlib.pyplot as plt
import mlflow
import numpy as np

import mlflow_hp
from mlflow_hp.analysis import LinearRegressionSurface
from mlflow_hp.plots import surface

generator = np.random.default_rng(0)
raw = generator.uniform(0, 6, size=200)
y = 7 + 3 * raw + generator.normal(scale=2, size=200)


# %%
def weights(x, learning_rate):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros", name="line")])
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    with mlflow.start_run() as run:
        callbacks = [mlflow_hp.TrainingRecorder()]
        model.fit(x[:, None], y, batch_size=20, epochs=4, verbose=0, callbacks=callbacks)
    history = mlflow_hp.load_history(run.info.run_id)
    return history.weights("line/kernel")[:, 0, 0], history.weights("line/bias")[:, 0]


# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for where, x, title in zip(axes, (raw, (raw - raw.mean()) / raw.std()), ("raw", "standardised"), strict=True):
    cost = LinearRegressionSurface(x, y)
    rate = 0.2 * cost.largest_stable_learning_rate
    print(f"{title}: condition number {cost.condition_number:.1f}, learning rate {rate:.3f}")
    info = surface.surface_info(cost, {f"SGD {rate:.3f}": weights(x, rate)}, title=title)
    surface.draw_surface(info, where)
figure.savefig("cost_surface.png", dpi=100)
