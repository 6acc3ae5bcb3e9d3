#!/usr/bin/env bash
# From nothing to a picture: environment, phantom patients, two minutes of training, evaluation from the checkpoint.
#   bash launch/demo.sh          writes demo_output/, which git ignores
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
echo "Look at  demo_output/run/eval/test/figures/overlays.png  (phantoms: the numbers say nothing about patients)"
echo "Curves:  .venv/bin/tensorboard --logdir=demo_output/run/logs"
