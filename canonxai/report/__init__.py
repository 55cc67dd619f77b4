"""The study's comparison: every canonized cell against its original twin, image by image."""
