# %% [markdown]
# # Two descents on one plane through weight space
#
# Snapshots of the weights of two trainings from one start; the plane is that in which the two paths vary most, and the
# loss is computed on a grid of points of it.

# %%
import keras
import mlflow
from sklearn.datasets import load_digits

import mlflow_hp
from mlflow_hp.plots import draw_landscape, landscape_info
from mlflow_hp.training import landscape

x, y = load_digits(return_X_y=True)
x, y = x[:500] / 16, y[:500]


# %%
def train(optimizer):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    with mlflow.start_run() as run:
        callbacks = [mlflow_hp.TrainingRecorder(snapshot_megabytes=4)]
        model.fit(x, y, epochs=12, verbose=0, callbacks=callbacks)
    return model, mlflow_hp.load_snapshots(run.info.run_id)


# %%
model, sgd = train(keras.optimizers.SGD(0.1))
_, adam = train(keras.optimizers.Adam(0.005))
losses = landscape(model, {"SGD 0.1": sgd, "Adam 0.005": adam}, x, y, resolution=25, progress=False)
print(f"losses on the grid: {losses.loss.min():.3f} to {losses.loss.max():.3f}")
draw_landscape(landscape_info(losses)).figure.savefig("landscape.png", dpi=100)
