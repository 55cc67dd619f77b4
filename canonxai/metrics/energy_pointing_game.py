"""Energy-based pointing game: how much of the map's energy lies in the box.

    E = sum_{p in box} L(p) / sum_p L(p)

Wang et al., CVPR-W 2020, "Score-CAM". Their map L is non-negative by its ReLU. With L = R+, the positive relevance, E
is the inside-total ratio of ``localization``, digit for digit; it stands here for studies that report it by its name.
Ask for one of them alone: a report tests both, and its correction for many tests counts both.
"""

from canonxai.metrics.localization import Localization


class EnergyPointingGame(Localization):
    """The energy of the positive part of the channel-summed map."""

    name = "energy_pointing_game"
    description = (
        "positive relevance inside the {region} over all positive relevance, in [0, 1]; "
        "null where no relevance is positive or there is no object"
    )
