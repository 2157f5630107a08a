#!/usr/bin/env bash
# Training over several nodes: sbatch docs/train_slurm.sh DATA OUT [flags of failsight train-policy]
# One task per node; accelerate starts one process per GPU on each and all meet at the first node.
#SBATCH --job-name=failsight
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
data=$1 out=$2
shift 2
gpus=${SLURM_GPUS_ON_NODE:-1}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=8 HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
# A requeued job finds OUT/last and goes on with the same losses.
srun bash -c 'accelerate launch \
  --num_machines "$SLURM_NNODES" --num_processes $(( SLURM_NNODES * '"$gpus"' )) \
  --machine_rank "$SLURM_NODEID" --main_process_ip '"$head"' --main_process_port 29500 \
  --mixed_precision no --dynamo_backend no \
  -m failsight.cli.train_process --data '"$data"' --out '"$out"' '"$*"
