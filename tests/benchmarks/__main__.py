"""`make bench`: ratios, each measured in one run against its floor or peer; a table, and build/bench.json."""

import json
import tempfile
from pathlib import Path

from tests.benchmarks import fires, history, postgres, prices, rest, signing, streams, verification

MEASURED = (
    *verification.MEASURED,
    *fires.MEASURED,
    *signing.MEASURED,
    *postgres.MEASURED,
    *history.MEASURED,
    *rest.MEASURED,
    *streams.MEASURED,
    *prices.MEASURED,
)


def main():
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for measure in MEASURED:
            for each in measure(Path(name)):
                rows.append(each)
                show(each)
    target = Path("build/bench.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written to {target}")


def show(each):
    verdict = {None: "", True: f"bar {each['bar']} holds", False: f"bar {each['bar']} BROKEN"}[each["holds"]]
    value = f"{each['value']:>10} {each['unit']}  × {each['ratio']:<8}"
    print(f"{each['name']:<44}{value}{each['floor or peer']}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
