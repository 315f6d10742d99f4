"""The chain: order, settings, what each step adds, and what is kept between two starts."""

import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.inversion import Chain, State, Step, build_steps
from fwi_lightning.inversion.store import Store
from fwi_lightning.models import Answer
from fwi_lightning.survey import Survey

SURVEY = Survey(grid=(12, 12), samples=40, shot_columns=(0, 11), receiver_columns=tuple(range(12)), sponge=20)


def state(velocity: float = 2000.0) -> State:
    maps = torch.full((3, 1, *SURVEY.grid), velocity)
    return State(torch.ones(3, *SURVEY.gathers_shape), maps, SURVEY, answer=Answer(maps))


class Add(Step):
    """Adds to the map, in parts."""

    def __init__(self, by: float, parts: int = 1) -> None:
        self.by, self.parts = by, parts

    def run(self, state: State, part: int) -> None:
        state.improve(state.velocity + self.by)


class Slow(Step):
    """Works sample by sample and is stopped at the third."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run(self, state: State, part: int) -> None:
        def work(row: int) -> None:
            self.seen.append(row)
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            velocity = state.velocity.clone()
            velocity[row] += 1
            state.improve(velocity)

        state.by_sample(work)


def test_steps_are_in_the_order_of_the_chain_whatever_the_order_of_the_settings():
    steps = build_steps({"refine": {"seconds": 1}, "fixed_point": {}, "tta": {}, "time_budget": None})
    assert list(steps) == ["tta", "fixed_point", "refine"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fixed_point": True}, "inference.fixed_point must be null"),
        ({"fixed_point": {"step": 3}}, "FixedPoint has no setting 'step'. Did you mean steps"),
        ({"fixed_point": {"steps": "many"}}, "steps of FixedPoint must be a whole number, got 'many'"),
        ({"fixed_point": {"steps": 0}}, "needs at least 1 step and 1 factor, got steps=0"),
        ({"fixed_point": {"bounds": [4500, 1500]}}, "bounds must be the lowest and the highest velocity"),
        ({"refine": {"seconds": 0}}, "inference.refine.seconds must be above 0, got 0"),
    ],
)
def test_settings_are_checked_before_any_work(settings, message):
    with pytest.raises(UserError, match=message):
        build_steps(settings)


def test_a_step_that_asks_a_network_needs_one():
    with pytest.raises(UserError, match=r"inference.tta asks the network, and there is none without ckpt="):
        build_steps({"tta": {}}, network=False)


def test_each_step_adds_its_misfit_and_its_seconds():
    batch = Chain({"a": Add(100), "b": Add(50, parts=2)}, simulated=True).run(state())
    assert list(batch.columns) == ["misfit_start", "seconds_a", "misfit_a", "seconds_b", "misfit_b"]
    assert float(batch.velocity.mean()) == 2200
    assert batch.columns["misfit_b"] == batch.misfit().tolist()
    assert len({batch.columns[f"misfit_{name}"][0] for name in ("start", "a", "b")}) == 3
    assert list(Chain({"a": Add(1)}, simulated=False).run(state()).columns) == ["seconds_a"]


def test_a_stopped_batch_goes_on_where_it_was(tmp_path):
    store, slow = Store(tmp_path / "state", {"a": 1}), Slow()
    chain = Chain({"add": Add(10), "slow": slow, "end": Add(10)}, simulated=False)
    batch = state()
    batch.keep = lambda current: store.save(7, current)
    with pytest.raises(KeyboardInterrupt):
        chain.run(batch)
    again = Store(tmp_path / "state", {"a": 1})
    assert again.has(7)
    assert not again.has(8)
    found = chain.run(again.load(7, State(batch.gathers, torch.empty(0), SURVEY)))
    assert slow.seen == [0, 1, 2, 2]
    torch.testing.assert_close(found.velocity, torch.full_like(found.velocity, 2021))
    assert found.answer is not None
    torch.testing.assert_close(found.answer.velocity, torch.full_like(found.velocity, 2000))


def test_unfinished_work_is_not_overwritten_and_finished_work_is(tmp_path):
    folder = tmp_path / "out" / ".state"
    store = Store(folder, {"a": 1, "b": 2})
    store.save(0, state())
    with pytest.raises(UserError, match=r"out holds unfinished work with other settings \(b\): .* fresh=true"):
        Store(folder, {"a": 1, "b": 3})
    assert store.has(0)
    assert not Store(folder, {"a": 1, "b": 3}, fresh=True).has(0)
    store = Store(folder, {"a": 1, "b": 3})
    store.save(0, state())
    store.finish()
    assert Store(folder, {"a": 1, "b": 3}).finished
    assert not store.has(0)
    assert not Store(folder, {"a": 2}).finished


def test_a_kept_batch_that_is_broken_says_what_to_do(tmp_path):
    store = Store(tmp_path, {})
    store.save(0, state())
    next(tmp_path.glob("batch_*")).write_bytes(b"cut")
    with pytest.raises(UserError, match="cannot be read: start with fresh=true"):
        store.load(0, state())
