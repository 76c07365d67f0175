"""A functional model of two outputs, with losses and weights by name."""

import keras
import numpy as np

keras.utils.set_random_seed(1)
rng = np.random.default_rng(1)
x = rng.normal(size=(120, 6)).astype("float32")
targets = {"price": x[:, :1] * 3, "sold": (x[:, 1:2] > 0).astype("float32")}

inputs = keras.Input((6,), name="house")
hidden = keras.layers.Dense(16, activation="relu")(inputs)
price = keras.layers.Dense(1, name="price")(hidden)
sold = keras.layers.Dense(1, activation="sigmoid", name="sold")(hidden)
model = keras.Model(inputs, {"price": price, "sold": sold})
model.compile(
    optimizer=keras.optimizers.RMSprop(1e-3),
    loss={"price": "mse", "sold": "binary_crossentropy"},
    loss_weights={"price": 1.0, "sold": 0.2},
    metrics={"sold": ["accuracy"]},
)
model.fit(x, targets, batch_size=20, epochs=2, verbose=0, callbacks=[keras.callbacks.EarlyStopping("loss", patience=3)])
MODELS = [model]
