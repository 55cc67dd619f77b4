"""Data sets with boxes: each sample is an image, a class, and where the object of that class is."""

from canonxai.data.base import Batch, DataModule, Excluded, LocalizationDataset, Sample

__all__ = ["Batch", "DataModule", "Excluded", "LocalizationDataset", "Sample"]
