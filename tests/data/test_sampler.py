from __future__ import annotations

import pytest

from fwi_lightning.data.sampler import EpochSampler, ShareSampler


def at(epoch, consumed=0, **arguments):
    sampler = EpochSampler(**arguments)
    sampler.resume(epoch, consumed)
    found = list(sampler)
    assert all(key[0] == epoch for key in found)
    return [index for _, index in found]


def test_an_order_for_each_seed_and_epoch():
    orders = [at(epoch, length=50, seed=seed) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert at(1, length=50, seed=0) == orders[1]


@pytest.mark.parametrize(("length", "ranks"), [(12, 3), (13, 3), (2, 5), (7, 1)])
def test_ranks_share_the_samples_equally(length, ranks):
    shares = [at(4, length=length, seed=0, num_replicas=ranks, rank=rank) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == len(EpochSampler(length, 0, ranks, 0))
    union = [index for share in shares for index in share]
    assert set(union) == set(range(length))
    assert len(union) - length < ranks  # no more than needed to be equal


@pytest.mark.parametrize(("length", "ranks"), [(24, 2), (23, 2), (25, 4)])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_resume_goes_on_where_the_ranks_stopped(length, ranks, batches):
    batch = 2
    for rank in range(ranks):
        whole = at(1, length=length, seed=5, num_replicas=ranks, rank=rank)
        rest = at(1, batches * batch * ranks, length=length, seed=5, num_replicas=ranks, rank=rank)
        assert rest == whole[batches * batch :]


def test_a_resume_with_another_number_of_ranks_neither_repeats_nor_loses():
    done = [i for rank in range(2) for i in at(0, length=24, seed=5, num_replicas=2, rank=rank)[:4]]
    rest = [i for rank in range(4) for i in at(0, 8, length=24, seed=5, num_replicas=4, rank=rank)]
    assert sorted(done + rest) == list(range(24))


def test_the_same_epoch_again_keeps_the_position_and_another_starts_anew():
    sampler = EpochSampler(10, 0)
    sampler.resume(2, 7)
    sampler.set_epoch(2)
    assert len(list(sampler)) == 3
    sampler.set_epoch(3)
    assert sorted(sampler) == [(3, index) for index in range(10)]


def test_the_length_is_that_of_a_whole_epoch():
    sampler = EpochSampler(10, 0)
    sampler.resume(0, 7)
    assert len(sampler) == 10


def test_nothing_is_left_after_the_last_sample():
    assert at(0, 12, length=11, seed=0, num_replicas=2, rank=1) == []


@pytest.mark.parametrize(("length", "ranks"), [(10, 3), (2, 4), (9, 3)])
def test_evaluation_reads_each_sample_once(length, ranks):
    shares = [ShareSampler(length, ranks, rank) for rank in range(ranks)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]
    assert list(ShareSampler(4)) == [0, 1, 2, 3]
