"""``python -m canonxai.data``."""

from canonxai.data.check import main

main()
