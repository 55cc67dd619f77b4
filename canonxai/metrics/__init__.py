"""Metrics of attribution maps: pure functions of a batch, which those that need further maps ask for them (`explain`)."""

from canonxai.metrics.base import Column, Explanation, Metric, columns_of, heatmap

__all__ = ["Column", "Explanation", "Metric", "columns_of", "heatmap"]
