# %% [markdown]
# # How far each layer moves in a step
#
# The update ratio of a tensor is the length of a step's change, divided by the length of the tensor. A deep sigmoid
# network moves its last layer, and hardly its first; with ReLU all layers move.

# %%
import keras
import matplotlib.pyplot as plt
import mlflow
from sklearn.datasets import load_digits

import mlflow_hp

x, y = load_digits(return_X_y=True)


# %%
def train(activation):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, activation, name=f"hidden_{number}") for number in range(1, 5)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10, "softmax", name="last")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    with mlflow.start_run() as run:
        callbacks = [mlflow_hp.TrainingRecorder(weights="statistics", overhead=1)]
        model.fit(x / 16, y, epochs=4, verbose=0, callbacks=callbacks)
    return mlflow_hp.load_history(run.info.run_id)


# %%
figure, grid = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
for axes, activation in zip(grid, ("sigmoid", "relu"), strict=True):
    history = train(activation)
    for name in ("hidden_1", "hidden_2", "hidden_4", "last"):
        axes.plot(history.statistics(f"{name}/kernel")["update_ratio"][1:], linewidth=0.7, label=name)
    axes.set(title=activation, xlabel="step", yscale="log")
grid[0].set(ylabel="update ratio")
grid[1].legend()
figure.savefig("weights.png", dpi=100)
