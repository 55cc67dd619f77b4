"""Which devices a config chooses, without any being there."""

import os

import pytest
import torch

from canonxai.assemble import build_trainer, choose_devices
from canonxai.errors import UserError
from canonxai.parallel import PER_CORE


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch tell so many GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize("count, overrides, accelerator, devices, first", [
    (0, ["trainer=auto"], "cpu", [0], 1),
    (2, ["trainer=auto"], "cuda", [0], 1),
    (2, ["trainer=gpu"], "gpu", [0], 1),
    (2, ["trainer=cpu"], "cpu", [0], 1),
    (4, ["trainer=ddp"], "cuda", [0, 1, 2, 3], [0]),
    (4, ["trainer=ddp", "trainer.devices=[1,3]"], "cuda", [1, 3], [1]),
    (0, ["trainer=ddp", "trainer.devices=2"], "cpu", [0, 1], 1),
])  # fmt: skip
def test_a_gpu_is_taken_where_there_is_one_and_a_process_gets_one_device(
    config, gpus, count, overrides, accelerator, devices, first
):
    gpus(count)
    cfg = config(*overrides)
    assert choose_devices(cfg) == devices
    assert (cfg.trainer.accelerator, cfg.trainer.devices) == (accelerator, first)


@pytest.mark.parametrize(
    ("count", "devices", "most"), [(0, "1000000", PER_CORE * os.cpu_count()), (4, "5", 4), (2, "[0,1,2]", 2)]
)
def test_more_devices_than_the_machine_has_are_refused(config, gpus, count, devices, most):
    gpus(count)
    with pytest.raises(
        UserError, match=f"trainer.devices: expected a number from 1 to {most}, a list of GPUs, or auto"
    ):
        choose_devices(config("trainer=ddp", f"trainer.devices={devices}"))


def test_a_gpu_that_is_not_there_is_told(config, gpus):
    gpus(0)
    cfg = config("trainer=gpu")
    choose_devices(cfg)
    with pytest.raises(UserError, match=r"trainer: expected a device of this machine, got: .* Use trainer=auto\."):
        build_trainer(cfg)
