"""Gradients that an optimizer gets: recorded as a tape computes them apart, without a bit of the training changed."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import mlflow_hp
from mlflow_hp.history.step_record import gradient_norms
from mlflow_hp.training.capture import gradient_reader
from tests.helpers.fits import X, Y, bare, record, same_weights

pytestmark = pytest.mark.usefixtures("store")

RNG = np.random.default_rng(3)
WORDS = RNG.integers(0, 50, (37, 6)).astype("int32")  # words that a batch has several times


def dense(optimizer="sgd", units=16, **compiled):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(units, "tanh", name="hidden"), layers.Dense(1, name="out")]
    )
    model.compile(optimizer, "mse", **compiled)
    return model


def embedding(optimizer="sgd", words=50, **compiled):
    keras.utils.set_random_seed(7)
    stack = [keras.Input((6,), dtype="int32"), layers.Embedding(words, 4, name="words"), layers.Flatten()]
    model = keras.Sequential([*stack, layers.Dense(1, name="out")])
    model.compile(optimizer, "mse", **compiled)
    return model


def fitted(model, x=X, **recorder):
    recorder = mlflow_hp.TrainingRecorder(weights="all", report=False, **recorder)
    return record(model, x, recorder=recorder, shuffle=False).history


def gradients_apart(model, history, x=X):
    """The gradients of each step, flat and float64 by tensor, at the recorded weights before it."""
    steps = []
    for step in range(history.n_steps):
        start = 8 * int(history.steps["batch"][step])
        batch, target = x[start : start + 8], Y[start : start + 8, np.newaxis]
        model.set_weights([history.weights(tensor.name)[step] for tensor in history.tensors])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(batch, training=True) - target))
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
        flat = [tf.reshape(tf.convert_to_tensor(each), [-1]).numpy().astype(np.float64) for each in gradients]
        steps.append(dict(zip((tensor.name for tensor in history.tensors), flat, strict=True)))
    return steps


def norm_of(parts):
    return np.linalg.norm(np.concatenate(list(parts)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("make", "x", "compiled"),
    [
        (dense, X, {}),
        (dense, X, {"steps_per_execution": 4}),
        (dense, X, {"jit_compile": True}),
        (dense, X, {"units": 8000, "optimizer": keras.optimizers.Adam(1e-4)}),  # the kernel is large
        (embedding, WORDS, {}),
        (embedding, WORDS, {"words": 9000, "optimizer": "adam"}),
    ],
)
def test_norms_and_cosines_are_those_of_a_tape(make, x, compiled):
    if isinstance(compiled.get("optimizer"), keras.optimizers.Optimizer):
        compiled = compiled | {"optimizer": type(compiled["optimizer"]).from_config(compiled["optimizer"].get_config())}
    model = make(**compiled)
    history = fitted(model, x, gradients=True)
    assert history.meta["reader"] == "graph"
    apart = gradients_apart(model, history, x)
    norms = gradient_norms(history.steps)
    assert list(norms) == [tensor.name for tensor in history.tensors]
    for name, column in norms.items():
        np.testing.assert_allclose(column, [np.linalg.norm(step[name]) for step in apart], rtol=2e-5, atol=1e-9)
    np.testing.assert_allclose(history.steps["gradient_norm"], [norm_of(step.values()) for step in apart], rtol=2e-5)
    flat = [np.concatenate(list(step.values())) for step in apart]
    cosines = [
        now @ before / (np.linalg.norm(now) * np.linalg.norm(before)) for before, now in itertools.pairwise(flat)
    ]
    recorded = history.steps["gradient_cosine"]
    assert np.isnan(recorded[0])
    is_sampled = max(np.prod(tensor.shape) for tensor in history.tensors) > 2**14
    np.testing.assert_allclose(recorded[1:], cosines, atol=0.03 if is_sampled else 2e-4)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("clipping", "clip"),
    [
        ({"clipnorm": 0.5}, lambda g: {n: v * min(1, 0.5 / np.linalg.norm(v)) for n, v in g.items()}),
        ({"global_clipnorm": 0.7}, lambda g: {n: v * min(1, 0.7 / norm_of(g.values())) for n, v in g.items()}),
        ({"clipvalue": 0.05}, lambda g: {n: np.clip(v, -0.05, 0.05) for n, v in g.items()}),
    ],
)
@pytest.mark.parametrize("units", [16, 8000])
def test_clipped_norms_are_those_that_the_update_has(clipping, clip, units):
    rate = 1.0 if units == 16 else 0.001
    model = dense(keras.optimizers.SGD(rate, **clipping), units)
    history = fitted(model)
    apart = gradients_apart(model, history)
    clipped = [clip(step) for step in apart]
    assert any(norm_of(one.values()) < 0.9 * norm_of(two.values()) for one, two in zip(clipped, apart, strict=True))
    expected = [norm_of(step.values()) for step in clipped]
    np.testing.assert_allclose(history.steps["clipped_gradient_norm"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        history.steps["clipped_gradient_norm_of/hidden/kernel"],
        [np.linalg.norm(step["hidden/kernel"]) for step in clipped],
        rtol=1e-4,
    )
    # And what the weights moved by: SGD's update is its rate times the clipped gradient.
    moved = np.sqrt(
        sum(
            np.square(np.diff(history.weights(t.name).astype(float), axis=0)).reshape(history.n_steps, -1).sum(1)
            for t in history.tensors
        )
    )
    np.testing.assert_allclose(history.steps["clipped_gradient_norm"] * rate, moved, rtol=2e-3)


def test_without_clipping_there_is_no_clipped_norm():
    assert not [name for name in fitted(dense()).steps if name.startswith("clipped")]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("scaling", ["loss_scale_factor", "LossScaleOptimizer"])
def test_norms_are_of_the_loss_itself_where_the_optimizer_scales_it(scaling):
    plain = fitted(dense(keras.optimizers.SGD(0.01, clipvalue=0.1)))
    if scaling == "loss_scale_factor":
        optimizer = keras.optimizers.SGD(0.01, clipvalue=0.1, loss_scale_factor=64.0)
    else:
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01, clipvalue=0.1), initial_scale=2**10)
    scaled = fitted(dense(optimizer))
    for name in ("gradient_norm", "clipped_gradient_norm", "gradient_norm_of/out/kernel"):
        np.testing.assert_allclose(scaled.steps[name], plain.steps[name], rtol=1e-4, err_msg=name)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda **c: dense(keras.optimizers.AdamW(0.01, clipnorm=0.3, use_ema=True), **c),
        lambda **c: dense(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.01), 8000, **c),
        lambda **c: dense(keras.optimizers.Adam(0.01, gradient_accumulation_steps=3), **c),
        lambda **c: dense(keras.optimizers.RMSprop(0.01, global_clipnorm=0.1, centered=True), **c),
    ],
)
def test_training_is_the_same_bit_for_bit(make, jit):
    recorded = record(make(jit_compile=jit))
    assert same_weights(recorded.model, bare(make(jit_compile=jit)))
    assert ("gradient_norm" in recorded.history.steps) is not jit
    assert jit or np.all(recorded.history.steps["gradient_norm"] > 0)


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.parametrize("words", [50, 9000])
def test_training_of_an_embedding_is_the_same_bit_for_bit(words):
    for optimizer in ("sgd", "adam"):
        recorded = record(embedding(optimizer, words), WORDS)
        assert same_weights(recorded.model, bare(embedding(optimizer, words), WORDS))


def several_large(optimizer, **compiled):
    """Four large tensors, of which one is looked up, among small ones."""
    keras.utils.set_random_seed(7)
    stack = [keras.Input((6,), dtype="int32"), layers.Embedding(6000, 4), layers.Flatten(), layers.Dense(200)]
    stack += [layers.Dense(200, "relu"), layers.BatchNormalization(), layers.Dense(200, "tanh"), layers.Dense(90)]
    model = keras.Sequential([*stack, layers.Dense(1)])
    model.compile(optimizer, "mse", **compiled)
    return model


@pytest.mark.thorough
@pytest.mark.sampled(8)
@pytest.mark.parametrize("per_execution", [1, 4])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, amsgrad=True),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, clipvalue=0.01),
        lambda: keras.optimizers.Adagrad(0.01, global_clipnorm=0.1),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=16.0),
    ],
)
def test_training_of_several_large_tensors_is_the_same_bit_for_bit(optimizer, per_execution):
    compiled = {"steps_per_execution": per_execution}
    recorded = record(several_large(optimizer(), **compiled), WORDS)
    assert same_weights(recorded.model, bare(several_large(optimizer(), **compiled), WORDS))
    assert np.all(recorded.history.steps["gradient_norm"] > 0)


def test_a_large_gradient_is_used_as_soon_as_it_has_been_read():
    """Not once all of them have been, which would keep all in memory."""
    model = several_large("adam")
    reader = gradient_reader.GradientReader(model)
    with tf.Graph().as_default():
        values = [tf.zeros(variable.shape) for variable in model.trainable_variables]
        passed = reader.before_apply("optimizer", list(zip(model.trainable_variables, values, strict=True)))
        for before, after in zip(values, passed, strict=True):
            is_large = np.prod(before.shape) > 2**14
            assert (after is not before) == is_large
            reads = {ancestor.name for op in after.op.control_inputs for ancestor in ancestors(op)}
            assert {each.op.name for each in values} & reads == ({before.op.name} if is_large else set())


def ancestors(operation):
    found, queue = set(), [operation]
    while queue:
        found.add(queue[-1])
        queue += [each.op for each in queue.pop().inputs]
    return found


class Asked(keras.optimizers.SGD):
    """Notes how it was called."""

    calls = ()

    def apply(self, grads, trainable_variables=None):
        self.calls = (*self.calls, (type(grads), [None if each is None else each.shape for each in grads]))
        return super().apply(grads, trainable_variables)


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("way", ["list", "tuple", "keyword", "with None"])
def test_an_optimizer_gets_what_the_step_gives_it(way):
    class Own(OwnStep):
        def apply(self, gradients):
            if way == "keyword":
                self.optimizer.apply(grads=gradients, trainable_variables=self.trainable_variables)
            elif way == "with None":
                self.optimizer.apply([None, gradients[1]], self.trainable_variables)
            else:
                self.optimizer.apply((list if way == "list" else tuple)(gradients), self.trainable_variables)

    def made():
        model = Own()
        model(np.tile(X[:1], (1, 6000)))
        model.compile(Asked(0.001))
        return model

    x = np.tile(X, (1, 6000))
    recorded, alone = record(made(), x), bare(made(), x)
    assert same_weights(recorded.model, alone)
    assert recorded.model.optimizer.calls[-1] == alone.optimizer.calls[-1]
    assert recorded.history.n_steps == 10


def transformer():
    """A model whose step XLA compiles otherwise where the gradients are read: a block of Keras' guide."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6,), dtype="int32")
    words = layers.Embedding(50, 16, mask_zero=True)(inputs)
    attended = layers.LayerNormalization()(words + layers.MultiHeadAttention(2, 8)(words, words))
    outputs = layers.Dense(1)(layers.GlobalAveragePooling1D()(attended))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=0.5), "mse", jit_compile=True)
    return model


@pytest.mark.thorough
def test_where_xla_compiles_the_step_gradients_are_read_on_request_alone(caplog):
    gradient_reader.say_left_out.cache_clear()
    with caplog.at_level("INFO", "mlflow_hp"):
        recorded = [record(transformer(), WORDS) for _ in range(2)]
    (message,) = [record.message for record in caplog.records if "XLA" in record.message]
    assert message.endswith("gradients=True records them all the same")
    assert same_weights(recorded[0].model, bare(transformer(), WORDS))
    assert not [name for name in recorded[0].history.steps if "gradient" in name]
    recorder = mlflow_hp.TrainingRecorder(gradients=True, report=False)
    assert np.all(record(transformer(), WORDS, recorder=recorder).history.steps["gradient_norm"] > 0)


@pytest.mark.parametrize("of_all", ["set_jit", "flags"])
def test_a_setting_for_all_graphs_is_one_of_xla(of_all, monkeypatch):
    model = dense(jit_compile=False)
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    assert not gradient_reader.is_compiled_by_xla(model)
    if of_all == "flags":
        monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit")
    else:
        monkeypatch.setattr(tf.config.optimizer, "get_jit", lambda: "autoclustering")
    assert gradient_reader.is_compiled_by_xla(model)


def test_gradients_can_be_left_out():
    assert not [name for name in fitted(dense(), gradients=False).steps if "gradient" in name]


def test_a_second_fit_has_no_cosine_with_the_first():
    model = dense()
    for _ in range(2):
        history = fitted(model)
        assert np.isnan(history.steps["gradient_cosine"]).tolist() == [True] + [False] * 9


class OwnStep(keras.Model):
    """A train step of the user's own, whose way of applying gradients a subclass says."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(7)
        self.out = layers.Dense(1, name="out")

    def call(self, x):
        return self.out(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x)[:, 0] - tf.cast(y, tf.float32)))
        self.apply(tape.gradient(loss, self.trainable_variables))
        return {"loss": loss}


class WithoutVariables(OwnStep):
    def apply(self, gradients):
        self.optimizer.build(self.trainable_variables)
        self.optimizer.apply(gradients)


class Clipped(OwnStep):
    def apply(self, gradients):
        gradients, _ = tf.clip_by_global_norm(gradients, 0.25)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))


class Conditional(OwnStep):
    def apply(self, gradients):
        apply = self.optimizer.apply
        self.optimizer.build(self.trainable_variables)
        tf.cond(tf.constant(True), lambda: apply(gradients, self.trainable_variables), lambda: None)


class InAFunction(OwnStep):
    @tf.function
    def train_step(self, data):
        return super().train_step(data)

    def apply(self, gradients):
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("own", "is_read"), [(WithoutVariables, True), (Clipped, True), (Conditional, False), (InAFunction, False)]
)
def test_a_step_of_the_users_own(own, is_read, caplog):
    gradient_reader.say_left_out.cache_clear()
    caplog.set_level("INFO", "mlflow_hp")

    def made():
        model = own()
        model(X[:1])
        model.compile(keras.optimizers.SGD(0.1))
        return model

    recorded = record(made())
    assert same_weights(recorded.model, bare(made()))
    history = recorded.history
    assert history.meta["reader"] == "graph"
    assert ("gradient_norm" in history.steps) == is_read
    said = [record.message for record in caplog.records if "gradients are not recorded" in record.message]
    assert len(said) == (0 if is_read else 1)
    if own is Clipped:
        np.testing.assert_allclose(history.steps["gradient_norm"][0], 0.25, rtol=1e-5)


def test_a_gradient_that_is_not_finite_is_seen():
    x = X.copy()
    x[20, 0] = np.nan
    history = fitted(dense(), x)
    assert np.isfinite(history.steps["gradient_norm"][:2]).all()
    assert np.isnan(history.steps["gradient_norm"][2:5]).all()
