"""The command line: installs the peers, runs the rounds, writes the report."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from pathlib import Path

from .install import Cache
from .peer import Peer
from .processes import BenchError, become_subreaper, end_descendants
from .report import Report
from .rounds import Rounds, Sizes
from .turn import PACKAGE

REPOSITORY = PACKAGE.parent.parent
ALL = (
    "runlane", "minimal", "apalis", "xargs", "parallel", "hyperqueue", "saq", "celery", "dramatiq", "rq", "bullmq",
    "tsp", "pueue",
)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run", description="Measures runlane and its peers in one run.")
    parser.add_argument("--peers", default=",".join(ALL), help="which, separated by commas (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=3000, help="tasks of the fastest peers; the others get a part")
    parser.add_argument("--concurrency", default="2,8", help="numbers, separated by commas")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "target/peers", help="where peers are installed")
    parser.add_argument("--runlane", type=Path, default=REPOSITORY / "target/release/runlane",
                        help="the release program; it is built if it isn't there")  # fmt: skip
    parser.add_argument("--output", type=Path, default=REPOSITORY / "target/peers/results",
                        help="path of the results without its ending: .md and .json are written")  # fmt: skip
    parser.add_argument("--lock", type=Path, help="a file that is locked for each turn, on a machine that is shared")
    parser.add_argument("--scratch", type=Path, help="where temporary directories are made (default: TMPDIR)")
    parser.add_argument("--smoke", action="store_true", help="one round with tiny counts: does everything work?")
    return parser.parse_args()


def sizes(options: argparse.Namespace) -> Sizes:
    concurrency = tuple(int(count) for count in options.concurrency.split(","))
    if options.smoke:
        options.rounds = 1
        return Sizes(60, concurrency, latencies=10, output=8 << 20, cancels=3, limit_spawns=100)
    return Sizes(
        options.tasks, concurrency, latencies=200, output=200 << 20, cancels=20, limit_spawns=options.tasks // 2
    )


def load(name: str, options: argparse.Namespace) -> Peer:
    """The class `This` of a peer's `peer.py`; each is a module of its own, so that names can't clash."""
    file = PACKAGE / name / "peer.py"
    specification = importlib.util.spec_from_file_location(f"peer_{name}", file)
    if not file.exists() or specification is None or specification.loader is None:
        raise SystemExit(f"there is no peer {name}; there are {', '.join(ALL)}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    peer: Peer = module.This()
    peer.configure(options)
    return peer


def install(peers: list[Peer], cache: Cache) -> dict[str, str]:
    """Versions of those that could be installed."""
    versions = {}
    for peer in peers:
        try:
            versions[peer.name] = peer.install(cache)
        except BenchError as error:
            print(f"{peer.name} is left out: {error}", file=sys.stderr, flush=True)
    return versions


def main() -> int:
    options = arguments()
    # Ctrl-C is KeyboardInterrupt already; so is a polite end by others.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    become_subreaper()
    try:
        return measure(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        end_descendants()


def measure(options: argparse.Namespace) -> int:
    cache = Cache(options.cache)
    limit = cache.c_program(PACKAGE / "limit.c")
    peers = [load(name, options) for name in options.peers.split(",")]
    versions = install(peers, cache)
    installed = [peer for peer in peers if peer.name in versions]
    if not installed:
        return 1
    plan = sizes(options)
    report = Report(installed, versions, plan)
    scratch = options.scratch or Path(tempfile.gettempdir())
    rounds = Rounds(plan, limit, options.lock, scratch)
    for number in range(1, options.rounds + 1):
        for peer in installed:
            print(f"round {number} of {options.rounds}: {peer.name}", file=sys.stderr, flush=True)
            report.records.append(rounds.turn(peer, number))
        report.rounds = number
        write(report, options.output)
    print(report.markdown())
    failed = len(installed) < len(peers) or any(record.error for record in report.records)
    return 1 if failed else 0


def write(report: Report, stem: Path) -> None:
    """Also after each round: a run that is interrupted keeps those that are whole."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(report.json() + "\n")
    stem.with_suffix(".md").write_text(report.markdown())
