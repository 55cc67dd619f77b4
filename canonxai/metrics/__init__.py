"""Metrics of attribution maps: functions of a batch; some ask for further maps by its ``explain``."""

from canonxai.metrics.base import Column, Explanation, Metric, columns_of, heatmap

__all__ = ["Column", "Explanation", "Metric", "columns_of", "heatmap"]
