"""The native readers touch no byte that is not theirs, whatever text or pickle they are given."""

from __future__ import annotations

import pickle
import re
import subprocess
from pathlib import Path

import pytest

from profiler_kit.load.trace.native import build
from tests.fuzz.hostile import hostile
from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.snapshots import corpus as snapshots
from tests.fuzz.snapshots import mutant, scrambled
from tests.fuzz.values import rewritten

TEXTS = 400
CHECKED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")  # optimizing takes longer than the run
_EVENTS = re.compile(rb'"traceEvents"\s*:\s*\[|\A\s*\[')


def compiled(source: Path, program: Path) -> bool:
    """Whether the compiler has the sanitizers, and what it makes runs here."""
    command = build.compiler()
    if command is None:
        return False
    small = program.with_suffix(".c")
    small.write_text("int main(void) { return 0; }\n")
    include = f"-I{build.HERE}"
    for one in (small, source):
        done = subprocess.run(
            [*command, "-std=c11", *CHECKED, include, str(one), "-o", str(program), "-lm"], check=False
        )
        if one is small and (done.returncode or subprocess.run([program], check=False).returncode):
            return False
        assert done.returncode == 0
    return True


def test_no_text_makes_it_read_or_write_elsewhere(tmp_path: Path) -> None:
    program = tmp_path / "sanitize"
    if not compiled(Path(__file__).with_name("sanitize.c"), program):
        pytest.skip("no C compiler with sanitizers")
    corpus = seeds(2)
    blocks = tmp_path / "blocks"
    with blocks.open("wb") as out:
        for number in range(TEXTS):
            for text in (mutate(number, corpus), rewritten(number, corpus), hostile(number, corpus)):
                found = _EVENTS.search(text)
                at = found.end() if found else 0
                whole = b"[" + text[at : text.rfind(b"]") + 1 or len(text)]
                for block in (whole, whole[: 1 + number * 97 % len(whole)], whole[: whole.rfind(b"}") + 1] + b"]"):
                    out.write(len(block).to_bytes(8, "little") + block)
    done = subprocess.run([program, blocks], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    taken, mended, _ = done.stdout.split()
    assert int(taken) > TEXTS // 4 and int(mended) > TEXTS // 4  # enough of it was read to the end


def test_no_pickle_makes_it_read_or_write_elsewhere(tmp_path: Path) -> None:
    program = tmp_path / "sanitize"
    if not compiled(Path(__file__).with_name("sanitize_unpickle.c"), program):
        pytest.skip("no C compiler with sanitizers")
    whole = snapshots()
    small = [data for data in whole if len(data) < 20_000]
    broken = [mutant(small[number % len(small)], number) for number in range(3 * TEXTS)]
    odd = [pickle.dumps(scrambled(small[number % len(small)], number), 2 + number % 4) for number in range(TEXTS)]
    pickles = tmp_path / "pickles"
    pickles.write_bytes(b"".join(len(data).to_bytes(8, "little") + data for data in whole + broken + odd))
    done = subprocess.run([program, pickles], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    counted, filled = map(int, done.stdout.split())
    assert filled > TEXTS // 2 and counted - filled > TEXTS // 20  # enough came to the end, and far
