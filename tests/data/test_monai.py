"""MONAI's transforms on training gathers: what they do, when they draw, and which of them are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from monai.data import get_track_meta
from omegaconf import OmegaConf

from fwi_lightning.commands import CONF
from fwi_lightning.data import GathersDataModule
from fwi_lightning.data.augment import Monai
from fwi_lightning.errors import UserError

PAD = {"transform": "BorderPadd", "spatial_border": [2, 1], "mode": "edge"}
CROP = {"transform": "RandSpatialCropd", "random_size": False}


def settings():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["data=openfwi", "data.root=x"])
    return OmegaConf.to_container(config.data.monai)


def changed(monai, gathers, seed):
    copy = gathers.clone()
    monai.corrupt(copy, seed)
    return copy


@pytest.fixture
def gathers(survey):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(survey.gathers_shape).astype(np.float32))


def test_pad_and_crop_shift_all_shots_alike_and_by_every_amount(survey, gathers):
    monai = Monai(survey, {"pad": PAD, "crop": CROP})
    padded = np.pad(gathers.numpy(), ((0, 0), (2, 2), (1, 1)), mode="edge")
    _, samples, receivers = survey.gathers_shape
    shifted = {
        (time, side): padded[:, time : time + samples, side : side + receivers]
        for time in range(5)
        for side in range(3)
    }
    seen = set()
    for seed in range(150):
        found = changed(monai, gathers, seed).numpy()
        seen |= {amount for amount, expected in shifted.items() if np.array_equal(found, expected)}
    assert seen == set(shifted)


def test_noise_is_white_within_its_bound_and_comes_as_often_as_asked(survey, gathers):
    noise = {"transform": "RandGaussianNoised", "prob": 0.4, "std": 0.5}
    monai = Monai(survey, {"noise": noise})
    added = torch.stack([changed(monai, gathers, seed) - gathers for seed in range(400)])
    levels = added.flatten(1).std(dim=1)
    noisy = levels > 0
    assert noisy.float().mean().item() == pytest.approx(0.4, abs=0.08)
    assert levels.max() < 0.5 * 1.3
    assert levels[noisy].mean().item() == pytest.approx(0.25, abs=0.05), "drawn uniformly from 0 up"
    pairs = added[noisy] / levels[noisy, None, None, None]
    assert abs((pairs[:, :, 1:] * pairs[:, :, :-1]).mean().item()) < 0.05, "neighbouring samples are correlated"


def test_the_pipeline_of_the_configuration_draws_from_the_seed_alone(survey, gathers):
    monai = Monai(survey, settings())
    first = [changed(monai, gathers, seed) for seed in (2**61, 5, 2**61)]
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    elsewhere = pickle.loads(pickle.dumps(monai))  # as a worker gets it
    assert torch.equal(changed(elsewhere, gathers, 5), first[1])
    assert type(first[0]) is torch.Tensor
    assert get_track_meta(), "what MONAI does for others has changed"


def test_training_goes_through_it_and_validation_does_not(kaggle, survey):
    def module(**words):
        data = GathersDataModule(str(kaggle), survey, folds=2, batch_size=5, **words)
        data.setup()
        return data

    plain, through = module(), module(transforms="monai", monai=settings())
    for one, other in zip(plain.val_dataloader(), through.val_dataloader(), strict=True):
        assert torch.equal(one["gathers"], other["gathers"])

    def epoch(data, number):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        batches = list(loader)
        names = ("gathers", "velocity", "index")
        return {name: torch.cat([batch[name] for batch in batches]) for name in names}

    before, first, again = epoch(plain, 0), epoch(through, 0), epoch(module(transforms="monai", monai=settings()), 0)
    assert torch.equal(first["gathers"], again["gathers"])
    assert torch.equal(first["velocity"], before["velocity"])
    same = (first["gathers"] == before["gathers"]).flatten(1).all(dim=1)
    assert same.float().mean() < 0.2
    # The same sample is changed otherwise in the next epoch.
    second = epoch(through, 1)
    sorted_first, sorted_second = (batch["gathers"][batch["index"].argsort()] for batch in (first, second))
    assert (sorted_first != sorted_second).flatten(1).any(dim=1).float().mean() > 0.8


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"transform": "RandFlipd", "prob": 0.5}, r"step: RandFlipd would move traces .* take augment=flip"),
        ({"transform": "ScaleIntensityd"}, r"step: ScaleIntensityd would change every record in training"),
        ({"transform": "LoadImaged"}, r"step: LoadImaged is not taken; taken are EnsureTyped"),
        ({"transform": "RandGaussianNoise"}, r"step.transform must be the name of a dictionary transform"),
        ({"prob": 0.5}, r"step.transform must be .*, got None"),
        (CROP | {"keys": ["velocity"]}, r"step.keys: transforms change the gathers alone"),
        ({"transform": "RandGaussianNoised", "sdt": 1}, r"RandGaussianNoised has no 'sdt'; it has prob, mean, std"),
        (PAD, r"makes records of \(2, 12, 8\), and a model reads \(2, 8, 6\)"),
        (PAD | {"spatial_border": [1, 1, 1]}, r"does not work on a record of \(2, 8, 6\): .*spatial_border"),
    ],
)
def test_what_would_spoil_training_is_refused_before_it(survey, step, message):
    with pytest.raises(UserError, match=message):
        Monai(survey, {"step": step})


def test_another_word_than_monai_is_refused(kaggle, survey):
    with pytest.raises(UserError, match="transforms must be none or monai, got 'torchvision'"):
        GathersDataModule(str(kaggle), survey, transforms="torchvision")
