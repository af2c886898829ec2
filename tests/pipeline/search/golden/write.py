"""Write the golden trees anew, after a change that is meant to alter what a seed means.

python tests/pipeline/search/golden/write.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from test_tree import GOLDEN_CONFIGS, golden_tree

for name in GOLDEN_CONFIGS:
    (Path(__file__).parent / f"tree_{name}.json").write_text(json.dumps(golden_tree(name), indent=0) + "\n")
