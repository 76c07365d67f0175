"""An LSTM on windows of a series, as a tf.data pipeline that repeats without end."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(5)
series = np.sin(np.arange(300) / 7).astype("float32")
windows = keras.utils.timeseries_dataset_from_array(
    series[:-10, None], series[10:, None], sequence_length=10, batch_size=16
)
model = keras.Sequential([keras.Input((10, 1)), keras.layers.LSTM(8), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 20), momentum=0.9), loss="mse")
model.fit(windows.repeat().prefetch(tf.data.AUTOTUNE), steps_per_epoch=10, epochs=2, verbose=0)
MODELS = [model]
