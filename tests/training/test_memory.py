"""Steps done in parts: the same gradients, on one process and on two, whoever runs out of memory."""

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fwi_lightning.errors import UserError
from fwi_lightning.training.memory import SplitStep, ran_out, split
from fwi_lightning.training.optimised import OptimisedModule


class Samples(Dataset):
    """Eight samples and their targets."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, place):
        generator = torch.Generator().manual_seed(place)
        return {"gathers": torch.randn(5, generator=generator), "target": torch.tensor([float(place % 3)])}


class Regression(OptimisedModule):
    """Runs out of memory on purpose: on the ranks named, for parts of more than so many samples.

    Where: "forward" before anything is computed, "backward" after half of the weights have their gradients.
    """

    def __init__(self, most: int = 100, where: str = "forward", ranks: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        self.most, self.where, self.ranks = most, where, ranks
        self.seen: list[int] = []
        if where == "backward":
            self.net[0].weight.register_hook(self.fail)

    def fail(self, gradient):
        if self.seen[-1] > self.most and self.trainer.global_rank in self.ranks:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return gradient

    def losses(self, batch):
        self.seen.append(len(batch["gathers"]))
        if self.where == "forward":
            self.fail(None)
        error = (self.net(batch["gathers"]) - batch["target"]).square().mean()
        return error, {"error": error}

    def validation_names(self, illuminated):
        return []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def log(self, *_, **__):
        """No logger here."""

    def log_dict(self, *_, **__):
        """No logger here."""


def train(module, failures: int, tmp_path, batch_size: int = 8, **settings):
    module.memory = SplitStep(failures) if failures else None
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=3, enable_checkpointing=False, default_root_dir=tmp_path, **quiet, **settings
    )
    trainer.fit(module, DataLoader(Samples(), batch_size))
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_in_parts_is_the_step_of_the_whole(tmp_path, where, accumulate):
    settings = {"batch_size": 4, "accumulate_grad_batches": accumulate}
    whole = train(Regression(), 0, tmp_path, **settings)
    module = Regression(most=1, where=where)
    parts = train(module, 3, tmp_path, **settings)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    assert module.memory.parts == 4
    assert module.memory.failures == 2
    assert module.seen[:3] == [4, 2, 1]
    assert set(module.seen[2:]) == {1}, "later steps begin with parts that fit"


def test_where_memory_suffices_nothing_changes(tmp_path):
    assert torch.equal(train(Regression(), 4, tmp_path), train(Regression(), 0, tmp_path))


def test_gradients_are_clipped_as_a_whole(tmp_path):
    settings = {"gradient_clip_val": 0.05}
    parts = train(Regression(most=3), 3, tmp_path, **settings)
    torch.testing.assert_close(parts, train(Regression(), 0, tmp_path, **settings), rtol=1e-6, atol=1e-7)


def test_bfloat16_trains_in_parts_too(tmp_path):
    parts = train(Regression(most=3), 3, tmp_path, precision="bf16-mixed")
    torch.testing.assert_close(parts, train(Regression(), 0, tmp_path, precision="bf16-mixed"), rtol=0, atol=5e-3)


def test_too_many_failures_end_the_run_with_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"out of memory for the 2. time, with 4 of the 8 samples .* memory_failures"):
        train(Regression(most=1), 1, tmp_path)
    with pytest.raises(UserError, match=r"out of memory for the 4. time, with 1 of the 8 samples"):
        train(Regression(most=0), 9, tmp_path)


def test_other_errors_are_not_taken_for_it(tmp_path):
    module = Regression()
    module.fail = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(module, 4, tmp_path)
    assert ran_out(RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"))
    assert not ran_out(RuntimeError("shape mismatch"))


def test_parts_of_a_batch():
    batch = {"a": torch.arange(5), "b": torch.arange(10).reshape(5, 2)}
    parts = split(batch, 2)
    assert [part["a"].tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    assert torch.equal(torch.cat([part["b"] for part in parts]), batch["b"])
    assert len(split(batch, 8)) == 5
