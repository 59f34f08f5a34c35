"""Seconds until `--help` is there, and until the package is imported.

python benchmarks/bench_startup.py
"""

import subprocess
import sys

from common import COMMAND, save, seconds


def main() -> None:
    results = {}
    for words in ((), ("generate",), ("render",)):
        command = [COMMAND, *words, "--help"]
        results[" ".join(["paintproc", *words, "--help"])] = seconds(
            lambda c=command: subprocess.run(c, capture_output=True, check=True), 15
        )
    for statement in ("pass", "import paintproc", "import paintproc; paintproc.generate"):
        command = [sys.executable, "-c", statement]
        results[f"python -c '{statement}'"] = seconds(
            lambda c=command: subprocess.run(c, capture_output=True, check=True), 15
        )
    save("startup", results)


if __name__ == "__main__":
    main()
