"""Run the command line as ``python -m pipeline.cli``."""

from __future__ import annotations

from pipeline.cli.main import main

main()
