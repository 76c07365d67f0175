"""Pictures of gradients: their numbers by equality, their drawing by what it shows."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.history import TrainingHistory
from mlflow_hp.plots import figure, gradients, training


def history(n_steps=1000, **columns):
    draw = np.random.default_rng(0)
    steps = {"step": np.arange(n_steps), "samples": np.full(n_steps, 8), "epoch": np.zeros(n_steps, int)}
    steps |= {"learning_rate": np.full(n_steps, 0.1), "gradient_norm": 1 + draw.random(n_steps)}
    return TrainingHistory.from_arrays(steps | {"gradient_cosine": np.full(n_steps, 0.5)} | columns)


def norms(**by_tensor):
    n_steps = len(next(iter(by_tensor.values())))
    return history(n_steps, **{f"gradient_norm_of/{name}": values for name, values in by_tensor.items()})


def test_norms_are_binned_and_keep_the_order_of_the_tensors():
    vanishing = norms(**{f"z{i}/kernel": np.full(1001, 10.0 ** (i - 9)) for i in range(10)})
    info = gradients.gradient_norms_by_step(vanishing)
    assert info.tensors == [f"z{i}/kernel" for i in range(10)]
    assert info.norms.shape == (10, 167)
    assert (info.edges[0], info.edges[1], info.edges[-1]) == (0, 6, 1001)
    np.testing.assert_allclose(info.norms, info.norms[:, :1] * np.ones(167))
    axes = gradients.draw_gradient_norms(info)
    assert axes.get_ylim() == (9.5, -0.5)  # the input is at the top
    assert axes.collections[0].get_clim() == pytest.approx((1e-9, 1.0))
    assert axes.get_title() == ""


def test_a_step_that_is_not_finite_or_zero_shows():
    values = np.ones(1000)
    broken, still = values.copy(), 0 * values
    broken[503] = np.inf
    info = gradients.gradient_norms_by_step(norms(broken=broken, still=still, fine=values))
    assert np.flatnonzero(np.isnan(info.norms[0])).tolist() == [100]
    assert not info.norms[1].any()
    assert gradients.draw_gradient_norms(info).get_title() == "black: 0, orange: not finite"


@pytest.mark.parametrize(
    "by_tensor",
    [
        {"a": np.zeros(3), "b": np.zeros(3)},
        {"a": np.full(3, np.nan), "b": np.full(3, np.nan)},
        {"a": np.ones(1), "b": np.ones(1)},
        {"a": np.full(3, 1e300), "b": np.full(3, 1e-300)},
        {f"layer_{i}_$with_a_very_long_name_of_its_own/kernel": np.ones(9) for i in range(160)},
    ],
    ids=["zero", "nan", "one step", "extreme", "many tensors"],
)
def test_any_norms_can_be_drawn(by_tensor, tmp_path):
    axes = gradients.draw_gradient_norms(gradients.gradient_norms_by_step(norms(**by_tensor)))
    assert figure.save(axes, tmp_path / "norms.png").stat().st_size > 5000


def test_the_noise_scale_stands_next_to_the_batch_size():
    info = gradients.noise_scale_curve(history())
    scale, batches = info.curves
    assert (batches.label, batches.x.tolist(), batches.y.tolist()) == ("batch size 8", [0, 999], [8, 8])
    assert (scale.x[0], scale.x[-1]) == (100, 999)
    assert np.median(scale.y) == pytest.approx(8.3, rel=0.1)  # 8 (E|g|^2 - p) / p with p = |g| |g'| / 2
    training.draw_curves(info)
    unknown = gradients.noise_scale_curve(history(gradient_cosine=np.full(1000, -0.1)))
    assert unknown.curves == []
    assert training.draw_curves(unknown).texts[0].get_text() == "no finite value"


def test_a_few_known_noise_scales_are_not_drawn():
    cosine = np.full(1000, -0.1)
    cosine[:200] = 0.5
    few = gradients.noise_scale_by_step(history(n_steps=109)).step
    assert (len(few), len(gradients.noise_scale_curve(history(n_steps=109)).curves)) == (9, 0)
    assert len(gradients.noise_scale_curve(history(n_steps=110)).curves) == 2
    assert len(gradients.noise_scale_curve(history(gradient_cosine=cosine)).curves) == 2
    cosine[60:200] = -0.1
    by_chance = history(gradient_cosine=cosine)
    assert np.isfinite(gradients.noise_scale_by_step(by_chance).scale).sum() >= gradients.MIN_KNOWN
    assert gradients.noise_scale_curve(by_chance).curves == []


def test_sharpness_is_drawn_where_it_was_taken():
    taken = np.where(np.arange(1000) % 100 == 0, 15.0, np.nan)
    info = gradients.sharpness_curve(history(sharpness=taken))
    assert info.curves[0].x.tolist() == list(range(0, 1000, 100))
    np.testing.assert_allclose(info.curves[0].y, 1.5)
    assert info.references == {"edge of stability of plain gradient descent: 2": 2.0}
    assert (info.curves[0].label, info.first_not_finite) == ("learning rate x sharpness", None)
    assert training.draw_curves(info).get_yscale() == "linear"
    for without in ({}, {"sharpness": np.full(1000, np.nan)}, {"sharpness": np.full(1000, -1.0)}):
        assert gradients.sharpness_curve(history(**without)).curves == []


def test_a_small_sharpness_has_a_logarithmic_axis_and_says_what_it_leaves_out():
    taken = np.where(np.arange(1000) % 100 == 0, np.arange(1000) / 1000 - 0.2, np.nan)
    info = gradients.sharpness_curve(history(sharpness=taken))
    assert info.curves[0].label == "learning rate x sharpness (not drawn: 3 of 10, not positive)"
    assert info.curves[0].x.tolist() == list(range(300, 1000, 100))
    assert training.draw_curves(info).get_yscale() == "log"
    broken = gradients.sharpness_curve(history(sharpness=np.where(taken < 0, np.inf, taken)))
    assert (len(broken.curves[0].x), broken.first_not_finite) == (7, None)
