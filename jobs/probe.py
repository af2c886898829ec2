"""``drllm-pipeline probe`` as a Ray job, with the same commands and options.

ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/probe.py train …
"""

from __future__ import annotations

import sys
from pathlib import Path

# The job's working directory is the repository; nothing need be installed for `pipeline` to be found.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli.main import main

if __name__ == "__main__":
    main(["probe", *sys.argv[1:]])
