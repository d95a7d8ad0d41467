"""`python -m tests.torture`: rounds of random faults over random tables; what came of them, and how to see it again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.support.airflow_bag import ROOT
from tests.support.stack import stack
from tests.torture import report
from tests.torture.runner import Result, one_round, recall, remember

SERVERS = ["postgres", "clickhouse", "seaweedfs"]


def main() -> int:
    """Exit code 1 when a round failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how many rounds of the seed there shall be in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="only this one, also when it was played before")
    parser.add_argument("--log", type=Path, default=ROOT / ".run" / "torture.jsonl", help="rounds played so far")
    parser.add_argument("--minutes", type=float, help="stop before the next round when this time is over")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--record", type=Path, help="write the record of all rounds of the log there, and play none")
    options = parser.parse_args()
    if options.record:
        options.record.write_text(json.dumps(report.record(recall(options.log)), indent=2, ensure_ascii=False) + "\n")
        return 0
    played = [r for r in recall(options.log) if r.seed == options.seed]
    if options.round is not None:
        todo, played = [options.round], []
    else:
        done = {r.round for r in played if r.ok}
        played = [r for r in played if r.round < options.rounds and r.ok]
        todo = [n for n in range(options.rounds) if n not in done]
    results = [*played, *_play(options, todo, len(played))]
    figures = report.summary(results)
    if options.json:
        json.dump(figures, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        report.show(figures)
    return 1 if figures["failed"] else 0


def _play(options: argparse.Namespace, todo: list[int], before: int) -> list[Result]:
    results: list[Result] = []
    if not todo:
        return results
    until = time.monotonic() + options.minutes * 60 if options.minutes else None
    with stack(SERVERS) as servers:
        for number in todo:
            if until is not None and time.monotonic() > until:
                break
            result = one_round(servers, options.seed, number)
            remember(options.log, result)
            results.append(result)
            _say(report.line(result, before + len(results), before + len(todo)))
            if not result.ok:
                _say(result.error.rstrip())
                _say(f"again: {again(result)}")
    return results


def again(result: Result) -> str:
    """The command that plays a round again."""
    return f"make torture SEED={result.seed} ROUND={result.round}"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
