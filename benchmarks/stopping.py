"""Which stopping criterion? The shipped recipes, trained to the end, and replayed.

    python benchmarks/stopping.py --folder=runs/stopping --shared=../shared/data

Trains five recipes with three seeds each by the real command and `--stop=never` (about a
quarter of an hour on two cores; what was trained is not trained again), then prints what
each criterion would have lost and saved, as the tables in README and BUILD_NOTES have it.

"Lost" is the objective's: by how many percent the error of the best weights at the stop is
larger than that of the best weights of the whole training (Prechelt's generalization loss;
for an accuracy the error is one minus it). "Saved" is of the training steps.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kerastrain.cli.replay import replay
from kerastrain.training.stopping import Outcome, parse_criterion
from kerastrain.workdir import Workdir

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared" / "data"
SEEDS = (0, 1, 2)
# Its loss goes to zero, against which every difference is large: shown, but not in the means.
NOT_IN_MEANS = "xor"
CRITERIA = (
    "patience(1)",
    "patience(3)",
    "patience(5)",
    "patience(10)",
    "patience(5, min_delta=0.01, relative=True)",
    "smoothed(patience(3), beta=0.7)",
    "gl(2)",
    "gl(5)",
    "gl(20)",
    "pq(0.5, k=5)",
    "up(2, k=3)",
    "up(3, k=3)",
    "up(3, k=5)",
    "plateau(5, epsilon=0.002)",
)


def recipes(shared: Path) -> dict[str, list[str]]:
    """Each recipe with the flags that say where its data are."""
    housing = shared / "tabular" / "california-housing.csv.gz"
    return {
        "digits": [],
        "xor": [],
        "tabular_mlp": [f"--data={housing}", "--target=median_house_value"],
        "mnist_mlp": [f"--data_dir={shared / 'mnist'}"],
        "mnist_cnn": [f"--data_dir={shared / 'mnist'}"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/stopping"))
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of the data sets")
    options = parser.parse_args(arguments)
    found: dict[tuple[str, str], list[Outcome]] = {}
    rules = [parse_criterion(text) for text in CRITERIA]
    for name, data in recipes(options.shared).items():
        for seed in SEEDS:
            workdir = options.folder / f"{name}-{seed}"
            train(name, data, seed, workdir)
            for each in replay(Workdir(workdir), rules):
                found.setdefault((name, each.rule), []).append(each.found)
    print_tables(found, list(recipes(options.shared)))


def train(name: str, data: Sequence[str], seed: int, workdir: Path) -> None:
    """To the end, whatever happens on the way; a finished run is left alone."""
    command = [sys.executable, "-m", "kerastrain", "train", f"--recipe={name}", *data]
    command += [f"--seed={seed}", f"--workdir={workdir}", "--stop=never"]
    print(" ".join(command[2:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def print_tables(found: dict[tuple[str, str], list[Outcome]], names: Sequence[str]) -> None:
    """Markdown: lost and saved for each recipe (mean of the seeds), and over all."""
    heads = [f"`{name}`" for name in names]
    print(f"| criterion | {' | '.join(heads)} | lost, mean | lost, at worst | saved, mean |")
    print(f"| --- | {' | '.join('---:' for _ in heads)} | ---: | ---: | ---: |")
    for text in dict.fromkeys(rule for _, rule in found):
        if text == "never":
            continue
        each = {name: found[name, text] for name in names}
        together = [each[name] for name in names if name != NOT_IN_MEANS]
        everything = [outcome for outcomes in together for outcome in outcomes]
        cells = [f"{_lost(outcomes):.1f} %, {_saved(outcomes):.0%}" for outcomes in each.values()]
        worst = max(outcome.lost_percent for outcome in everything)
        print(
            f"| `{text}` | {' | '.join(cells)} | {_lost(everything):.1f} % | {worst:.0f} % | "
            f"{_saved(everything):.0%} |"
        )
    print(f"\nMeans and worst are of all but `{NOT_IN_MEANS}`. The whole training:")
    for name in names:
        ends = [outcome.end for outcome in found[name, "never"]]
        epochs, seconds = ends[0].epoch, statistics.median(end.seconds for end in ends)
        metric = found[name, "never"][0].objective.name
        print(f"- `{name}`: {epochs:g} epochs, {seconds:.1f} s of training, by {metric}")


def _lost(outcomes: Sequence[Outcome]) -> float:
    return statistics.mean(outcome.lost_percent for outcome in outcomes)


def _saved(outcomes: Sequence[Outcome]) -> float:
    return statistics.mean(outcome.share_saved for outcome in outcomes)


if __name__ == "__main__":
    main()
