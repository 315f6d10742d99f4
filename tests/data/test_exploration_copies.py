"""Copies are found by their signatures as by comparing every two samples."""

import numpy as np
import pytest

from fwi_lightning.data.exploration.duplicates import find_twins
from fwi_lightning.data.exploration.signatures import digest, gathers_signature, velocity_signature

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(70, 70), (30, 31), (3, 7)])
def test_signatures_of_maps_are_never_further_apart_than_the_maps(shape):
    for size in (0.1, 10, 1000):
        one = RNG.uniform(1500, 4500, shape).astype(np.float32)
        other = (one + RNG.normal(0, size, shape) + size).astype(np.float32)
        apart = np.sqrt(np.mean((one - other) ** 2))
        assert np.linalg.norm(velocity_signature(one) - velocity_signature(other)) <= apart * 1.001 + 1e-2
        mirrored = velocity_signature(one[:, ::-1].copy())
        np.testing.assert_allclose(velocity_signature(one)[:, ::-1], mirrored, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 100, 70), (4, 33, 31), (1, 9, 1)])
def test_signatures_of_gathers_are_never_further_apart_than_the_gathers(shape):
    for size in (1e-3, 0.1, 3):
        one = RNG.normal(size=shape).astype(np.float32)
        other = (5 * one + size * RNG.normal(size=shape)).astype(np.float32)
        apart = np.linalg.norm(one / np.linalg.norm(one) - other / np.linalg.norm(other))
        (first, squares), (second, _) = gathers_signature(one), gathers_signature(other)
        assert squares == pytest.approx(np.sum(one.astype(float) ** 2), rel=1e-5)
        assert np.linalg.norm(first - second) <= apart * 1.001 + 1e-5
        mirrored, _ = gathers_signature(one[::-1, :, ::-1].copy())
        np.testing.assert_allclose(first[::-1, :, ::-1], mirrored, rtol=1e-4)


def test_as_comparing_every_two():
    samples = RNG.uniform(0, 1, (300, 1, 8)).astype(np.float32) * 10
    samples[50] = samples[7]
    samples[60] = samples[7] + 0.01
    samples[70] = samples[9, :, ::-1]
    samples[80] = samples[9, :, ::-1] - 0.02
    samples[90] = np.sort(samples[90])
    flat = samples.reshape(300, -1)
    mirrored = samples[:, :, ::-1].reshape(300, -1)

    def distance(later, earlier, mirror):
        return float(np.linalg.norm(flat[later] - (mirrored if mirror else flat)[earlier]))

    twins = find_twins(np.stack([digest(sample) for sample in samples]), flat, mirrored, 1.0, distance)
    pairs = {
        later
        for later in range(300)
        for earlier in range(later)
        if min(distance(later, earlier, False), distance(later, earlier, True)) <= 1.0
    }
    assert {twin.later for twin in twins} == pairs
    assert {50, 60, 70, 80} <= pairs
    by_sample = {twin.later: twin for twin in twins}
    assert (by_sample[50].earlier, by_sample[50].identical) == (7, True)
    assert (by_sample[60].earlier, by_sample[60].identical, by_sample[60].mirrored) == (7, False, False)
    assert (by_sample[70].earlier, by_sample[70].distance, by_sample[70].mirrored) == (9, 0, True)
    assert by_sample[80].earlier == 70


def test_many_copies_of_one_sample_take_no_time():
    same = np.ones((4000, 3), np.float32)
    same += 1e-6 * RNG.normal(size=same.shape).astype(np.float32)
    compared = []

    def distance(later, earlier, mirror):
        compared.append(later)
        return 0.0

    twins = find_twins(np.stack([digest(sample) for sample in same]), same, same, 1.0, distance)
    assert len(compared) < 40 * len(same)
    assert len(twins) > 0.9 * len(same)


def test_no_samples():
    nothing = np.zeros((0, 1), np.float32)
    assert find_twins(np.zeros((0, 2), np.uint64), nothing, nothing, 1.0, lambda *_: 0.0) == []
