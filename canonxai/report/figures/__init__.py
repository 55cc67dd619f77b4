"""The study's figures, one file each; every ``draw`` yields names and matplotlib figures of a report."""
