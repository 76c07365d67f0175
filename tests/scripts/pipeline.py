"""A scikeras classifier in a pipeline of scikit-learn."""

import keras
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def get_model(hidden, meta):
    model = keras.Sequential(
        [
            keras.Input((meta["n_features_in_"],)),
            keras.layers.Dense(hidden, activation="relu"),
            keras.layers.Dense(meta["n_classes_"], activation="softmax"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer="sgd", metrics=["accuracy"])
    return model


x, y = load_iris(return_X_y=True)
pipe = make_pipeline(
    StandardScaler(), KerasClassifier(get_model, hidden=8, epochs=3, batch_size=30, verbose=0, random_state=7)
)
pipe.fit(x, y)
MODELS = [pipe[-1].model_]
