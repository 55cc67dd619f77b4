"""``python -m canonxai``."""

from canonxai.cli import main

main()
