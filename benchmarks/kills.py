"""Kill a selection repeatedly at random times, and compare its output with that of an undisturbed run."""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    """Run, kill, resume, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="an instruction set that scar-hf reads")
    parser.add_argument("--kills", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--output", default="out.parquet", help="name of the output, of any format (default: %(default)s)")
    args, options = parser.parse_known_args()

    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        quiet, disturbed = Path(temporary, "quiet"), Path(temporary, "disturbed")
        start = time.monotonic()
        status = _run(args.data, quiet, args.output, options).wait()
        whole = time.monotonic() - start
        if status:
            return status
        print(f"undisturbed: {whole:.1f} s", flush=True)
        killed = finished = 0
        while killed < args.kills:
            process = _run(args.data, disturbed, args.output, options)
            moment = draw.uniform(0, whole)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                cached = sum(file.stat().st_size for file in (disturbed / "cache").rglob("*.sqlite"))
                print(f"kill {killed:2} after {moment:5.1f} s; bytes of scores on disk: {cached:,}", flush=True)
                continue
            if process.returncode:
                print(f"a run ended with status {process.returncode}")
                return process.returncode
            # The run finished before it was killed: compare, and start from scratch, so that the next kill interrupts work.
            finished += 1
            if not _same(quiet, disturbed):
                print("the output is not the same")
                return 1
            shutil.rmtree(disturbed)
        if _run(args.data, disturbed, args.output, options).wait():
            return 1
        same = _same(quiet, disturbed)
    print(f"{killed} kills, {finished + 1} runs to the end, output byte for byte the same: {'yes' if same else 'NO'}")
    return 0 if same else 1


def _run(data: str, folder: Path, output: str, options: list[str]) -> subprocess.Popen:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "scar_hf", "select", data, "-k", "0.1", "-o", str(folder / "out" / output), "--quiet"]
    env = {**os.environ, "SCAR_HF_CACHE": str(folder / "cache")}
    return subprocess.Popen([*command, *options], env=env, stderr=subprocess.DEVNULL)


def _same(quiet: Path, disturbed: Path) -> bool:
    """Return whether both wrote the same files with the same bytes, ignoring hidden files that a kill left behind."""
    found = []
    for folder in (quiet / "out", disturbed / "out"):
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        found.append({p.relative_to(folder).as_posix(): p.read_bytes() for p in files})
    return found[0] == found[1] and len(found[0]) > 0


if __name__ == "__main__":
    sys.exit(main())
