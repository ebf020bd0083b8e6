"""Prints how many tests ran, over several reports in JUnit's format: `count_tests.py REPORT...`."""

import sys
from pathlib import Path
from xml.etree import ElementTree

total = failed = skipped = 0
for report in sys.argv[1:]:
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    bad = counts["failures"] + counts["errors"]
    print(
        f"{Path(report).stem}: {counts['tests']} tests, {bad} failed, {counts['skipped']} skipped"
    )
    total += counts["tests"]
    failed += bad
    skipped += counts["skipped"]
print(f"{total - failed - skipped} passed, {failed} failed, {skipped} skipped")
sys.exit(total == 0)
