"""Distance: how far canonization moves a map.

The cosine distance between the channel-summed maps of one image on the canonized and on the original network::

    d = 1 - <R, R'> / (|R| |R'|)
"""

from jaxtyping import Float
from torch import Tensor

from canonxai.metrics.base import Column, Explanation, Metric, heatmap
from canonxai.metrics.similarity import unit


def cosine_distance(
    first: Float[Tensor, "batch height width"], second: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """One minus the cosine of the angle between two maps.

    Returns:
        In [0, 2]: 0 for maps equal up to a positive factor, 1 for orthogonal, 2 for opposite ones. NaN, that is
        undefined, where a map is zero everywhere.

    >>> import torch
    >>> cosine_distance(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]]))
    tensor([1.], dtype=torch.float64)
    """
    # |a - b|^2 / 2 = 1 - <a, b> for unit vectors, without the cancellation near 0
    return ((unit(first) - unit(second)).square().sum((1, 2)) / 2).clamp(max=2)


class Distance(Metric):
    """The cosine distance between the map and the same method's map on the original network.

    In a cell that is not canonized the two are the same map, and the distance is 0.
    """

    needs_original = True

    @property
    def columns(self) -> dict[str, Column]:
        return {
            "distance": Column(
                "cosine distance to the same method's map on the original network, in [0, 2]; null where a map is zero"
            )
        }

    def __call__(self, batch: Explanation) -> dict[str, Float[Tensor, " batch"]]:
        if batch.original is None:
            raise ValueError("Explanation.original: expected maps, got None; Distance.needs_original asks for them.")
        return {"distance": cosine_distance(heatmap(batch.attribution), heatmap(batch.original))}
