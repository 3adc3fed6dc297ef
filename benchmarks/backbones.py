"""Lesson 5's frozen part with other backbones, a process each, over several seeds.

    BACKBONE_PATH=a_folder_with_weights python benchmarks/backbones.py
    python benchmarks/backbones.py --backbones MobileNetV2 --seeds 2026 --share 0.01 --out /tmp/backbones.json

Writes `build/backbones.json` after every process, in the form that common.py describes.
"""

import argparse
import sys
from pathlib import Path

import common
import run

from cifar_helpers.errors import CourseError

# What a backbone sees instead of the laptop budget's images and pixels. A small net that is fast can see larger ones.
PLANS = {"MobileNetV2": {"train_images": 16_000, "image_size": 160}, "ResNet50": {}}


def settings(name: str, share: float) -> str:
    """A plan as options of ours.py, whose own share leaves alone what is set."""
    return " ".join(f"--set {key}={max(10, round(value * share)) if key.endswith('images') else value}"
                    for key, value in PLANS[name].items())


def measure(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", default=",".join(PLANS), help="names with commas between (%(default)s)")
    parser.add_argument("--seeds", default="2026,2027,2028", help="numbers with commas between (%(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the images (default all)")
    parser.add_argument("--test-images", default="4000", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "build" / "backbones.json")
    options = parser.parse_args(arguments)
    names, seeds = options.backbones.split(","), options.seeds.split(",")
    if unknown := [name for name in names if name not in PLANS]:
        parser.error(f"no plan for {', '.join(unknown)}: take from {', '.join(PLANS)}")
    shared = f"--answers 4 --only transfer_frozen --set fine_tune_images=32 --test-images {options.test_images}"
    processes = [{"script": "ours.py", "pair": 4, "measurement": number, "options":
                  f"5 --backbone {name} {settings(name, options.share)} {shared} --share {options.share} --seed {seed}"}
                 for number, seed in enumerate(seeds, 1) for name in names]
    content = run.run_all(processes, options.out, "full" if options.share == 1 else "reduced")
    for record in content["records"]:
        print(f"{record['what']}, seed {record['seed']}: test accuracy {record['test_accuracy']:.3f} after "
              f"{record['seconds']:.0f} s, {record['backbone']}")
    if content["context"]["failed"]:
        raise CourseError("Not measured: " + "; ".join(content["context"]["failed"]) + ".")


if __name__ == "__main__":
    sys.exit(common.main(measure))
