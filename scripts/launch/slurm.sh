#!/bin/bash
# Trains on several GPU nodes: sbatch scripts/launch/slurm.sh. Not run: there was no Slurm to try.
# Fill in: nodes, GPUs of a node, time, partition or account, and the three lines at the end.
#SBATCH --job-name=jtrust
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
# One task per GPU, each of which sees all GPUs of its node: JAX takes the one of its own number.
# So no --gpus-per-task, which would hide the others.
#SBATCH --ntasks-per-node=8
#SBATCH --time=04:00:00
# Two minutes before the time is over every task is told to save and end; --requeue lets Slurm start
# a job again that it preempted.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start me with sbatch}"
jtrust=.venv/bin/jtrust           # a clone with its .venv, where all nodes see it
run=$PWD/checkpoints/ant-slurm    # the same directory on all nodes, not /tmp

if [[ -e $run/config.json ]]; then
    command=(resume "$run" --steps 1000000000)
else
    command=(train brax/ant --num-envs 65536 --steps 1000000000 --run-dir "$run")
fi
# jtrust finds the other tasks from what srun sets.
exec srun --kill-on-bad-exit=0 "$jtrust" "${command[@]}"
