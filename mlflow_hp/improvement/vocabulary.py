"""Names that users give to hyperparameters, by the names that findings use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SYNONYMS: dict[str, tuple[str, ...]] = {
    "learning_rate": (
        "learning_rate", "lr", "learn_rate", "learning_rate_init", "initial_learning_rate", "init_lr", "base_lr",
        "step_size", "eta", "alpha",
    ),
    "batch_size": ("batch_size", "batch", "batchsize", "minibatch_size", "mini_batch_size", "bs"),
    "epochs": ("epochs", "n_epochs", "num_epochs", "nb_epoch", "nb_epochs", "max_epochs", "epoch"),
    "optimizer": ("optimizer", "optimiser", "optim", "opt", "solver"),
    "momentum": ("momentum", "beta"),
    "clipnorm": ("clipnorm", "clip_norm", "global_clipnorm", "max_grad_norm", "gradient_clip", "grad_clip", "clip"),
    "loss": ("loss", "loss_function", "loss_fn", "criterion", "objective"),
    "metrics": ("metrics", "metric"),
    "activation": ("hidden_activation", "activation", "activation_function", "activations", "act", "nonlinearity"),
    "last_activation": (
        "last_activation", "output_activation", "final_activation", "out_activation", "activation_out",
    ),
    "from_logits": ("from_logits", "logits"),
    "units": (
        "units", "hidden_units", "hidden", "n_units", "n_hidden", "num_units", "neurons", "width", "hidden_size",
        "hidden_layers", "layers",
    ),
    "last_units": ("last_units", "output_units", "n_outputs", "n_classes", "num_classes", "output_dim", "out_units"),
    "kernel_initializer": (
        "kernel_initializer", "initializer", "initialiser", "weight_init", "init_mode", "initialization", "init",
    ),
    "rate": ("dropout", "dropout_rate", "drop_rate", "drop", "rate"),
    "regularizer": (
        "kernel_regularizer", "regularizer", "regulariser", "l2", "l2_reg", "regularization", "weight_penalty",
    ),
    "trainable": ("trainable", "train_base", "unfreeze", "fine_tune"),
    "monitor": ("monitor",),
    "mode": ("mode",),
    "shuffle": ("shuffle",),
    "schedule": ("schedule", "lr_schedule", "learning_rate_schedule", "decay"),
    "class_weight": ("class_weight", "class_weights", "balanced"),
    "batch_normalization": ("batch_normalization", "batch_norm", "batchnorm", "use_bn", "bn"),
    "standardize": (
        "standardize", "standardise", "standardize_inputs", "scale_inputs", "scale", "scaled", "normalize",
        "normalise", "normalize_inputs", "rescale",
    ),
    "scale_targets": (
        "scale_targets", "standardize_targets", "standardise_targets", "normalize_targets", "scale_y", "scale_target",
    ),
    "targets": ("targets", "labels", "label_format"),
    "features": ("features", "feature_columns"),
}  # fmt: skip
"""Parameter of a `Change` -> names of keywords that mean it; of several that a function has, the first counts."""


def keyword_of(parameter: str, names: Iterable[str]) -> str | None:
    """Find the keyword that means a parameter.

    Upper case and underscores do not count, and of names like scikeras' ``optimizer__learning_rate`` the last part
    is enough.

    Parameters
    ----------
    parameter : str
        Parameter of a `Change`.
    names : iterable of str
        Keywords of the function.

    Returns
    -------
    str or None
        The keyword; None if none means it.

    Examples
    --------
    >>> from mlflow_hp.improvement.vocabulary import keyword_of
    >>> keyword_of("learning_rate", ["epochs", "lr"])
    'lr'
    """
    by_text: dict[str, str] = {}
    for name in names:
        by_text.setdefault(_plain(name), name)
    for name in names:
        by_text.setdefault(_plain(name.rpartition("__")[2]), name)
    synonyms = SYNONYMS.get(parameter, (parameter,))
    return next((by_text[_plain(synonym)] for synonym in synonyms if _plain(synonym) in by_text), None)


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
