#!/usr/bin/env bash
# Trains on a Cloud TPU slice with one process per TPU VM. The same command resumes, in a new slice if this one is gone.
#   bash launch/tpu_vm.sh NAME ZONE SHARE --config=configs/unet.py --workdir=/mnt/lgg/runs/unet \
#     --config.data.dir=/mnt/lgg/kaggle_3m
# SHARE is an NFS share (Filestore: 10.0.0.2:/share) with the data and the workdir. Every VM mounts it as /mnt/lgg.
set -euo pipefail
cd "$(dirname "$0")/.."
type=${TPU_TYPE:-v6e-16} version=${TPU_VERSION:-v2-alpha-tpuv6e} options=${TPU_OPTIONS---spot}

workdir=
for word in "${@:4}"; do
  case $word in --workdir=/mnt/lgg/*) workdir=${word#*=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "lgg_jax: error: no --workdir=/mnt/lgg/…; pass the flags of train after launch/tpu_vm.sh NAME ZONE SHARE" >&2
  exit 2
fi
name=$1 zone=$2 share=$3
tpu() { gcloud compute tpus tpu-vm "$1" "$name" --zone="$zone" "${@:2}"; }
everywhere() { tpu ssh --worker=all --command="$1"; }

# If describe fails, the slice does not exist yet. If it fails for another reason, create reports that reason.
state=$(tpu describe --format='value(state)' 2>/dev/null) || state=
case $state in PREEMPTED | TERMINATED) tpu delete --quiet && state= ;; esac
if [ -z "$state" ]; then
  # shellcheck disable=SC2086  # $options may hold several words
  tpu create --accelerator-type="$type" --version="$version" $options
fi

everywhere "mkdir -p lgg_jax"
gcloud compute tpus tpu-vm scp --recurse --worker=all --zone="$zone" \
  lgg_jax configs launch pyproject.toml README.md LICENSE "$name:lgg_jax/"
# uv installs Python 3.13, because the VM images have 3.10.
everywhere "set -e
sudo mkdir -p /mnt/lgg
mountpoint -q /mnt/lgg || {
  sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq nfs-common
  sudo mount -t nfs $(printf %q "$share") /mnt/lgg
}
cd lgg_jax
[ -x .venv/bin/python ] || { python3 -m pip install --quiet --user uv; python3 -m uv venv --seed --python 3.13 .venv; }
source launch/environment.sh
make_environment tpu"

# Training is a systemd service: it continues when this connection closes, it cannot start twice, and when the VM shuts
# down it gets SIGTERM and time to save. The TPU driver needs locked memory. The exit code of this command is ignored,
# because postprocess.json shows whether training is complete.
everywhere "cd lgg_jax
systemctl is-active --quiet lgg_jax ||
  sudo systemd-run --unit=lgg_jax --collect --uid=\$(id -un) --working-directory=\$PWD \
    --setenv=PYTHONUNBUFFERED=1 --property=TimeoutStopSec=120 --property=LimitMEMLOCK=infinity \
    \$PWD/.venv/bin/python -m lgg_jax train --distributed $(printf '%q ' "${@:4}")
while systemctl is-active --quiet lgg_jax; do sleep 5; done" || true

stop="gcloud compute tpus tpu-vm delete $name --zone=$zone"
if ! tpu ssh --worker=0 --command="test -f $(printf %q "$workdir/postprocess.json")"; then
  echo "lgg_jax: error: training is not finished; read the log (sudo journalctl --unit=lgg_jax on a VM) and run the" \
    "same command again to resume. The slice costs money until you delete it: $stop" >&2
  exit 1
fi
echo "Training is finished. The slice costs money until you delete it: $stop"
