"""Callbacks that intervene in a fit."""

from __future__ import annotations

import keras


class AtEpoch(keras.callbacks.Callback):
    """Calls functions at the begin of epochs: ``AtEpoch(epoch_1=function)``."""

    def __init__(self, **actions):
        super().__init__()
        self.actions = {int(name.removeprefix("epoch_")): action for name, action in actions.items()}

    def on_epoch_begin(self, epoch, logs=None):
        self.actions.get(epoch, lambda: None)()
