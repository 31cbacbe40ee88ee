"""``python -m benchmarks.traced <file>``: the service under tracemalloc.

SIGUSR1 takes a snapshot; from the second on, what has grown since the first goes into the file.
"""

import gc
import runpy
import signal
import sys
import tracemalloc
from pathlib import Path

_SHOWN = 15


def main() -> None:
    target = Path(sys.argv[1])
    taken: list[tracemalloc.Snapshot] = []

    def snapshot(*_: object) -> None:
        gc.collect()
        taken.append(
            tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
        )
        growth = taken[-1].compare_to(taken[0], "lineno") if len(taken) > 1 else []
        lines = [f"snapshots {len(taken)}", f"grown {sum(item.size_diff for item in growth)}"]
        for item in sorted(growth, key=lambda item: -item.size_diff)[:_SHOWN]:
            frame = item.traceback[0]
            place = "/".join(Path(frame.filename).parts[-3:])
            lines.append(f"{item.size_diff:+10d} bytes {item.count_diff:+7d} objects  {place}:{frame.lineno}")
        target.write_text("\n".join(lines) + "\n")

    signal.signal(signal.SIGUSR1, snapshot)
    tracemalloc.start(1)
    sys.argv = ["app"]
    runpy.run_module("app", run_name="__main__")


if __name__ == "__main__":
    main()
