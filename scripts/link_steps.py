"""Point the links to the six steps of training at their lines, wherever these moved to.

Run it after editing the trainer: python scripts/link_steps.py
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAINER = ROOT / "groundup" / "training" / "trainer.py"
PAGES = ("README.md", "README.zh.md", "docs/start.md", "docs/start.zh.md")

lines = TRAINER.read_text(encoding="utf-8").splitlines()
where = {
    found[1]: number
    for number, line in enumerate(lines, 1)
    if (found := re.match(r"\s*# ([1-6])\. [A-Z]", line))
}
for page in PAGES:
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(
        r"^([1-6])(\. \[[^]]+\]\([^)#]*training/trainer\.py#L)\d+",
        lambda step: f"{step[1]}{step[2]}{where[step[1]]}",
        text,
        flags=re.MULTILINE,
    )
    (ROOT / page).write_text(text, encoding="utf-8")
