# %% [markdown]
# # Four optimizers from one start on Beale's function
#
# The surface gives its gradient, and an optimizer of Keras steps along it.

# %%
import keras
import numpy as np

from mlflow_hp.analysis import BealeSurface
from mlflow_hp.plots import surface

beale = BealeSurface()
optimizers = {
    "SGD": keras.optimizers.SGD(0.001),
    "momentum 0.9": keras.optimizers.SGD(0.001, momentum=0.9),
    "RMSprop": keras.optimizers.RMSprop(0.02),
    "Adam": keras.optimizers.Adam(0.1),
}


# %%
def path(optimizer, steps=400):
    point = keras.Variable([1.0, 1.5])
    points = [np.array(point)]
    for _ in range(steps):
        gradient = beale.gradient(*np.array(point, "float64")).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [point])
        points.append(np.array(point))
    return tuple(np.array(points).T)


# %%
paths = {name: path(optimizer) for name, optimizer in optimizers.items()}
for name, (x, y) in paths.items():
    distance = np.hypot(x[-1] - 3, y[-1] - 0.5)  # the minimum is at (3, 0.5)
    print(f"{name}: {distance:.3f} from the minimum after 400 steps")
info = surface.surface_info(beale, paths, labels=("x", "y"), best="minimum, f", title="Beale's function")
axes = surface.draw_surface(info)
axes.figure.savefig("optimizers.png", dpi=100)
