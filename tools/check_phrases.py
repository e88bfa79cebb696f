"""Refuse phrases that are wrong in any context: words that the glossary replaces, and English that nobody speaks.

Command: ``python tools/check_phrases.py``, part of ``make lint``. Skips results and logs.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHRASES = {
    r"first looks?\b": "first glimpse",
    r"who looks\b": "policy",
    r"windows'? votes?\b": "glimpse ensemble",
    r"even attention\b": "uniform attention initialisation",
    r"gain share\b": "gap to oracle closed, or share of the gain due to placement",
    r"\bnobody called\b": "unknown",
    r"\bnobody has\b": "not ... yet",
    r"\bfor want of\b": "for lack of; out of",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bno image at all\b": "not an image",
    r"\bsomebody else looks\b": "override the policy",
    r"\bat hand\?": "No data yet?",
    r"\bstranger's\b": "untrusted",
    r"\bis there already\b": "already exists",
    r"\bgoes on with\b": "continues",
    r"\bhas not come to\b": "not ... yet",
    r"\bdisk's liking\b": "large datasets",
    r"\bcomputes the same as\b": "verified against",
    r"\bwhat learns where to look\b": "the learned policy",
    r"\bis told before\b": "is reported before",
    r"\bdo with less\b": "smaller installs",
    r"\bof your own\b": "custom; your",
}
SKIPPED = ("benchmarks/results/", "benchmarks/log.md", "docs/reproduction/report", "tools/check_phrases.py", "LICENSE")
KINDS = {".py", ".md", ".rst", ".toml", ".yml", ".jinja", ".html", ".js", ".ipynb", ".cff", ""}


def main() -> None:
    """Print what is wrong and where; exit with 1 if anything is."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    found = []
    for name in filter(None, files):
        if name.startswith(SKIPPED) or Path(name).suffix not in KINDS or not (ROOT / name).is_file():
            continue
        for number, line in enumerate((ROOT / name).read_text(errors="replace").splitlines(), 1):
            for phrase, better in PHRASES.items():
                if match := re.search(phrase, line, re.IGNORECASE):
                    found.append(f"{name}:{number}: '{match[0]}': write {better}")
    sys.exit("\n".join(found) or 0)


if __name__ == "__main__":
    main()
