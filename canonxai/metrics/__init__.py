"""Metrics of attribution maps: pure functions of a batch, which gives further maps to those that ask (`explain`)."""

from canonxai.metrics.base import Column, Explanation, Metric, columns_of, heatmap

__all__ = ["Column", "Explanation", "Metric", "columns_of", "heatmap"]
