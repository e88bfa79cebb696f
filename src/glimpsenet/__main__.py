"""``python -m glimpsenet``."""

from glimpsenet.cli import main

main()
