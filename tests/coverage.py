#!/usr/bin/env python3
"""Which requirement rows are proven by a test (a comment `covers: HOST-012` in a test), and which not.

usage: tests/coverage.py [--missing] [FILE ...]   FILE: "08-hosts": only rows of that file
"""
import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    args = [a for a in sys.argv[1:] if not a.startswith("--")]
    rows = collections.OrderedDict()
    for line in (ROOT / "tests/contract/requirements.txt").read_text().splitlines():
        file, row = line.split()
        rows[row] = file
    tracked = subprocess.run(["git", "ls-files", "*.rs", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    proven = collections.defaultdict(set)
    for name in tracked.stdout.split():
        if name == "tests/coverage.py":
            continue
        for line in (ROOT / name).read_text(errors="replace").splitlines():
            found = re.search(r"covers:\s*((?:[A-Z0-9]+-\d+[a-z]?[,\s]*)+)", line)
            for row in re.findall(r"[A-Z0-9]+-\d+[a-z]?", found.group(1)) if found else []:
                proven[row].add(name)
    unknown = sorted(set(proven) - set(rows))
    by_file = collections.defaultdict(lambda: [0, 0])
    for row, file in rows.items():
        by_file[file][0] += 1
        by_file[file][1] += row in proven
    for file in sorted(by_file):
        if args and file not in args:
            continue
        total, done = by_file[file]
        print(f"{file:32} {done:4} of {total:4} proven")
        if "--missing" in sys.argv:
            print("    not proven: " + " ".join(r for r, f in rows.items() if f == file and r not in proven))
    print(f"{'all':32} {sum(r in proven for r in rows):4} of {len(rows):4} proven")
    if unknown:
        print("rows that don't exist, named by tests: " + " ".join(unknown))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
