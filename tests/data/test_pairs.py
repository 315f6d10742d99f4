"""The data of an adaptation: which samples of which kind train."""

import numpy as np
import pytest

from fwi_lightning.data import PairsDataModule
from fwi_lightning.survey import Survey

SURVEY = Survey(grid=(4, 3), samples=8, shot_columns=(0,), receiver_columns=(0, 1, 2))


@pytest.fixture
def root(tmp_path):
    for folder, samples in (("input", 6), ("kept/FlatVel_A", 20), ("kept/CurveFault_B", 20)):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "data1.npy", np.zeros((samples, *SURVEY.gathers_shape), np.float32))
        np.save(tmp_path / folder / "model1.npy", np.full((samples, 1, *SURVEY.grid), 2000, np.float32))
    return tmp_path


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (1.0, 6), (2.5, 15), (100.0, 40)])
def test_all_pairs_train_and_of_what_is_kept_as_many_as_wanted(root, share, kept):
    data = PairsDataModule(str(root), ["CurveFault_B", "Style_A"], share, survey=SURVEY)
    data.setup()
    # The checkpoint's families keep their numbers.
    assert data.families == ["CurveFault_B", "Style_A", "FlatVel_A", "input"]
    names = [data.families[number] for number in data.train_dataset.family_numbers]
    assert names.count("input") == 6
    assert len(names) == 6 + kept
    if 0 < kept < 40:
        assert abs(names.count("FlatVel_A") - names.count("CurveFault_B")) <= 1
    assert len(data.val_dataset) == 0
    assert {row["fold"] for row in data.split_table()} == {-1}
