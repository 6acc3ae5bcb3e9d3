#!/usr/bin/env bash
# Demo on synthetic data: installation, phantom patients, two minutes of training, evaluation of the checkpoint.
#   bash launch/demo.sh          replaces the folder demo_output/, which git ignores
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment
lgg() { .venv/bin/python -m lgg_jax "$@"; }

rm -rf demo_output
export LGG_JAX_CACHE=demo_output/cache
lgg synthesize --output=demo_output/phantoms --patients=20
lgg check --data_dir=demo_output/phantoms
lgg train --config=configs/demo.py --workdir=demo_output/run --config.data.dir=demo_output/phantoms
lgg evaluate --workdir=demo_output/run
echo
echo "Segmentations:   demo_output/run/eval/test/figures/overlays.png  (phantoms: the scores do not apply to patients)"
echo "Learning curves: .venv/bin/tensorboard --logdir=demo_output/run/logs"
