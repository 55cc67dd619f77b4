"""How a network's images are prepared: what its weights were trained or evaluated with."""

from dataclasses import dataclass, field


@dataclass
class Preprocessing:
    """The values that data sets of image files take over, unless they are given others.

    Attributes:
        resize: the shorter side in pixels, before cropping.
        crop: side in pixels of the square that the network sees.
        fit: see :class:`canonxai.data.geometry.Geometry`, as the next one.
        interpolation: see there.
        mean: of the channels, in [0, 1].
        std: of the channels, > 0.
    """

    resize: int = 256
    crop: int = 224
    fit: str = "crop"
    interpolation: str = "bilinear"
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
