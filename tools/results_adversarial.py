#!/usr/bin/env python3
"""Measure what an opponent changes in layer-wise distillation, and write the table of docs/results.md.

    cargo build --release --example g2p
    venv/bin/python tools/results_adversarial.py --shared ../shared

Needs numpy for the scorer. --shared is a folder with data/g2p and tools/score_g2p.py. --print does not write.
"""

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"(<!-- adversarial -->\n).*?(<!-- end -->)", re.S)
# A line of the report on a learned layer: name, six numbers, rows.
LEARNED = re.compile(r"^(\S+)" + r" +(\d+\.\d+)" * 6 + r" +\d+ of \d+", re.M)


def learned(shared, work, bits, rounding):
    """Of each layer: held out, the same of nearest rounding, worst case, the same; and phoneme error rate."""
    out = work / "out.npz"
    example = ROOT / "target" / "release" / "examples" / "g2p"
    command = [example, shared / "data" / "g2p", out, "--bits", str(bits), "--rounding", rounding]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    layers = {name: [float(x) for x in numbers[2:]] for name, *numbers in LEARNED.findall(told)}
    score = [sys.executable, shared / "tools" / "score_g2p.py", out]
    scored = subprocess.run(score, capture_output=True, text=True, check=True).stdout
    return layers, float(re.search(r"PER ([\d.]+)%", scored).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--print", action="store_true")
    given = parser.parse_args()
    cells = ["bits", "layer", *[f"{what}, {who}" for what in ("held out", "worst case") for who in ("nearest", "plain", "opponent")]]
    lines = ["| " + " | ".join(cells) + " |", "|--:|---|" + "--:|" * 6]
    rates = []
    with tempfile.TemporaryDirectory() as work:
        for bits in (4, 3):
            (plain, rate), (opposed, other) = (
                learned(given.shared, Path(work), bits, rounding) for rounding in ("distill", "adversarial")
            )
            rates.append(f"at {bits} bits {rate:.2f} plain and {other:.2f} with the opponent")
            for name, (held, held_nearest, worst, worst_nearest) in plain.items():
                theirs = opposed[name]
                row = [held_nearest, held, theirs[0], worst_nearest, worst, theirs[2]]
                lines.append(f"| {bits} | {name} | " + " | ".join(f"{x:.6f}" for x in row) + " |")
    text = f"""
```text
cargo run --release --example g2p -- DATA OUT.npz --bits 4|3 --rounding distill|adversarial
```

{datetime.date.today()}. Phoneme error rate of the whole network on the test words, in percent:
{"; ".join(rates)}.

""" + "\n".join(lines) + "\n\n"
    if given.print:
        print(text)
        return
    page = ROOT / "docs" / "results.md"
    written, found = MARK.subn(lambda m: m.group(1) + text + m.group(2), page.read_text(encoding="utf-8"))
    if found != 1:
        raise SystemExit(f"{page} has no place for the table")
    page.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
