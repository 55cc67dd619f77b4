"""What the robustness metrics share: the map of each of some noisy copies of the input.

The noise is added to the network's input, in its unit, one standard deviation of the data, and not clipped to what an
image can be, as in the publications. A method that draws random numbers itself, as SmoothGrad, draws the same for all
copies, so that what is measured is the map's answer to the noise alone.
"""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from canonxai.metrics.base import Explanation, heatmap

Images = Float[Tensor, "batch channels height width"]


def noisy_maps(batch: Explanation, noises: Iterator[Images]) -> Iterator[tuple[Images, Float[Tensor, "batch h w"]]]:
    """Each noise with the channel-summed maps of the inputs that it is added to."""
    input = batch.input
    for noise in noises:
        noise = noise.to(input)
        yield noise, heatmap(batch.explain(input + noise, batch.target, batch.sample_id))
