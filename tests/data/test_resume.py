"""A run that is stopped anywhere and resumed equals one that was not."""

from __future__ import annotations

import signal

import lightning
import numpy as np
import pytest
import torch

from fwi_lightning.data import GathersDataModule
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

SURVEY = Survey(grid=(4, 6), samples=8, shot_columns=(0, 5), receiver_columns=tuple(range(6)), sponge=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two families of four files of four samples: folds=2 leaves 16 to train on."""
    root = tmp_path_factory.mktemp("survey")
    generator = np.random.default_rng(0)
    for family in ("FlatVel_A", "mine"):
        for name in ("data", "model"):
            (root / family / name).mkdir(parents=True)
        for number in range(1, 5):
            gathers = generator.standard_normal((4, 2, 8, 6)).astype(np.float32)
            velocity = generator.uniform(1500, 4500, (4, 1, 4, 6)).astype(np.float32)
            np.save(root / family / "data" / f"data{number}.npy", gathers)
            np.save(root / family / "model" / f"model{number}.npy", velocity)
    return root


class Module(lightning.LightningModule):
    """A weight that depends on every sample and on their order."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(96))
        self.seen = []
        self.validated = []
        self.logged = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, *batch["index"].tolist()))
        self.logged.append(self.trainer.fit_loop.epoch_loop._batches_that_stepped)
        prediction = batch["gathers"].flatten(1) @ self.weight
        return ((prediction - batch["velocity"].mean((1, 2, 3)) / 1000) ** 2).mean()

    def on_validation_epoch_start(self):
        self.held = []

    def validation_step(self, batch, batch_idx):
        self.held += batch["index"].tolist()

    def on_validation_epoch_end(self):
        self.validated.append((self.global_step, *self.held))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Stop(lightning.Callback):
    """Raise at one call of one hook; save a checkpoint on the way out, or before."""

    def __init__(self, hook, call, path, error=RuntimeError, save_first=False):
        self.left = call

        def stop(trainer, *_args, **_kwargs):
            if trainer.sanity_checking:
                return
            self.left -= 1
            if self.left == 0:
                if save_first:
                    trainer.save_checkpoint(path)
                raise error("stop")

        setattr(self, hook, stop)
        if not save_first:
            self.on_exception = lambda trainer, *_: trainer.save_checkpoint(path)


def fit(root, callbacks=(), ckpt=None, module=None, batch_size=3, num_workers=0, drop_last=False, folds=2, **settings):
    data = GathersDataModule(
        str(root),
        SURVEY,
        folds=folds,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=3,
        drop_last=drop_last,
    )
    module = module or Module()
    defaults = {"max_epochs": 3, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **(defaults | settings),
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    return module, trainer


def assert_same(resumed, whole):
    """The resumed run went on where the whole run was at that moment, and ended where that did."""
    (module, trainer), (reference, undisturbed) = resumed, whole
    assert module.seen == reference.seen[len(reference.seen) - len(module.seen) :]
    assert module.validated == reference.validated[len(reference.validated) - len(module.validated) :]
    assert module.logged == reference.logged[len(reference.logged) - len(module.logged) :]
    assert trainer.global_step == undisturbed.global_step
    assert trainer.current_epoch == undisturbed.current_epoch
    assert torch.equal(module.weight, reference.weight)


WHOLE = {}


def whole_run(root, **settings):
    key = tuple(sorted(settings.items()))
    if key not in WHOLE:
        WHOLE[key] = fit(root, **settings)
    return WHOLE[key]


STOPS = [
    ("on_train_epoch_start", 2),
    ("on_train_batch_start", 4),
    ("on_before_backward", 8),
    ("on_before_optimizer_step", 5),
    ("on_train_batch_end", 3),
    ("on_train_batch_end", 6),
    ("on_validation_start", 1),
    ("on_validation_batch_start", 1),
    ("on_validation_batch_end", 4),
    ("on_validation_epoch_end", 2),
    ("on_validation_end", 1),
    ("on_train_epoch_end", 2),
]
SETTINGS = [{}, {"max_steps": 16}, {"val_check_interval": 0.5}, {"accumulate_grad_batches": 4}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_run_that_fails_goes_on_as_if_it_had_not(root, tmp_path, stop, settings):
    path = tmp_path / "stopped.ckpt"
    before = Module()
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop(*stop, path)], module=before, **settings)
    whole, resumed = whole_run(root, **settings), fit(root, ckpt=path, **settings)
    assert_same(resumed, whole)
    # None is left out and none comes twice; but the one whose callbacks (the best checkpoint's) did not all run.
    kept = before.validated[: -1 if stop[0] == "on_validation_end" else None]
    assert kept + resumed[0].validated == whole[0].validated


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_checkpoint_saved_in_any_hook_goes_on(root, tmp_path, stop):
    path = tmp_path / "saved.ckpt"
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop(*stop, path, save_first=True)])
    assert_same(fit(root, ckpt=path), whole_run(root))


def test_many_stops_in_a_row(root, tmp_path):
    path, ckpt = tmp_path / "stopped.ckpt", None
    for hook, call in [
        ("on_before_backward", 3),
        ("on_train_batch_end", 2),
        ("on_validation_batch_start", 1),
        ("on_train_batch_end", 3),
        ("on_before_backward", 1),
        ("on_train_batch_end", 1),
    ]:
        with pytest.raises(RuntimeError, match="stop"):
            fit(root, [Stop(hook, call, path)], ckpt=ckpt)
        ckpt = path
    assert_same(fit(root, ckpt=path), whole_run(root))


def test_ctrl_c_with_lightnings_own_checkpoint(root, tmp_path):
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_last=True, save_on_exception=True)
    handler = signal.getsignal(signal.SIGINT)
    stop = Stop("on_before_backward", 9, tmp_path / "unused.ckpt", KeyboardInterrupt)
    try:
        with pytest.raises(SystemExit):
            fit(root, [stop, checkpoint], enable_checkpointing=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert_same(fit(root, ckpt=tmp_path / "last.ckpt"), whole_run(root))


def test_batches_that_workers_read_ahead_do_not_count(root, tmp_path):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop("on_before_backward", 9, path)], num_workers=2)
    assert_same(fit(root, ckpt=path, num_workers=2), whole_run(root))


def test_an_incomplete_last_batch_may_be_dropped(root, tmp_path):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop("on_before_backward", 9, path)], drop_last=True)
    assert_same(fit(root, ckpt=path, drop_last=True), whole_run(root, drop_last=True))


def test_a_limit_of_batches(root, tmp_path):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop("on_before_backward", 6, path)], limit_train_batches=4)
    assert_same(fit(root, ckpt=path, limit_train_batches=4), whole_run(root, limit_train_batches=4))


def test_going_on_for_more_epochs_than_first_asked(root, tmp_path):
    path = tmp_path / "end.ckpt"
    _, trainer = fit(root, max_epochs=2)
    trainer.save_checkpoint(path)
    assert_same(fit(root, ckpt=path), whole_run(root))


@pytest.mark.parametrize("batch_size", [2, 4, 5])
def test_another_batch_size_inside_an_epoch_reads_the_rest_once(root, tmp_path, batch_size):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop("on_before_backward", 9, path)])  # in the second epoch, after 2 batches of 3
    module, trainer = fit(root, ckpt=path, batch_size=batch_size)
    whole, _ = whole_run(root)
    order = {epoch: [i for entry in whole.seen if entry[0] == epoch for i in entry[2:]] for epoch in (1, 2)}
    rest = [i for entry in module.seen if entry[0] == 1 for i in entry[2:]]
    assert rest == order[1][6:]
    assert [i for entry in module.seen if entry[0] == 2 for i in entry[2:]] == order[2]
    assert len(module.validated) == 2
    assert trainer.current_epoch == 3


def test_other_folds_are_refused(root, tmp_path):
    path = tmp_path / "end.ckpt"
    _, trainer = fit(root, max_epochs=1)
    trainer.save_checkpoint(path)
    with pytest.raises(UserError, match=r"trained with folds=2, this run has 4: resume with the same data"):
        fit(root, ckpt=path, folds=4)


def test_a_checkpoint_holds_plain_numbers_only(root, tmp_path):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(RuntimeError, match="stop"):
        fit(root, [Stop("on_before_backward", 3, path)])
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["datamodule_hyper_parameters"]["survey"]["grid"] == [4, 6]
    assert checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["consumed"] == 6
