"""Times and memory of labctl, where possible as ratios to plain QEMU: `make bench` runs it.

Nothing is asserted. Runs of labctl and of the floor alternate, and medians are compared.
"""

import argparse
import json
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.bench.measurements import MEASUREMENTS, NEED_GUESTS
from tests.bench.sampled import host_load
from tests.bench.stand import BUSY, Bench, say
from tests.bench.table import describe_host, print_table
from tests.e2e.harness import Lab, share_build_cache, state_directory


def run_all(bench: Bench, names: list[str]) -> None:
    with ExitStack() as stack:
        if NEED_GUESTS & set(names):
            bench.build_images()
            bench.take_template(stack)
        for name in names:
            say(f"--- {name}")
            MEASUREMENTS[name](bench)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run each, N up to 4")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait before each run for quiet"
    )
    parser.add_argument("-o", "--output", nargs=2, metavar=("json", "FILE"), help="also to a file")
    options = parser.parse_args()
    if options.output and options.output[0] != "json":
        parser.error(f"-o {options.output[0]}: only json is known")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    busy = host_load()
    host = describe_host(busy)
    print(f"host: {json.dumps(host)}", flush=True)
    if busy > BUSY:
        print(
            f"*** WARNING: others keep {busy:.1f} cores of this host busy. These numbers are no"
            " measure of labctl; wait until the host is quiet. ***",
            flush=True,
        )
    code = 0
    with state_directory() as path:
        share_build_cache(path)
        bench = Bench(Lab(path), quick=options.quick, patience=options.patience)
        try:
            run_all(bench, options.only or list(MEASUREMENTS))
        except KeyboardInterrupt:
            say("interrupted; cleaning up")
            code = 130
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            bench.clean()
    print_table(bench.rows)
    if options.output:
        document = {"host": host, "rows": [{**asdict(r), "ratio": r.ratio} for r in bench.rows]}
        Path(options.output[1]).write_text(json.dumps(document, indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
