"""The GPU back end: its kernels in Triton's interpreter and its compiler here, the whole of it on a GPU (`-m gpu`)."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fwi_lightning.physics
from fwi_lightning.errors import UserError
from fwi_lightning.geology import draw
from fwi_lightning.physics import cpu, reach
from fwi_lightning.survey import OPENFWI, Survey
from tests.physics.reference import simulate_differentiably

pytest.importorskip("triton")

MODULES = ("kernels", "arrivals", "batch", "cuda")

TINY = Survey(
    grid=(5, 7),
    samples=21,  # two intervals of 8 and a part
    time_step=0.0014,
    frequency=60,
    shot_row=2,
    shot_columns=(0, 5),
    receiver_columns=(6, 1, 1),
    sponge=5,
)
"""Shots and receivers at the edges, one receiver twice; 15 x 17 cells, and waves that go round them."""


@contextmanager
def fresh() -> Iterator[None]:
    """Within, the modules of the GPU back end are imported anew; after it, they are what they were."""
    package = fwi_lightning.physics
    names = [f"{package.__name__}.{name}" for name in MODULES]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for short, name in zip(MODULES, names, strict=True):
            sys.modules.pop(name, None)
            vars(package).pop(short, None)
            if name in before:
                sys.modules[name] = before[name]
                setattr(package, short, before[name])


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The back end with kernels that Triton's interpreter runs, on CPU tensors."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with fresh():
        yield importlib.import_module("fwi_lightning.physics.cuda")


def random_maps(survey: Survey, samples: int, seed: int, low: float = 1500, high: float = 3500) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(samples, *survey.grid, generator=generator, dtype=torch.float64)


def random_like_gathers(survey: Survey, samples: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, *survey.gathers_shape, generator=generator, dtype=torch.float64)


def plainly(velocity: Tensor, survey: Survey, residual: Tensor, slowest: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gathers, illumination and gradient of one map, by autograd through plain PyTorch in float64."""
    velocity = velocity.double().requires_grad_()
    gathers, illumination = simulate_differentiably(velocity, survey, slowest)
    gathers.mul(residual.double()).sum().backward()
    assert velocity.grad is not None
    return gathers.detach(), illumination.detach(), velocity.grad


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative rms."""
    return ((found.double().cpu() - expected.double().cpu()).norm() / expected.double().cpu().norm()).item()


def test_gathers_gradient_and_illumination_equal_plain_torch(
    interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fwi_lightning.physics.batch.INTERVAL", 8)
    monkeypatch.setattr("fwi_lightning.physics.batch.TILE_ROWS", 8)  # two tiles, of 8 and of 7 rows
    velocity, residual = random_maps(TINY, 1, 0), random_like_gathers(TINY, 1, 1)
    slowest = torch.tensor([200.0], dtype=torch.float64)  # hardly any sponge
    gathers, illumination, gradient = plainly(velocity[0], TINY, residual[0], slowest.item())
    found = interpreted.illuminate(velocity, slowest, TINY)
    assert difference(found[0][0], gathers) < 1e-12
    assert difference(found[1][0], illumination) < 1e-12
    assert difference(interpreted.forward(velocity, slowest, TINY)[0], gathers) < 1e-12
    assert difference(interpreted.backward(velocity, slowest, TINY, residual)[0], gradient) < 1e-12


def test_float32_leaves_out_tiles_only_where_nothing_is_missed(
    interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fwi_lightning.physics.batch.TILE_COLUMNS", 16)
    survey = Survey(
        grid=(6, 66), samples=40, frequency=50, shot_columns=(64,), receiver_columns=(50, 63), receiver_row=5, sponge=5
    )  # fmt: skip
    velocity, residual = random_maps(survey, 1, 2, 1500, 1900), random_like_gathers(survey, 1, 3)
    single, slowest = velocity.float(), velocity.float().amin(dim=(1, 2))
    run = interpreted._batch(survey, torch.float32, torch.device("cpu"))
    first, last = run._windows(single, hears=True)
    never = (first > last) | (first >= survey.samples) | (last < 0)
    assert never.any()
    assert (first > 0).logical_and(~never).any()
    gathers, illumination, gradient = plainly(velocity[0], survey, residual[0], slowest.item())
    assert difference(interpreted.forward(single, slowest, survey)[0], gathers) < 1e-5
    assert difference(interpreted.illuminate(single, slowest, survey)[1][0], illumination) < 1e-5
    assert difference(interpreted.backward(single, slowest, survey, residual.float())[0], gradient) < 1e-4


def test_windows_are_those_of_the_cpu(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fwi_lightning.physics.arrivals.ELEMENTS", 4096)  # one program for all: quick to interpret
    survey = Survey(shot_columns=(17,))
    velocity = draw("CurveFault_B", 1, seed=3)[0, 0]
    arrivals = interpreted._batch(survey, torch.float32, torch.device("cpu")).arrivals
    found = arrivals.windows(torch.from_numpy(velocity)[None])
    shot, row = (survey.shot_row + survey.sponge, 17 + survey.sponge), survey.receiver_row + survey.sponge
    receivers = np.array(survey.receiver_columns) + survey.sponge
    slowness = reach.tile_slowness(velocity, survey.sponge, survey.spacing, survey.time_step)
    expected = reach.windows(slowness, shot, row, receivers, survey.samples)
    for ours, theirs, rounded in zip(found, expected, ((0, 8), (-7, 1)), strict=True):
        early = (theirs - ours[0, 0].numpy())[(theirs > 0) & (theirs < survey.samples)]
        assert early.size > 300
        assert rounded[0] - 0.2 < early.min() < early.max() < rounded[1] + 0.2  # to the ends of blocks of 8 steps


def test_every_launch_compiles_for_a_gpu(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the interpreter does not see: types that do not match, registers that spill."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    hopper = GPUTarget("cuda", 90, 32)
    fake = SimpleNamespace(get_current_device=int, get_current_stream=int, get_current_target=lambda: hopper)
    monkeypatch.setattr(driver, "_active", fake)
    with fresh():
        batch = importlib.import_module("fwi_lightning.physics.batch")
        kernels = importlib.import_module("fwi_lightning.physics.kernels")
        for kernel in (kernels.advance, kernels.relax):
            run = kernel.run
            kernel.run = lambda *given, run=run, **named: run(*given, **{**named, "warmup": True})
        for dtype in (torch.float32, torch.float64):
            velocity = torch.full((1, *OPENFWI.grid), 2000, dtype=dtype)
            survey = Survey(samples=2)
            everything = batch.Batch(survey, dtype, velocity.device)
            everything.forward(velocity, velocity[:, 0, 0])
            everything.illuminate(velocity, velocity[:, 0, 0])
            everything.backward(velocity, velocity[:, 0, 0], torch.zeros(1, *survey.gathers_shape, dtype=dtype))
        compiled = [*kernels.advance.device_caches[0][0].values(), *kernels.relax.device_caches[0][0].values()]
    assert len(compiled) == 2 * 5 + 1  # forward, illuminate, and the three kinds of step of the gradient
    for kernel in compiled:
        assert ".target sm_90" in kernel.asm["ptx"]
        assert (
            "ld.global.v4.b32" not in kernel.asm["ptx"]
        )  # fields whose alignment is unknown are read a cell at a time


@pytest.mark.parametrize(("samples", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [2, 2]), (7, [3, 3, 1])])
def test_batches_are_done_in_chunks(monkeypatch: pytest.MonkeyPatch, samples: int, sizes: list[int]) -> None:
    from fwi_lightning.physics import cuda

    done = []

    class Echo:
        bytes_per_sample = cuda.CACHE // 3

        def backward(self, velocity: Tensor, slowest: Tensor, residual: Tensor) -> tuple[Tensor]:
            done.append(len(velocity))
            return (velocity + slowest[:, None, None] + residual.sum(dim=(1, 2, 3))[:, None, None],)

    monkeypatch.setattr(cuda, "_batch", lambda *_: Echo())
    velocity, residual = random_maps(TINY, samples, 5), random_like_gathers(TINY, samples, 6)
    found = cuda.backward(velocity, velocity[:, 0, 0], TINY, residual)
    expected = velocity + velocity[:, :1, :1] + residual.sum(dim=(1, 2, 3))[:, None, None]
    assert torch.equal(found, expected)
    assert done == sizes


def test_without_triton_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    with fresh():
        cuda = importlib.import_module("fwi_lightning.physics.cuda")
        velocity = random_maps(TINY, 1, 0)
        with pytest.raises(UserError, match=r"needs Triton, which does not load here .*velocity.cpu\(\)") as caught:
            cuda.forward(velocity, velocity[:, 0, 0], TINY)
    assert "\n" not in str(caught.value)


def test_the_gpu_back_end_is_loaded_only_when_it_is_used() -> None:
    code = "import sys, fwi_lightning.physics; print([m for m in sys.modules if m.endswith(('.cuda', '.kernels'))])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "fwi_lightning" not in loaded


def full_maps() -> Tensor:
    """Drawn ones, and those that are hardest to leave anything out of."""
    drawn = [draw(family, 1, seed=7)[0, 0] for family in ("CurveFault_B", "Style_B", "FlatVel_A", "CurveVel_B")]
    noise = random_maps(OPENFWI, 1, 2, 1500, 4500)[0].float()
    constant = torch.full(OPENFWI.grid, 4500.0)
    return torch.stack([*(torch.from_numpy(velocity) for velocity in drawn), constant, noise, constant / 3])


@pytest.mark.gpu
class TestOnAGPU:
    """Full size, seven maps: two chunks, the second one smaller than recorded."""

    @pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
    def test_gathers_equal_those_of_the_cpu(self, dtype: torch.dtype, allowed: float) -> None:
        from fwi_lightning.physics import cuda

        maps = full_maps().to(dtype)
        slowest = maps.amin(dim=(1, 2))
        for part in (maps, maps.flip(0)):  # again, in another order: the graph is replayed on other maps
            damped = part.amin(dim=(1, 2))
            found = cuda.forward(part.cuda(), damped.cuda(), OPENFWI)
            for ours, theirs in zip(found, cpu.forward(part, damped, OPENFWI), strict=True):
                assert difference(ours, theirs) < allowed
        alone = cuda.forward(maps[5:6].cuda(), slowest[5:6].cuda(), OPENFWI)
        assert torch.equal(alone[0], cuda.forward(maps.cuda(), slowest.cuda(), OPENFWI)[5])

    def test_graphs_in_turn_on_the_same_memory_as_a_training_has_them(self) -> None:
        """One of five shots at a time, there and back, with deterministic algorithms, as `trainer=default` asks."""
        from fwi_lightning.physics import cuda

        maps = full_maps()[:3]
        slowest = maps.amin(dim=(1, 2))
        surveys = [dataclasses.replace(OPENFWI, shot_columns=(column,)) for column in OPENFWI.shot_columns]
        torch.use_deterministic_algorithms(True)
        try:
            for survey in [*surveys, *surveys]:
                found = cuda.forward(maps.cuda(), slowest.cuda(), survey)
                expected = cpu.forward(maps, slowest, survey)
                assert difference(found, expected) < 1e-5
                gradient = cuda.backward(maps.cuda(), slowest.cuda(), survey, found)
                assert difference(gradient, cpu.backward(maps, slowest, survey, expected)) < 1e-4
        finally:
            torch.use_deterministic_algorithms(False)

    @pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
    def test_gradient_equals_that_of_the_cpu(self, dtype: torch.dtype, allowed: float) -> None:
        from fwi_lightning.physics import cuda

        maps = full_maps().to(dtype)
        slowest = maps.amin(dim=(1, 2))
        residual = cpu.forward(maps, slowest, OPENFWI) - cpu.forward(maps * 0.97, slowest, OPENFWI)
        exact = cpu.backward(maps.double(), slowest.double(), OPENFWI, residual.double())
        for order in (range(7), range(6, -1, -1)):
            given = [x[list(order)].cuda() for x in (maps, slowest)]
            found = cuda.backward(*given, OPENFWI, residual[list(order)].cuda())
            for ours, theirs in zip(found, exact[list(order)], strict=True):
                assert difference(ours, theirs) < allowed

    @pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
    def test_illumination_equals_that_of_the_cpu(self, dtype: torch.dtype, allowed: float) -> None:
        from fwi_lightning.physics import cuda

        maps = full_maps().to(dtype)
        slowest = maps.amin(dim=(1, 2))
        found = cuda.illuminate(maps.cuda(), slowest.cuda(), OPENFWI)
        for ours, theirs in zip(found, cpu.illuminate(maps, slowest, OPENFWI), strict=True):
            assert difference(ours, theirs) < allowed

    def test_small_survey_equals_plain_torch(self) -> None:
        from fwi_lightning.physics import cuda

        velocity, residual = random_maps(TINY, 1, 0), random_like_gathers(TINY, 1, 1)
        slowest = velocity.amin(dim=(1, 2))
        gathers, illumination, gradient = plainly(velocity[0], TINY, residual[0], slowest.item())
        found = cuda.illuminate(velocity.cuda(), slowest.cuda(), TINY)
        assert difference(found[0][0], gathers) < 1e-12
        assert difference(found[1][0], illumination) < 1e-12
        assert difference(cuda.backward(velocity.cuda(), slowest.cuda(), TINY, residual.cuda())[0], gradient) < 1e-12

    def test_first_call_in_inference_mode_and_the_next_on_another_stream(self) -> None:
        from fwi_lightning.physics import cuda

        survey = Survey(samples=301)  # no other test has recorded its graph
        maps = full_maps()[:2].cuda()
        slowest = maps.amin(dim=(1, 2))
        with torch.inference_mode():
            first = cuda.forward(maps, slowest, survey)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            again = [
                cuda.forward(part, low, survey) for part, low in ((maps.flip(0), slowest.flip(0)), (maps, slowest))
            ]
        torch.cuda.synchronize()
        assert torch.equal(again[0].flip(0), first)
        assert torch.equal(again[1], first)
