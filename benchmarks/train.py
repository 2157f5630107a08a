"""The training loop against bare torch: what do keyed batches, logging and accelerate cost, and what do precisions give?

The bare loop trains the same model on one prepared batch: forward, backward, clip, step, nothing else. Rounds alternate.
With a GPU, `--size kosmos-2` and `--size 2b` build random-weight models of those sizes and report tokens/s and model
FLOP utilisation (6 * parameters trained + 4 * parameters frozen, per token, over `--peak-tflops`).
"""

import argparse
import logging
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from failsight.core.specs import ActionSpec, Dimension, ObservationSpec
from failsight.episodes.demonstrations import Demonstration, save_demonstrations
from failsight.policies.vla.design import BackboneConfig, HeadConfig, HistoryConfig, VLAConfig
from failsight.policies.vla.normalise import statistics as action_statistics
from failsight.testing.tiny_vlms import save_tiny_vlm
from failsight.training.loop import Hooks, Split, Training
from failsight.training.options import Augment, FitConfig

SIZES = {
    # hidden, layers, heads, vocabulary, image side
    "small": (192, 6, 6, 2048, 112),
    "kosmos-2": (2048, 24, 32, 65037, 224),
    "2b": (2048, 28, 16, 49152, 224),
}


def make_data(folder, episodes=8, frames=60, side=64):
    """Random drives; the loop does not care what it learns."""
    rng = np.random.default_rng(0)
    names = ("linear_x", "linear_y", "angular_z")
    dims = tuple(Dimension(name=n, kind="velocity", unit="m/s", low=-2, high=2, hold=0.0) for n in names)
    spec = ActionSpec(dimensions=dims, frame="base", rate_hz=2.5, gripper_closed_sign=1)
    items = (
        Demonstration(
            name=f"e{i}",
            instruction="navigate around the obstacle to the bottle",
            scenario="s",
            images={"front": rng.integers(0, 255, (frames, side, side, 3)).astype(np.uint8)},
            states=np.zeros((frames, 0), np.float32),
            actions=rng.uniform(-1, 1, (frames, 3)).astype(np.float32),
        )
        for i in range(episodes)
    )
    return save_demonstrations(
        folder, items, spec, ObservationSpec(state=(), cameras=(("front", side, side),)), source="b"
    )


def make_config(data, backbone, history):
    return VLAConfig(
        backbone=backbone,
        head=HeadConfig(kind="lstm", width=192, depth=1),
        history=history,
        chunk=10,
        action_spec=data.action_spec,
        observation_spec=data.observation_spec,
        use_state=False,
        statistics=action_statistics(np.asarray(data.actions), np.asarray(data.states)),
        vocabulary=("navigate", "around", "the", "obstacle", "to", "bottle"),
    )


def save_llava(size, folder):
    """A LLaVA of a size with random weights."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    hidden, layers, heads, words, side = SIZES[size]
    vision = CLIPVisionConfig(
        hidden_size=max(128, hidden // 2), intermediate_size=2 * hidden, num_hidden_layers=max(4, layers // 2),
        num_attention_heads=8, image_size=side, patch_size=14,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=words, hidden_size=hidden, intermediate_size=4 * hidden if size == "kosmos-2" else 8192 * hidden // 2048,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads, pad_token_id=0,
    )  # fmt: skip
    return save_tiny_vlm(
        "llava", folder, config=LlavaConfig(vision_config=vision, text_config=text, image_token_index=4)
    )


class Timed:
    """Our loop and the bare one over the same model."""

    def __init__(self, data, config, fit, folder):
        split = Split(tuple(range(len(data.episodes) - 1)), (len(data.episodes) - 1,))
        self.training = Training(data, config, fit, split, folder, Augment(), None, Hooks())
        self.step = 0

    def ours(self, steps):
        """Windows/s and the share of time spent waiting for data."""
        loader = self.training.loader
        loader.waited_s = 0.0
        began = time.perf_counter()
        for ready in loader.steps(self.step, self.step + steps):
            self.training.step = self.step
            values = self.training._train_step(ready)
            self.training._log(values)
            self.step += 1
        self._finish()
        wall = time.perf_counter() - began
        return steps * self.training.options.batch / wall, loader.waited_s / wall

    def bare(self, steps):
        """Windows/s of forward, backward, clip and step on one batch."""
        model, optimizer = self.training.plain, self.training.optimizer.optimizer
        ready = self.training.loader.prepare(0, 0)
        batch, device = ready.batch.to(self.training.accelerator.device), self.training.accelerator.device.type
        lower = self.training.options.precision == "bf16"
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=lower):
                loss = model(batch)["total"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.training.parameters, 1.0)
            optimizer.step()
        self._finish()
        return steps * self.training.options.batch / (time.perf_counter() - began)

    @staticmethod
    def _finish():
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def compare(name, timed, steps, rounds):
    timed.ours(2), timed.bare(2)
    ours, bare, waits = [], [], []
    for _ in range(rounds):
        rate, wait = timed.ours(steps)
        ours.append(rate), waits.append(wait), bare.append(timed.bare(steps))
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    print(
        f"{name:44s} {statistics.median(ours):8.1f} {statistics.median(bare):8.1f} {ratio:6.3f} "
        f"{statistics.median(waits):8.1%}",
        flush=True,
    )
    return statistics.median(ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="bf16 peak of the GPU (H100/H200: 989)")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    root = Path(tempfile.mkdtemp())
    data = make_data(root / "data")
    fit = FitConfig(steps=10**6, batch=arguments.batch, tracker="none", validation_windows=1)
    print(f"{'windows/s':44s} {'ours':>8s} {'bare':>8s} {'ratio':>6s} {'waiting':>8s}")
    history = HistoryConfig(kind="policy-head", window=8)
    if arguments.size == "small":
        for precision in ("no", "bf16"):
            config = make_config(data, BackboneConfig(family="tiny"), history)
            timed = Timed(data, config, replace(fit, precision=precision), root / precision)
            compare(f"tiny, policy-head 8, {precision}", timed, arguments.steps, arguments.rounds)
    source = save_llava(arguments.size, root / "vlm")
    one = HistoryConfig(kind="policy-head", window=2)
    for precision in ("no", "bf16"):
        for checkpointing in (False, True):
            backbone = BackboneConfig(family="llava", source=str(source), tuning="lora", checkpointing=checkpointing)
            config = make_config(data, backbone, one)
            options = replace(fit, precision=precision, batch=max(2, arguments.batch // 4))
            timed = Timed(data, config, options, root / f"{precision}{checkpointing}")
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            name = f"llava {arguments.size}, LoRA, {precision}{', checkpointing' if checkpointing else ''}"
            rate = compare(name, timed, arguments.steps, arguments.rounds)
            if torch.cuda.is_available():
                report_gpu(timed, rate, arguments.peak_tflops)


def report_gpu(timed, windows_per_s, peak_tflops):
    """Tokens/s and model FLOP utilisation of the language model."""
    backbone = timed.training.plain.backbone
    tokens = len(backbone._compose("navigate around the obstacle to the bottle", False, 1).ids) * 2
    frozen = sum(p.numel() for p in backbone.parameters() if not p.requires_grad)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    flops = windows_per_s * tokens * (6 * trained + 4 * frozen)
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"    {windows_per_s * tokens:,.0f} tokens/s, MFU {flops / peak_tflops / 1e12:.1%}, {memory:.1f} GiB")


if __name__ == "__main__":
    main()
