"""Metrics of attribution maps. Each is a pure function of one batch and never computes an attribution itself."""

from canonxai.metrics.base import Column, Explanation, Metric, columns_of, heatmap

__all__ = ["Column", "Explanation", "Metric", "columns_of", "heatmap"]
