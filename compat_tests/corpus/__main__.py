"""Runs TFF scripts on JAX and, if asked, checks each against the real TFF.

    python -m compat_tests.corpus                            # ours, in compat_tests/corpus/scripts
    python -m compat_tests.corpus --check --json FILE FOLDER # yours
    python -m compat_tests.corpus --check SCRIPT ...         # some of them
    python -m compat_tests.corpus --python .tensorflow/bin/python  # in another environment
    python -m compat_tests.corpus --record [SCRIPT ...]      # writes anew what TFF prints
    python -m compat_tests.corpus --check --verdicts         # writes verdicts.json anew

TensorFlow comes from the reference environment, or from that of `--python`; TFF for `--check` and
`--record` from the reference environment.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from fedbridge.bridge import child, reference
from fedbridge.bridge.check import check
from fedbridge.jax_core import FedbridgeError

SCRIPTS = Path(__file__).parent / "scripts"
VERDICTS = Path(__file__).with_name("verdicts.json")
"""What `--check` said of each of our scripts: its verdict and the reason."""
ROOT = Path(__file__).parents[2]


def run(
    *scripts: Path, under_tff: bool = False, python: Path | None = None
) -> tuple[int, list[str], str]:
    """Runs scripts on JAX, or one under the real TFF: exit code, what each printed, last words.

    Args:
        scripts: One after the other, in one process.
        under_tff: Under the real TFF.
        python: The interpreter of an environment with TensorFlow; None: the reference environment.
    """
    with tempfile.TemporaryDirectory(prefix="fedbridge-") as scratch:
        log = Path(scratch, "log")
        module = "compat_tests.corpus.under_tff" if under_tff else "compat_tests.corpus.on_jax"
        env = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
        paths = [str(script.resolve()) for script in scripts]
        if python is None:
            code = reference.run_child(module, [scratch, *paths], log=log, env=env, cwd=ROOT)
        else:
            command = [python, "-m", module, scratch, *paths]
            code = child.run(command, log=log, env={**os.environ, **env}, cwd=ROOT)
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        files = [Path(scratch, script.name).with_suffix(".txt") for script in scripts]
        texts = [file.read_text() if file.exists() else "" for file in files]
    return 1 if code is None else code, texts, said[-1] if said else ""


def scripts_in(folder: Path) -> list[Path]:
    """The scripts and notebooks of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".py", ".ipynb"))


def checked(script: Path) -> tuple[str, str]:
    """The verdict of a check, and its reason."""
    try:
        result = check(script, [])
    except FedbridgeError as error:
        return "not comparable", str(error).replace(str(script), script.name)
    return result.verdict, result.reason


def table(verdicts: dict[str, dict[str, str]]) -> str:
    """Verdicts as the lines of a table in Markdown, with what each script is."""
    lines = []
    for name, row in verdicts.items():
        cause = "" if row["verdict"] == "match" else f": {row['reason']}"
        lines.append(f"| `{name}` | {_about(SCRIPTS / name)} | {row['verdict']}{cause} |\n")
    return "".join(lines)


def _about(script: Path) -> str:
    """The first line of its docstring; of a notebook, of its first cell of text."""
    if script.suffix == ".ipynb":
        text = "".join(json.loads(script.read_text())["cells"][0]["source"])
        return text.splitlines()[1].rstrip(".")
    return script.read_text().splitlines()[0].strip('"').rstrip(".")


def main() -> int:
    """Prints the table; 0 if all scripts ran."""
    parser = argparse.ArgumentParser(prog="python -m compat_tests.corpus")
    parser.add_argument("paths", nargs="*", type=Path, metavar="FOLDER|SCRIPT", default=[SCRIPTS])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="also under the real TFF")
    parser.add_argument("--record", action="store_true", help="write what TFF prints beside them")
    parser.add_argument("--verdicts", action="store_true", help="write them to verdicts.json")
    parser.add_argument("--python", type=Path, metavar="FILE", help="of another environment")
    options = parser.parse_args()
    scripts = [
        script
        for path in options.paths
        for script in (scripts_in(path) if path.is_dir() else [path])
    ]
    found = []
    for script in scripts:
        if options.record:
            code, texts, said = run(script, under_tff=True)
            if code:
                sys.exit(f"{script.name} failed under TFF: {said}")
            script.with_suffix(".tff.txt").write_text(texts[0])
        start = time.perf_counter()
        code, _, said = run(script, python=options.python)
        seconds = round(time.perf_counter() - start, 1)
        verdict = reason = None
        if options.check:
            verdict, reason = checked(script)
        message = said if code else ""
        row = dict(path=str(script), ran=code == 0, verdict=verdict, reason=reason)
        found.append({**row, "seconds": seconds, "message": message})
        shown = verdict or ""
        state = "ran" if code == 0 else "failed"
        print(f"{script.name:24} {state:7} {seconds:6.1f} s  {shown:15} {message or reason or ''}")
        sys.stdout.flush()
    if options.verdicts:
        known = json.loads(VERDICTS.read_text()) if VERDICTS.exists() else {}
        new = {
            Path(r["path"]).name: {"verdict": r["verdict"], "reason": r["reason"]} for r in found
        }
        VERDICTS.write_text(json.dumps(dict(sorted({**known, **new}.items())), indent=2) + "\n")
    ran = sum(row["ran"] for row in found)
    print(f"{ran} of {len(found)} ran")
    if options.json:
        result = {"scripts": found, "ran": ran, "total": len(found)}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if ran == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
