"""Callbacks on a module small enough to follow by hand."""

import lightning
import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, TensorDataset

from fwi_lightning.errors import UserError
from fwi_lightning.training.callbacks import EMA, GradientNorm, Throughput
from fwi_lightning.training.optimised import OptimisedModule


class Counter(lightning.LightningModule):
    """One weight, moved by -1 in every step; a buffer of integers and one of numbers that count the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(()))
        self.validated: list[tuple[float, float, int]] = []

    def training_step(self, batch, batch_idx):
        self.steps += 1
        self.mean += 1.0
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append((self.weight.item(), self.mean.item(), int(self.steps)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def trainer_of(tmp_path, *callbacks, **settings) -> lightning.Trainer:
    settings = {"max_steps": 12, "max_epochs": -1, "num_sanity_val_steps": 0, "accelerator": "cpu"} | settings
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return lightning.Trainer(
        callbacks=list(callbacks), default_root_dir=tmp_path, enable_checkpointing=False, **quiet, **settings
    )


def loader(batches: int = 4, rows: int = 2) -> DataLoader:
    return DataLoader(TensorDataset(torch.zeros(batches * rows, 1)), batch_size=rows)


def averages(weights: list[float], decay: float) -> list[float]:
    """The average after each update, from the formula."""
    found = [weights[0]]
    for updates, weight in enumerate(weights[1:], start=1):
        kept = min(decay, (1 + updates) / (10 + updates))
        found.append(kept * found[-1] + (1 - kept) * weight)
    return found


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_ema_follows_its_formula_and_validates_with_the_average(tmp_path, decay):
    module = Counter()
    trainer_of(tmp_path, EMA(decay)).fit(module, loader(), loader(1))
    expected = averages([-float(step) for step in range(1, 13)], decay)
    np.testing.assert_allclose(
        [row[0] for row in module.validated], [expected[step - 1] for step in (4, 8, 12)], rtol=1e-6
    )
    np.testing.assert_allclose(
        [row[1] for row in module.validated], [-expected[step - 1] for step in (4, 8, 12)], rtol=1e-6
    )
    assert [row[2] for row in module.validated] == [4, 8, 12], "integer buffers are copied"
    assert module.weight.item() == pytest.approx(expected[-1]), "the run ends with the average"


def test_before_a_delayed_start_the_weights_themselves_are_validated_and_saved(tmp_path):
    module, path = Counter(), tmp_path / "a.ckpt"
    trainer = trainer_of(tmp_path, EMA(0.999, start=6), max_steps=4)
    trainer.fit(module, loader(), loader(1))
    trainer.save_checkpoint(path)
    assert module.validated[0][0] == -4.0
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"]["weight"].item() == -4.0
    later = Counter()
    trainer_of(tmp_path, EMA(0.999, start=6)).fit(later, loader(), loader(1), ckpt_path=path)
    whole = Counter()
    trainer_of(tmp_path, EMA(0.999, start=6)).fit(whole, loader(), loader(1))
    assert (
        later.weight.item() == whole.weight.item() == pytest.approx(averages([-7.0, -8, -9, -10, -11, -12], 0.999)[-1])
    )


class Normed(lightning.LightningModule):
    """A kernel of spectral norm 1 beside a batch norm, whose weights turn far in every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(spectral_norm(torch.nn.Linear(6, 6)), torch.nn.BatchNorm1d(6))

    def training_step(self, batch, batch_idx):
        return self.net(torch.randn(8, 6)).square().mean()

    def on_train_batch_start(self, batch, batch_idx):
        with torch.no_grad():
            self.net[0].parametrizations.weight.original.normal_()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_vectors_of_a_spectral_norm_are_copied_and_what_is_not_is_averaged(tmp_path):
    module, path = Normed(), tmp_path / "a.ckpt"
    trainer = trainer_of(tmp_path, EMA(0.9))
    seen = []
    module.on_train_batch_end = lambda *_: seen.append(
        {name: value.clone() for name, value in module.state_dict().items()}
    )
    trainer.fit(module, loader())
    trainer.save_checkpoint(path)
    saved, prefix = torch.load(path, weights_only=True)["state_dict"], "net.0.parametrizations.weight"
    for vector in ("_u", "_v"):
        assert saved[f"{prefix}.0.{vector}"].norm().item() == pytest.approx(1.0, abs=1e-5)
    for name in (f"{prefix}.original", "net.1.running_mean", "net.1.running_var"):
        expected = averages([step[name] for step in seen], 0.9)[-1]
        torch.testing.assert_close(saved[name], expected, rtol=1e-5, atol=1e-6)
    assert saved["net.1.num_batches_tracked"] == 12


@pytest.mark.parametrize("every", [1, 3])
def test_a_resumed_average_is_that_of_an_uninterrupted_run(tmp_path, every):
    path = tmp_path / "a.ckpt"

    class Save(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(path)

    whole = Counter()
    trainer_of(tmp_path, EMA(0.9, every), Save()).fit(whole, loader())
    saved = torch.load(path, weights_only=True)
    updated = [-float(step) for step in range(1, 8) if (step - 1) % every == 0]
    assert saved["state_dict"]["weight"].item() == pytest.approx(averages(updated, 0.9)[-1])
    assert saved["current_model_state"]["weight"].item() == -7.0
    resumed = Counter()
    trainer_of(tmp_path, EMA(0.9, every)).fit(resumed, loader(12), ckpt_path=path)
    assert resumed.weight.item() == whole.weight.item()


def test_a_test_after_the_fit_uses_the_average_of_its_checkpoint(tmp_path):
    module, path = Counter(), tmp_path / "a.ckpt"
    tested = []
    module.test_step = lambda batch, batch_idx: tested.append(module.weight.item())
    ema = EMA(0.9)
    trainer = trainer_of(tmp_path, ema)
    trainer.fit(module, loader())
    trainer.save_checkpoint(path)
    trainer.test(module, loader(1), ckpt_path=path, verbose=False, weights_only=True)
    assert tested == [pytest.approx(averages([-float(step) for step in range(1, 13)], 0.9)[-1])]


class Slope(Counter):
    """Two weights whose gradient is (3, 4) in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.logged: dict[str, list[float]] = {}

    def training_step(self, batch, batch_idx):
        return (self.weight * torch.tensor([3.0, 4.0])).sum()

    def log(self, name, value, **_):
        self.logged.setdefault(name, []).append(float(value))


@pytest.mark.parametrize(
    ("limit", "algorithm", "share", "moved"),
    [(1.0, "norm", 1.0, [0.6, 0.8]), (10.0, "norm", 0.0, [3.0, 4.0]), (3.5, "value", 0.5, [3.0, 3.5])],
)
def test_the_norm_is_that_before_clipping(tmp_path, limit, algorithm, share, moved):
    module = Slope()
    clipping = {"gradient_clip_val": limit, "gradient_clip_algorithm": algorithm}
    trainer_of(tmp_path, GradientNorm(), max_steps=2, log_every_n_steps=1, **clipping).fit(module, loader())
    assert module.logged["train/grad_norm"] == pytest.approx([5.0, 5.0])
    assert module.logged["train/clipped"] == [share, share]
    np.testing.assert_allclose(-module.weight.detach() / 2, moved, rtol=1e-4)


class Optimised(OptimisedModule):
    """Five weights of a known slope, with what every module of ours has."""

    def __init__(self, slope: list[float]) -> None:
        super().__init__()
        self.save_hyperparameters(
            {"optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0}, "scheduler": None}, logger=False
        )
        self.one, self.two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3, 1))
        self.slope = torch.tensor(slope)

    def losses(self, batch):
        return (torch.cat([self.one, self.two[:, 0]]) * self.slope).sum(), {"part": torch.ones(())}

    def validation_names(self, illuminated):
        return []


@pytest.mark.parametrize("callbacks", [[], [GradientNorm]])
@pytest.mark.parametrize("limit", [0.7, 100.0, None])
def test_the_norm_is_computed_once_and_clips_as_without(tmp_path, monkeypatch, callbacks, limit):
    norms = []
    for name in ("_get_total_norm", "get_total_norm"):
        for place in (torch.nn.utils, torch.nn.utils.clip_grad):
            if hasattr(place, name):
                count = getattr(place, name)
                monkeypatch.setattr(place, name, lambda *a, count=count, **k: norms.append(1) or count(*a, **k))
    slope = [3.0, -1.0, 0.5, 2.0, -4.0]
    module = Optimised(slope)
    trainer_of(tmp_path, *(kind() for kind in callbacks), max_steps=3, gradient_clip_val=limit).fit(module, loader())
    length = np.linalg.norm(slope)
    expected = -3 * np.array(slope) * (min(1.0, limit / (length + 1e-6)) if limit else 1.0)
    np.testing.assert_allclose(torch.cat([module.one, module.two[:, 0]]).detach(), expected, rtol=1e-6)
    assert len(norms) == (3 if callbacks or limit else 0)


def test_throughput_knows_waiting_from_work(tmp_path, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr("fwi_lightning.training.callbacks.throughput.time.perf_counter", lambda: clock["now"])

    class Slow(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 16

        def __getitem__(self, place):
            clock["now"] += 1.0  # of waiting for each sample
            return {"gathers": torch.zeros(1)}

    class Busy(Slope):
        def training_step(self, batch, batch_idx):
            clock["now"] += 6.0
            return self.weight.sum()

        def validation_step(self, batch, batch_idx):
            clock["now"] += 1000.0

        def log_dict(self, values, **_):
            for name, value in values.items():
                self.log(name, value)

    module = Busy()
    settings = {"max_steps": 8, "log_every_n_steps": 4, "val_check_interval": 2}
    # Lightning reads one batch ahead, so that the last wait of an epoch is missing and the first is double.
    trainer_of(tmp_path, Throughput(), **settings).fit(module, DataLoader(Slow(), batch_size=2), loader(1))
    assert len(module.logged["train/samples_per_s"]) == 2
    wait, rate = module.logged["train/data_wait"][0], module.logged["train/samples_per_s"][0]
    assert rate == pytest.approx(8 / (4 * 6.0) * (1 - wait))
    assert 0.1 < wait < 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "callbacks.ema.decay must be at least 0 and below 1, got 1.0"),
        ({"every": 0}, "callbacks.ema.every must be at least 1, got 0"),
        ({"start": -1}, "callbacks.ema.start must be at least 0, got -1"),
    ],
)
def test_settings_of_ema_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        EMA(**settings)
