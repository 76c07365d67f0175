# %% [markdown]
# # What the batch size changes
#
# Eight epochs in batches of three sizes, at one learning rate: small batches take more steps, and noisier ones.

# %%
import keras
import matplotlib.pyplot as plt
import mlflow
import numpy as np
from sklearn.datasets import load_digits

import mlflow_hp

x, y = load_digits(return_X_y=True)


# %%
def train(batch_size):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    with mlflow.start_run() as run:
        callbacks = [mlflow_hp.TrainingRecorder()]
        model.fit(x / 16, y, batch_size=batch_size, epochs=8, verbose=0, callbacks=callbacks)
    return mlflow_hp.load_history(run.info.run_id)


# %%
figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
for batch_size in (8, 32, 256):
    losses = train(batch_size).steps["batch_loss"]
    epochs = 8 * np.arange(1, len(losses) + 1) / len(losses)
    axes.plot(epochs, losses, linewidth=0.8, label=f"batches of {batch_size}: {len(losses)} steps")
    print(f"batches of {batch_size}: mean loss of the last epoch {losses[-len(losses) // 8 :].mean():.3f}")
axes.set(xlabel="epoch", ylabel="loss of the batch", yscale="log")
axes.legend()
figure.savefig("batch_size.png", dpi=100)
