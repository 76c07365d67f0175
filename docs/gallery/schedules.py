# %% [markdown]
# # Four schedules of the learning rate
#
# The learning rate of each step is recorded next to its loss, so the two can be drawn one above the other.

# %%
import keras
import matplotlib.pyplot as plt
import mlflow
from sklearn.datasets import load_digits

import mlflow_hp

x, y = load_digits(return_X_y=True)
x = x / 16
schedules = keras.optimizers.schedules
rates = {
    "constant": 0.3,
    "time decay": schedules.InverseTimeDecay(0.3, decay_steps=100, decay_rate=1.0),
    "exponential": schedules.ExponentialDecay(0.3, decay_steps=100, decay_rate=0.5),
    "restarts": schedules.CosineDecayRestarts(0.3, first_decay_steps=150, t_mul=1.0),
}


# %%
def train(rate):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    with mlflow.start_run() as run:
        callbacks = [mlflow_hp.TrainingRecorder()]
        model.fit(x, y, validation_split=0.2, epochs=10, verbose=0, callbacks=callbacks)
    return mlflow_hp.load_history(run.info.run_id)


# %%
figure, (upper, lower) = plt.subplots(2, figsize=(9, 6), sharex=True, layout="constrained")
for name, rate in rates.items():
    history = train(rate)
    upper.plot(history.steps["learning_rate"], label=name)
    lower.plot(history.steps["batch_loss"], linewidth=0.6, label=name)
    print(f"{name}: held-out loss {history.epochs['val_loss'][-1]:.3f}")
upper.set(ylabel="learning rate")
upper.legend()
lower.set(xlabel="step", ylabel="loss of the batch", yscale="log")
figure.savefig("schedules.png", dpi=100)
