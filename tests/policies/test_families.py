"""Our token sequences and pixels beside those of the families' own processors, where these work without torchvision."""

import numpy as np
import pytest
import torch
from lattice_data import save_family
from PIL import Image

from failsight.core.errors import UnknownNameError
from failsight.policies.vla.backbone import VLMBackbone
from failsight.policies.vla.design import BackboneConfig
from failsight.policies.vla.families import FAMILIES, family_of, find_family, patch_rows
from failsight.testing.tiny_vlms import PATCH, SIDE, make_tokenizer

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlms")
    made = {}

    def make(family, **options):
        key = (family, str(options))
        if key not in made:
            source = save_family(family, root / family)
            made[key] = VLMBackbone(
                BackboneConfig(family=family, source=str(source), tuning="frozen", **options), 1, False
            )
        return made[key]

    return make


def pixels_of(backbone, picture):
    image = torch.from_numpy(picture).permute(2, 0, 1).float()[None, None, None] / 255
    return backbone._pixels(image)[0, 0]


def test_patch_rows_are_those_of_qwens_processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    side, merge = 4 * PATCH, 2
    picture = RNG.integers(0, 255, (side, side, 3)).astype(np.uint8)
    processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=merge, temporal_patch_size=2, min_pixels=side * side, max_pixels=side * side
    )
    theirs = processor(Image.fromarray(picture), return_tensors="pt")
    mean, std = (torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std))
    pixels = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - mean) / std
    rows, grid = patch_rows(pixels[None], PATCH, merge, 2)
    np.testing.assert_allclose(rows.numpy(), theirs["pixel_values"].numpy(), atol=1e-5)
    assert theirs["image_grid_thw"].tolist() == [[1, *grid]]


def test_llava_ids_and_pixels(backbones):
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    backbone = backbones("llava")
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28],
    )  # fmt: skip
    processor = LlavaProcessor(
        images,
        make_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    text = "<s>USER: <image>\nWhat action should the robot take to go left? ASSISTANT:"
    theirs = processor(images=Image.fromarray(PICTURE), text=text, return_tensors="pt", add_special_tokens=False)
    layout = backbone._compose("go left", False, 1)
    assert layout.ids[:-1].tolist() == theirs["input_ids"][0].tolist()
    np.testing.assert_allclose(pixels_of(backbone, PICTURE).numpy(), theirs["pixel_values"][0].numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_idefics3_image_text(backbones, family):
    """The sequence Idefics 3 and SmolVLM write around an image that is not split."""
    layout = backbones(family)._compose("go left", False, 1)
    tokenizer = make_tokenizer()
    count = (SIDE // PATCH) ** 2 // 4
    text = (
        "<|im_start|>User:<fake_token_around_image><global-img>" + "<image>" * count + "<fake_token_around_image>"
        "What action should the robot take to go left?<end_of_utterance>\nAssistant:"
    )
    assert layout.ids[:-1].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert int(layout.slots.sum()) == count


def test_kosmos_image_text(backbones):
    layout = backbones("kosmos-2")._compose("go left", False, 1)
    tokenizer = make_tokenizer()
    boi, eoi = (tokenizer.convert_tokens_to_ids(t) for t in ("<image>", "</image>"))
    at = layout.ids.tolist().index(boi)
    assert layout.slots[at + 1 : at + 5].all()
    assert layout.ids[at + 5] == eoi


@pytest.mark.parametrize("family", list(FAMILIES))
def test_several_frames_stand_in_order_with_an_action_token_each(backbones, family):
    backbone = backbones(family, action_tokens=2)
    layout = backbone._compose("go left", False, 3)
    acts = layout.acts.view(3, 2)
    for frame in range(3):
        assert int(layout.seen[acts[frame, 0]]) == frame + 1
    assert (layout.ids[layout.acts.view(3, 2)] == layout.ids[acts[0]]).all()
    assert not layout.slots[layout.acts].any()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_lora_reaches_the_decoder_and_nothing_else(tmp_path, family):
    source = save_family(family, tmp_path / "vlm")
    backbone = VLMBackbone(BackboneConfig(family=family, source=str(source), tuning="lora", lora_rank=2), 1, False)
    adapted = [n for n, p in backbone._core.named_parameters() if p.requires_grad and "lora_" in n]
    assert len(adapted) == 2 * 4 * len(backbone.blocks()), "A and B of four projections per block"
    assert all(name.startswith(FAMILIES[family].decoder) for name in adapted)


def test_names_are_found_and_suggested():
    assert family_of("qwen2_5_vl").name == "qwen2.5-vl"
    with pytest.raises(UnknownNameError, match="smolvlm"):
        find_family("smolvml")
    with pytest.raises(UnknownNameError, match="model type"):
        family_of("bert")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_dtype_and_size_of_the_pixels_follow_the_model(backbones, family):
    backbone = backbones(family, image_size=SIDE)
    big = RNG.integers(0, 255, (50, 70, 3)).astype(np.uint8)
    assert pixels_of(backbone, big).shape == (3, SIDE, SIDE)
