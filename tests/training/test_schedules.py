"""Schedules and optimisers: shapes of the curves, resume, and a problem that each must solve."""

import io
import math

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from fwi_lightning.commands import CONF, _register_resolvers
from fwi_lightning.config import build, plain
from fwi_lightning.errors import UserError
from fwi_lightning.training.schedules import Cosine, Cyclic, Steps, WarmRestarts

_register_resolvers()
SCHEDULERS = sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml"))
OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))


def optimizer_of(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def curve(optimizer: torch.optim.Optimizer, scheduler, steps: int) -> np.ndarray:
    """The rate of each step."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def test_cosine_rises_in_a_line_and_falls_along_a_cosine():
    optimizer = optimizer_of(2.0)
    rates = curve(optimizer, Cosine(optimizer, total_steps=100, warmup=0.1, final=0.2), 100)
    np.testing.assert_allclose(np.diff(rates[:11]), 2 / 11)
    assert rates.argmax() == 10
    assert rates.max() == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2 * (0.2 + 0.8 * 0.5))  # half way between peak and end
    assert rates[-1] == pytest.approx(2 * (0.2 + 0.8 * (1 + math.cos(math.pi * 89 / 90)) / 2))


def test_cyclic_has_its_cycles_and_halves_their_peaks():
    optimizer = optimizer_of()
    rates = curve(optimizer, Cyclic(optimizer, total_steps=80, cycles=4, lowest=0.1), 80)
    peaks = [k for k in range(1, 79) if rates[k] > rates[k - 1] and rates[k] > rates[k + 1]]
    assert peaks == [10, 30, 50, 70]
    np.testing.assert_allclose(rates[peaks], 0.1 + 0.9 * np.array([1, 0.5, 0.25, 0.125]))
    np.testing.assert_allclose(rates[[0, 20, 40, 60]], 0.1)


@pytest.mark.parametrize(("growth", "starts"), [(1, [0, 25, 50, 75]), (2, [0, 7, 21, 49])])
def test_warm_restarts_begin_where_they_should_and_none_at_the_very_end(growth, starts):
    optimizer = optimizer_of()
    rates = curve(optimizer, WarmRestarts(optimizer, total_steps=100, periods=4, growth=growth), 100)
    assert np.flatnonzero(rates == 1.0).tolist() == starts
    assert rates[-1] < 0.05


def test_steps_fall_at_shares_of_the_run():
    optimizer = optimizer_of()
    rates = curve(optimizer, Steps(optimizer, total_steps=40, at=[0.5, 0.75], gamma=0.1), 40)
    np.testing.assert_allclose(rates, [1.0] * 20 + [0.1] * 10 + [0.01] * 10)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_every_schedule_goes_on_after_a_resume_as_if_nothing_had_happened(name, steps):
    def make():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = plain(compose("train", [f"scheduler={name}"]).scheduler)
        config = {key: value for key, value in config.items() if key not in ("interval", "monitor")}
        optimizer = optimizer_of(plain(0.002))
        length = {} if name in ("none", "plateau") else {"total_steps": steps}
        return optimizer, build(config, optimizer=optimizer, **length)

    def go(optimizer, scheduler, first, last):
        rates = []
        for step in range(first, last):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step(*([1.0 if step > 3 else -step] if name == "plateau" else []))
        return rates

    optimizer, scheduler = make()
    whole = go(optimizer, scheduler, 0, steps)
    assert all(0 <= rate <= 0.0020001 for rate in whole)
    if name != "none" and steps == 50:
        assert len(set(whole)) > 1, "the schedule does nothing"
    optimizer, scheduler = make()
    begun = go(optimizer, scheduler, 0, steps // 2)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    optimizer, scheduler = make()
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert begun + go(optimizer, scheduler, steps // 2, steps) == whole


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_fits_a_convolution(name):
    """Blurred noise becomes noise blurred by a known kernel."""
    torch.manual_seed(0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", [f"optimizer={name}"]).optimizer)
    x = torch.randn(8, 1, 16, 16)
    y = torch.nn.functional.conv2d(x, torch.tensor([[[[0.1, 0.5, 0.1], [0.0, -0.4, 0.3], [0.2, 0.0, 0.1]]]]), padding=1)
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    groups = [{"params": [layer.weight]}, {"params": [layer.bias], "weight_decay": 0.0}]
    optimizer = build(config | {"lr": 0.02 if name != "sgd" else 0.2}, params=groups)
    for _ in range(150):
        loss = (layer(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01 * y.square().mean()


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Cosine, {"warmup": 1.5}, r"scheduler.warmup must be a share from 0 to 1, got 1.5"),
        (Cyclic, {"cycles": 0}, r"scheduler.cycles must be at least 1, got 0"),
        (Cyclic, {"mode": "square"}, r"scheduler.mode must be triangular or triangular2, got 'square'"),
        (WarmRestarts, {"growth": 0}, r"scheduler.growth must be at least 1, got 0"),
        (Steps, {"at": [0.5, 2]}, r"scheduler.at\[1\] must be a share from 0 to 1, got 2"),
    ],
)
def test_settings_that_do_not_fit(cls, settings, message):
    with pytest.raises(UserError, match=message):
        cls(optimizer_of(), total_steps=10, **settings)
