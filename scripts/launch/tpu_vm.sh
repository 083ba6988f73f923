#!/bin/bash
# Trains on all hosts of a Cloud TPU slice: scripts/launch/tpu_vm.sh. Not run: there was no TPU.
# Fill in: the slice's name and zone, and a directory that all hosts share (Filestore, NFS), with a
# clone of jtrust in it and, on each host, the packages:
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker=all \
#       --command 'pip install "/mnt/shared/jtrust[tpu]"'
set -euo pipefail

name=NAME zone=ZONE
run=/mnt/shared/runs/ant

# The same command on every host; jtrust finds the others by what the TPU's machines say of it. The
# run may end with this command's connections, so start it where they stay; to go on with it, put
# `jtrust resume $run` in place of the line below.
exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command \
    "jtrust train brax/ant --backend spring --num-envs 65536 --steps 1000000000 --run-dir $run"
