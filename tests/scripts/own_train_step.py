"""A subclass with a train_step, as in Keras' guide to customizing fit."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(2)


class CustomModel(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply(gradients, trainable_vars)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


inputs = keras.Input(shape=(32,))
outputs = keras.layers.Dense(1)(inputs)
model = CustomModel(inputs, outputs)
model.compile(optimizer="adam", loss="mse", metrics=["mae"])
rng = np.random.default_rng(2)
x, y = rng.random((200, 32)), rng.random((200, 1))
model.fit(x, y, epochs=3, steps_per_epoch=5, batch_size=40, verbose=0)
MODELS = [model]
