"""A network and explained images for Quantus."""

import torch
from torch import Tensor, nn

from canonxai.metrics import Explanation
from canonxai.models.normalization import Normalization
from tests.metrics.batches import explanation

SAMPLES, SIDE = 4, 12


class Network(nn.Module):
    """Two convolutions in float64, the first with a bias, as Quantus' input invariance wants it."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, classes, 3, padding=1)
        self.double().eval().requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        return self.second(self.first(input).relu()).mean((2, 3))


def gradient_times_input(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    input = inputs.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model(input).gather(1, targets[:, None]).sum(), input)
    return (gradient * input).detach()


def colour_images() -> Explanation:
    """Colour images, explained by Gradient x Input in float64."""
    generator, network = torch.Generator().manual_seed(0), Network()
    normalize = Normalization([0.0] * 3, [256 / 255] * 3)  # exact in float32
    image = torch.randint(1, 256, (SAMPLES, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    target, region = torch.arange(SAMPLES) % 3, torch.zeros(SAMPLES, SIDE, SIDE, dtype=torch.bool)
    for sample in range(SAMPLES):
        region[sample, sample : sample + 5, 2 : 6 + sample] = True
    input: Tensor = normalize(image, torch.float64)
    return explanation(
        gradient_times_input(network, input, target), image=image, sample_id=torch.tensor([5, 3, 8, 77]),
        target=target, box=region, mask=region.flip(1), logits=network(input), normalize=normalize, network=network,
        explain=lambda input, target, _: gradient_times_input(network, input, target), seed=3,
    )  # fmt: skip
