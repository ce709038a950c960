"""Measures a controller with 100,000 trials: its memory, and the number of networks for 1000 workers that ask at once.

    python benchmarks/controller_scale.py [NAME...] [--known 100000] [--at-once 1000]

Each controller runs in its own process. It is told recorded trials of random networks; then the workers ask before any
has a result. Memory is the maximum resident size, with the interpreter and its libraries. Optuna's samplers take
seconds for a proposal with so many trials; measure them with --known 1000.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics

from controller_speed import MAKERS, ask_without_results, machine, tell_recorded

from spinenas.space.graph import network_key


def row(name: str, num_known: int, at_once: int) -> str:
    """Return the figures of a controller as a line of the table."""
    controller = MAKERS[name]()
    tells = tell_recorded(controller, num_known)
    asked, asks = ask_without_results(controller, at_once)
    networks = {network_key(proposal.genotype) for proposal in asked if proposal is not None}
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{name:24} {num_known:7} {sum(tells):12.1f} {megabytes:8.0f} {at_once:8} {len(networks):9} "
        f"{1000 * statistics.fmean(asks or [0.0]):8.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; default: all but tpe")
    parser.add_argument("--known", type=int, default=100_000, help="trials with a result")
    parser.add_argument("--at-once", type=int, default=1000, help="workers that ask at once")
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # for the processes started below
    print(machine())
    print(f"{'':24} {'known':>7} {'seconds told':>12} {'MB':>8} {'at once':>8} {'networks':>9} {'ms each':>8}")
    context = multiprocessing.get_context("spawn")
    for name in arguments.names or [name for name in MAKERS if name != "tpe"]:
        with context.Pool(1) as pool:
            print(pool.apply(row, (name, arguments.known, arguments.at_once)), flush=True)


if __name__ == "__main__":
    main()
