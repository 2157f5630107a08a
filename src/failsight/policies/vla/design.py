"""The lattice: backbone x head x history. What a trained policy's `config.json` says, and which cells exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, get_args

from failsight.core.errors import FailsightError, UnknownNameError
from failsight.core.ranges import Between, Reference, Share, require_fields
from failsight.core.specs import ActionSpec, ObservationSpec
from failsight.policies.vla.pixels import PixelChoice
from failsight.policies.vla.words import MAX_WORDS, WORD_RULE

HeadKind = Literal["fc", "lstm", "gpt", "discrete", "flow", "ensemble"]
HistoryKind = Literal["one-step", "policy-head", "interleaved"]
Tuning = Literal["full", "lora", "frozen"]
Attention = Literal["causal", "joint"]
ArmLoss = Literal["huber", "mse", "l1"]
Width = Annotated[int, Between(1, 65_536)]
Few = Annotated[int, Between(1, 1_000)]
Scheme = Literal["q01q99", "min-max", "mean-std", "identity"]

HEADS: tuple[str, ...] = get_args(HeadKind)
HISTORIES: tuple[str, ...] = get_args(HistoryKind)

_REFUSED: dict[tuple[str, str], str] = {
    ("lstm", "one-step"): "it models time, and one-step history has a single frame",
    ("gpt", "one-step"): "it models time, and one-step history has a single frame",
    ("fc", "policy-head"): "nothing would join the frames: policy-head history needs a head that models time",
    ("flow", "policy-head"): "nothing would join the frames: policy-head history needs a head that models time",
    ("ensemble", "policy-head"): "nothing would join the frames: policy-head history needs a head that models time",
    ("discrete", "policy-head"): "action tokens are decoded by the backbone, which sees one frame at a time here",
    ("discrete", "interleaved"): "action tokens end the sequence, so they cannot stand between frames",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """Which vision-language model, and how much of it is trained."""

    family: str = "tiny"
    source: Reference = ""
    """Local folder or hub id; empty for `tiny` from scratch, or a `tiny` checkpoint to start from."""
    revision: str = "main"
    """Of a hub id."""
    tuning: Tuning = "full"
    """full: everything; lora: frozen plus low-rank updates; frozen: only new tokens and the heads."""
    lora_rank: Width = 16
    lora_alpha: Width = 32
    lora_dropout: Share = 0.0
    action_tokens: Few = 1
    """Learnable tokens read at the end of every frame."""
    layers: tuple[int, ...] = (-1,)
    """Hidden layers read at the action tokens; -1 is the last one, after the final norm."""
    image_size: Annotated[int, Between(0, 8192)] = 0
    """Pixels per side fed to the backbone; 0: what its vision tower was built for (`tiny`: the camera's)."""
    pixels: PixelChoice = "checkpoint"
    """Scaling of pixels: checkpoint: as the model's own image processor says, which must be there; symmetric: to
    [-1, 1], for a model that comes without one."""
    checkpointing: bool = False
    """Gradient checkpointing: less memory, one more forward pass."""
    prompt: str = ""
    """Template with {images}, {instruction} and {act}; empty: the family's own."""
    width: Width = 160
    """`tiny` only."""
    depth: Few = 3
    """`tiny` only."""
    words: Few = MAX_WORDS
    """`tiny` only: words of an instruction that are read; later ones are not seen."""
    attention: Attention = "causal"
    """`tiny` only: causal: the instruction, then frame by frame, the state beside the features; joint: a single frame in
    which cameras, instruction, state and a query see each other (one-step history, from scratch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """What turns features into action chunks."""

    kind: HeadKind = "lstm"
    width: Width = 256
    depth: Few = 2
    """Layers of LSTM or GPT; blocks of flow and of the ensemble's field."""
    flow_steps: Few = 6
    samples: Few = 8
    """Chunks drawn per inference by the flow and the ensemble head."""
    members: Few = 4
    """Chunk heads of the ensemble."""

    @property
    def draws(self) -> bool:
        """Whether it draws chunks from noise."""
        return self.kind in ("flow", "ensemble")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """What a policy sees of the past: frames at t, t - stride, ..., and where they are joined."""

    kind: HistoryKind = "policy-head"
    window: Few = 8
    stride: Few = 1
    """Control steps between two frames; also the actions executed per inference, so training and running agree."""
    decay: Annotated[float, Between(0, 1)] = 1.0
    """Loss weight of a frame is decay ** (its age in frames)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureConfig:
    """A failure head beside the action head: p_fail, time to failure, re-plan request."""

    alpha: Annotated[float, Between(0, 1000)] = 0.1
    """Weight in the total loss."""
    gradient: Share = 0.0
    """Share of the head's gradient that reaches the policy. At 1 a policy that is trained in full memorises which
    training episodes failed (`run failure-head`); at 0 the head reads the policy and changes nothing in it."""
    width: Width = 64
    horizon_s: Annotated[float, Between(0, 3600)] = 2.0
    """A re-plan is requested when failure is nearer than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxiliaryConfig:
    """What is asked of the features beside actions, in training alone; the data must hold it (`places`)."""

    offsets: Annotated[int, Between(0, 1_000)] = 0
    """Numbers, the first columns of `places`."""
    flags: Annotated[int, Between(0, 1_000)] = 0
    """Columns of 0 or 1 after them."""

    @property
    def columns(self) -> int:
        """P."""
        return self.offsets + self.flags


@dataclass(frozen=True, slots=True, kw_only=True)
class VLAConfig:
    """A complete policy."""

    type: str = "vla"
    backbone: BackboneConfig
    head: HeadConfig
    history: HistoryConfig
    chunk: int = 10
    action_spec: ActionSpec
    observation_spec: ObservationSpec
    use_state: bool = True
    failure: FailureConfig | None = None
    auxiliary: AuxiliaryConfig = AuxiliaryConfig()
    scheme: Scheme = "q01q99"
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Of actions and states: q01, q99, min, max, mean, std, plus `clip` and `epsilon`."""
    vocabulary: tuple[str, ...] = ()
    """Words of the training instructions (`tiny` only)."""
    word_rule: int = WORD_RULE
    """How an instruction is cut into words (`tiny` only); 1 in checkpoints that do not say."""
    reset_token: bool = True
    """Whether the prompt says that there is a new instruction; false where training never showed it."""
    gripper_ratio: float = 0.05
    """Weight of the gripper's cross-entropy beside the arm's loss; the flow and the ensemble head learn a gripper like
    any other dimension."""
    arm_loss: ArmLoss = "huber"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Command, data, seed, versions, base weights' hash, success tables."""

    @property
    def actions(self) -> int:
        """A."""
        return len(self.action_spec.dimensions)

    @property
    def execute(self) -> int:
        """Actions of a chunk executed before the next inference."""
        return self.history.stride

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        data = asdict(self)
        data["action_spec"] = self.action_spec.as_dict()
        data["observation_spec"] = self.observation_spec.as_dict()
        return data

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> VLAConfig:
        """Inverse of `as_dict`. Raises FailsightError naming a field outside its range."""
        values = {"word_rule": 1, **data}
        backbone = {**data["backbone"], "layers": tuple(data["backbone"]["layers"])}
        values["backbone"] = BackboneConfig(**backbone)
        values["head"] = HeadConfig(**data["head"])
        values["history"] = HistoryConfig(**data["history"])
        values["failure"] = None if data["failure"] is None else FailureConfig(**data["failure"])
        values["auxiliary"] = AuxiliaryConfig(**data.get("auxiliary", {}))
        values["action_spec"] = ActionSpec.from_dict(data["action_spec"])
        values["observation_spec"] = ObservationSpec.from_dict(data["observation_spec"])
        values["vocabulary"] = tuple(data["vocabulary"])
        config = VLAConfig(**values)
        for name in ("backbone", "head", "history", "failure", "auxiliary"):
            part = getattr(config, name)
            if part is not None:
                require_fields(part, f"{name}.")
        return config


def require_cell(head: HeadConfig, history: HistoryConfig, chunk: int) -> None:
    """Refuse a cell that does not exist, by name and with the reason. Raises FailsightError."""
    if head.kind not in HEADS:
        raise UnknownNameError("head", head.kind, HEADS)
    if history.kind not in HISTORIES:
        raise UnknownNameError("history", history.kind, HISTORIES)
    reason = _REFUSED.get((head.kind, history.kind))
    if reason:
        able = ", ".join(h for h in HISTORIES if (head.kind, h) not in _REFUSED)
        raise FailsightError(
            f"Head {head.kind!r} does not go with history {history.kind!r}: {reason}. It goes with: {able}."
        )
    if history.kind == "one-step" and history.window != 1:
        raise FailsightError(f"One-step history has a window of 1, not {history.window}; set --history.window 1.")
    if history.kind != "one-step" and history.window < 2:
        raise FailsightError(f"History {history.kind!r} needs a window of at least 2; it is {history.window}.")
    if not 1 <= history.stride <= chunk:
        raise FailsightError(
            f"A policy executes as many actions as lie between two frames: the stride ({history.stride}) must be "
            f"between 1 and the chunk ({chunk})."
        )


def require_attention(backbone: BackboneConfig, history: HistoryConfig) -> None:
    """Refuse what joint attention cannot do. Raises UnknownNameError, FailsightError with what it goes with."""
    if backbone.attention not in get_args(Attention):
        raise UnknownNameError("attention", backbone.attention, get_args(Attention))
    if backbone.attention == "causal":
        return
    asked = {
        f"--backbone.family {backbone.family}": backbone.family != "tiny",
        f"--history.kind {history.kind}": history.kind != "one-step",
        f"--backbone.tuning {backbone.tuning}": backbone.tuning != "full",
        f"--backbone.source {backbone.source}": bool(backbone.source),
    }
    for what, refused in asked.items():
        if refused:
            raise FailsightError(
                f"Joint attention does not go with {what}: it is the tiny backbone's, from scratch, over a single frame "
                "(--history.kind one-step). Use --backbone.attention causal."
            )


def require_tuning(name: str) -> None:
    """Raises UnknownNameError for a tuning that does not exist."""
    if name not in get_args(Tuning):
        raise UnknownNameError("tuning", name, get_args(Tuning))


def cells() -> list[tuple[str, str]]:
    """Every (head, history) that exists."""
    return [(head, history) for head in HEADS for history in HISTORIES if (head, history) not in _REFUSED]
