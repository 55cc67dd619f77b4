"""Maps and images that are no everyday ones, and which metrics they leave undefined."""

import torch
from torch import nn

from canonxai.models.normalization import Normalization
from tests.metrics.batches import explanation, of_map

SIDE = 16
NO_OBJECT = {
    "energy_pointing_game", "localization", "localization_auc", "pointing_game", "relevance_mass_accuracy",
    "relevance_rank_accuracy", "top_k_intersection",
}  # fmt: skip
ZERO = {
    "complexity", "distance", "effective_complexity", "efficient_mprt", "energy_pointing_game",
    "faithfulness_correlation", "local_lipschitz", "localization", "parameter_randomization", "random_logit",
    "relevance_mass_accuracy", "sensitivity", "sparseness",
}  # fmt: skip
#: what is not defined, by kind of the map or of the object; all else is a number
UNDEFINED = {
    "random": set(),
    "one pixel": set(),
    "huge": set(),
    "tiny": set(),
    "negative": {"localization", "energy_pointing_game"},
    "constant": {"efficient_mprt", "faithfulness_correlation", "parameter_randomization"},
    "zero": ZERO,
    "no object": NO_OBJECT,
    "nothing but the object": {"localization_auc"},
}
KINDS = list(UNDEFINED)
ONE_CLASS = {"random_logit"}  #: what a network of one class leaves undefined: there is no other


class Network(nn.Module):
    """A convolution, in float64, that gets pixel values."""

    def __init__(self, classes=3):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Conv2d(4, 4, 3),
                nn.ReLU(),
                nn.Conv2d(4, classes, 3),
            )
        self.double().eval().requires_grad_(False)

    def forward(self, pixels):
        return self.layers(pixels.double() / 255).mean((2, 3))


def batch_of_kinds(classes=3):
    """One sample of each of ``KINDS``."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(len(KINDS), SIDE, SIDE, generator=generator, dtype=torch.float64)
    relevance, region = random.clone(), torch.zeros(len(KINDS), SIDE, SIDE, dtype=torch.bool)
    region[:, 3:9, 4:12] = True
    changes = {
        "one pixel": torch.eye(SIDE * SIDE)[40].view(SIDE, SIDE), "huge": 1e305 * random[0], "tiny": 1e-200 * random[0],
        "negative": -random[0].abs() - 1, "constant": torch.tensor(0.3), "zero": torch.tensor(0.0),
    }  # fmt: skip
    for kind, value in changes.items():
        relevance[KINDS.index(kind)] = value
    region[KINDS.index("no object")] = False
    region[KINDS.index("nothing but the object")] = True
    network = Network(classes)
    image = torch.randint(0, 256, (len(KINDS), 3, SIDE, SIDE), generator=generator).to(torch.uint8)

    def explain(input, target, sample_id):
        """A map of the sample's scale that depends on all that it may: input, target, and the network's parameters."""
        scale = relevance.abs().amax((1, 2))[sample_id - 100]
        bias = sum(parameter.sum() for parameter in network.parameters())
        maps = input * (1 + target.double().view(-1, 1, 1, 1)) + bias * torch.arange(SIDE).double().sin()
        return scale.view(-1, 1, 1, 1) * maps

    return explanation(
        of_map(relevance),
        sample_id=torch.arange(len(KINDS)) + 100,
        original=of_map(random.roll(1, 0)),
        image=image,
        target=torch.arange(len(KINDS)) % classes,
        box=region,
        mask=region,
        logits=network(image),
        predict=network,
        normalize=Normalization([0.5] * 3, [0.25] * 3),
        explain=explain,
        network=network,
        seed=3,
    )
