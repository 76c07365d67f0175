"""Transfer learning in two phases: the head alone, then all of it at a small learning rate."""

import keras
import numpy as np

keras.utils.set_random_seed(6)
rng = np.random.default_rng(6)
x, y = rng.normal(size=(80, 10)).astype("float32"), rng.integers(0, 3, 80)
base = keras.Sequential(
    [keras.Input((10,)), keras.layers.Dense(12, activation="relu"), keras.layers.BatchNormalization()], name="base"
)
base.trainable = False
inputs = keras.Input((10,))
model = keras.Model(inputs, keras.layers.Dense(3)(base(inputs, training=False)))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer=keras.optimizers.Adam(), loss=loss, metrics=["accuracy"])
model.fit(x, y, epochs=2, batch_size=16, verbose=0)

base.trainable = True
model.compile(optimizer=keras.optimizers.Adam(1e-5), loss=loss, metrics=["accuracy"])
model.fit(x, y, epochs=2, batch_size=16, validation_data=(x, y), verbose=0)
MODELS = [model]
