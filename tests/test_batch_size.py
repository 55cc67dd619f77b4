"""Chunks of a table of steps x samples: each entry once, in its place, whatever fits into memory."""

import logging

import pytest
import torch

from canonxai import batch_size
from canonxai.batch_size import BatchSize
from canonxai.errors import UserError
from canonxai.perturbation import every_step

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]


class Model:
    """Entry (step, sample) is 1000 step + sample; raises ``error`` for more than ``most`` entries."""

    def __init__(self, most=10**9, error=OUT_OF_MEMORY[0]):
        self.most, self.error, self.seen = most, error, []

    def __call__(self, steps, samples):
        count = len(steps) * len(samples)
        if count > self.most:
            raise self.error
        self.seen.append(count)
        return 1000 * torch.tensor(steps)[:, None] + torch.tensor(samples)


def expected(samples, steps):
    return torch.arange(samples)[:, None] + 1000 * torch.arange(steps)


@pytest.mark.parametrize("samples, steps", [(1, 1), (1, 20), (7, 20), (16, 20), (100, 3), (3, 100)])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 256, 1000])
def test_each_entry_is_evaluated_once_and_no_chunk_is_too_large(size, samples, steps):
    model = Model()
    assert torch.equal(BatchSize(size).table(model, samples, steps), expected(samples, steps))
    assert sum(model.seen) == samples * steps
    assert min(size, samples * steps) / 2 < max(model.seen) <= size


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("size", [64, "auto"])
@pytest.mark.parametrize("most", [1, 5, 16, 20])
def test_what_does_not_fit_into_memory_is_halved_and_nothing_is_lost(most, size, error, monkeypatch, caplog):
    monkeypatch.setattr(batch_size, "GAIN", 0.0)  # of auto: memory alone limits it
    model, chosen = Model(most, error), BatchSize(size)
    for _ in range(3):
        assert torch.equal(chosen.table(model, 30, 40), expected(30, 40))
    assert sum(model.seen) == 3 * 30 * 40
    assert most / 2 < chosen.size <= most
    tries = [record.message for record in caplog.records if "do not fit into memory" in record.message]
    assert 1 <= len(tries) <= 6
    assert not chosen.grows


def test_a_single_image_that_does_not_fit_is_an_error():
    with pytest.raises(UserError, match=r"^perturbation\.batch_size: expected memory for one image"):
        BatchSize(8).table(Model(0), 4, 4)


def test_other_errors_are_raised_as_they_are():
    model = Model(3, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        BatchSize(8).table(model, 4, 4)


@pytest.mark.parametrize("best", [8, 64, 512])
def test_auto_stops_where_the_rate_does(best, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    clock = [0.0]

    def evaluate(steps, samples):
        count = len(steps) * len(samples)
        clock[0] += 1 + count / best / 1e6 if count <= best else count / best  # as fast for any up to ``best``
        return torch.zeros(len(steps), len(samples))

    monkeypatch.setattr(batch_size.time, "perf_counter", lambda: clock[0])
    chosen = BatchSize("auto")
    chosen.table(evaluate, 512, 100)
    assert chosen.size == best
    assert f"{best} images at once" in caplog.text


@pytest.mark.parametrize("size", [0, -1, "all"])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match=r"^perturbation\.batch_size: expected an integer >= 1, or auto"):
        BatchSize(size)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_every_step_is_given_samples_and_steps_as_indices(size):
    batch_size, device = BatchSize(size), torch.device("cpu")
    scores = every_step(lambda sample, step: torch.stack([sample, step], 1).double(), 5, 9, batch_size, device)
    assert scores.tolist() == [[[sample, step] for step in range(9)] for sample in range(5)]
