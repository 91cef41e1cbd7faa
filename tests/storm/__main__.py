"""`make storm ARGS="--seed N --seconds S"`: storms by hand, one after the other."""

import argparse
import asyncio
import sys
from pathlib import Path

from tests.storm.faults import Pace
from tests.storm.running import storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="storm", description="Make storms, and see whether anything is lost.")
    parser.add_argument("--seed", type=int, default=1, help="the first storm's seed")
    parser.add_argument("--seconds", type=float, default=120, help="how long each rages")
    parser.add_argument("--storms", type=int, default=1, help="how many, with seeds one after the other")
    parser.add_argument("--workers", type=int, default=12, help="clients at a time")
    parser.add_argument("--kills-s", type=float, default=Pace.kills_s, help="seconds between two kill -9, on average")
    parser.add_argument("--s3-s", type=float, default=Pace.s3_s, help="seconds between two faults of S3")
    parser.add_argument("--others-s", type=float, default=Pace.others_s, help="seconds between two other faults")
    parser.add_argument("--kill-s3", action="store_true", help="kill the S3 server as well")
    parser.add_argument("--logs", type=Path, help="where the servers' logs are kept")
    said = parser.parse_args()
    pace = Pace(said.kills_s, said.s3_s, said.others_s, said.kill_s3)
    failed = 0
    for seed in range(said.seed, said.seed + said.storms):
        verdict = asyncio.run(storm(seed, said.seconds, pace=pace, workers=said.workers, keep=said.logs))
        print(verdict.summary(), flush=True)
        if verdict.history.violations:
            failed += 1
            print(verdict.complaint(), flush=True)
    print(f"{failed} of {said.storms} storms failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
