"""Gradient (saliency): how the target's logit changes with each input value.

    R = df_c / dx

Simonyan, Vedaldi and Zisserman, ICLR 2014 Workshop, "Deep inside convolutional networks". Signed, as the study uses it;
the original takes the absolute value.
"""

from canonxai.attribution.base import Method


class Gradient(Method):
    """The plain gradient; canonization cannot change it."""
