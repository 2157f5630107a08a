#!/usr/bin/env bash
# LeRobot's own trainer and edit tools on a collected run. It needs Python 3.12 (python3.12 on the path, or pyenv's).
# Without a network the trainer cannot fetch ResNet weights, so the backbone starts from scratch; the rest is default.
set -euo pipefail
env="$WILD/lerobot-env" work="$WILD/lerobot"
python=$(for candidate in python3.12 "$HOME"/.pyenv/versions/3.12*/bin/python; do
  if "$candidate" -c 'import venv' 2>/dev/null; then echo "$candidate"; break; fi
done)
[ -n "$python" ] || { echo "No Python 3.12 here; install it (pyenv install 3.12) and run again."; exit 1; }

if [ ! -f "$env/.installed" ]; then
  rm -rf "$env"
  "$python" -m venv "$env"
  pip=("$env/bin/pip" install --quiet --disable-pip-version-check)
  "${pip[@]}" torch==2.13.0 torchvision==0.28.0
  "${pip[@]}" --no-deps lerobot==0.6.1
  "${pip[@]}" draccus==0.11.6 'huggingface_hub>=1.6,<2' 'datasets>=4.8,<5' 'av>=15,<16' 'gymnasium<2' einops \
    'accelerate>=1.14,<2' opencv-python-headless termcolor 'pandas<3' 'pyarrow<30' safetensors 'numpy>=2,<2.3' pillow \
    'packaging<26' pyyaml requests tqdm
  touch "$env/.installed"
fi
"$env/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -iE '^(lerobot|torch|torchvision|datasets|pyarrow|av|numpy) '

rm -rf "$work"
mkdir -p "$work"
.venv/bin/failsight collect --out "$work/run" --trials 2 --video 1 \
  --tasks pick-red-cube-left pick-blue-cube-right
.venv/bin/failsight verify "$work/run"

export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
"$env/bin/lerobot-train" --dataset.repo_id=local/run --dataset.root="$work/run" --policy.type=act \
  --policy.device=cpu --policy.push_to_hub=false --policy.pretrained_backbone_weights=null \
  --steps=2 --num_workers=0 --wandb.enable=false --output_dir="$work/train" 2>&1 | tee "$work/train.log" | tail -5
grep -q 'End of training' "$work/train.log"
"$env/bin/python" tests/wild/lerobot_tools.py "$work/run" "$work/edited" 2>"$work/tools.log" || { tail -30 "$work/tools.log"; exit 1; }
.venv/bin/failsight verify "$work/run"
