"""``drllm-pipeline search`` as a Ray job, with the same options.

ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/search.py --model … --out …
"""

from __future__ import annotations

import sys
from pathlib import Path

# The job's working directory is the repository; nothing need be installed for `pipeline` to be found.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli.main import main

if __name__ == "__main__":
    main(["search", *sys.argv[1:]])
