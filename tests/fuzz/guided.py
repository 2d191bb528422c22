"""The same readers under libFuzzer, which keeps an input that reaches new lines and changes it on.

    pip install 'mirrax[fuzz]'
    python tests/fuzz/guided.py TARGET --inputs 100000 [--seed 0]

An input that is a finding ends the run, and is left in the folder at hand as `crash-…`.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path


def main() -> None:
    """Fuzzes one target."""
    import atheris

    sys.path[:0] = [str(Path(__file__).parents[1])]  # where tests keep what they share
    with atheris.instrument_imports(include=["mirrax", "zipfile", "gzip", "csv", "json.decoder"]):
        from fuzz_targets import TARGETS
        from judge import judge
        from mutations import KINDS, Edit, edited

    parser = argparse.ArgumentParser(description="Fuzz one reader, guided by coverage.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    target, answers = TARGETS[options.target], Counter()
    seeds = target.seeds()

    def one(data: bytes) -> None:
        answers[judge(target, data, folder)] += 1

    def damage(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            return atheris.Mutate(data, most)
        places = rng.randrange(65_536), rng.randrange(256), rng.randrange(65_536)
        return edited(data, Edit(rng.choice(KINDS), *places), seeds)[:most]

    with tempfile.TemporaryDirectory() as place:
        folder, corpus = Path(place, "read"), Path(place, "corpus")
        folder.mkdir()
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)
        most = 2 * max(map(len, seeds)) + 1000
        words = [f"-runs={options.inputs}", f"-seed={options.seed}", f"-max_len={most}"]
        words += ["-timeout=20", "-rss_limit_mb=8192", str(corpus)]
        atheris.Setup([sys.argv[0], *words], one, custom_mutator=damage)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
