"""The names of every layout, mapped one to one; whose file a file is; what is not ours, by name."""

import re

import pytest
import torch
import v1_files
from v1_files import NAMES, TEXT, UNET, VAE

from minisd.checkpoints.names import rename, translate
from minisd.checkpoints.untrusted import Refused
from minisd.config import V1
from minisd.pipeline import StableDiffusion

ALL = [*NAMES, *v1_files.BUFFERS, v1_files.POSITION_IDS]
PARTS = ("text_encoder", "unet", "vae")


@pytest.fixture(scope="module")
def v1() -> StableDiffusion:
    with torch.device("meta"):
        return StableDiffusion(V1)


# The tables

def test_compvis_names_map_one_to_one(v1) -> None:
    ours = {k: tuple(v.shape) for k, v in v1.state_dict().items()}
    mapped = {rename(name, "compvis"): tuple(shape) for name, shape in NAMES.items()}
    assert len(NAMES) == len(mapped) == 1130 and mapped.keys() == ours.keys()
    assert all(shape in (ours[name], (*ours[name], 1, 1)) for name, shape in mapped.items())


@pytest.mark.parametrize("old", [False, True], ids=["new VAE names", "old VAE names"])
def test_diffusers_names_map_one_to_one(v1, old) -> None:
    theirs = [f"{part}.{name}" for part, tensors in
              v1_files.diffusers_tensors(v1, old=old).items() for name in tensors
              if not name.endswith("position_ids")]
    assert len(theirs) == len(set(theirs)) == 1130
    assert {rename(name, "diffusers") for name in theirs} == v1.state_dict().keys()


def test_renaming_our_own_names_changes_nothing(v1) -> None:
    """Our names mean one thing; a rule that matched one of them would hide a wrong file."""
    assert all(rename(name, "compvis") == name for name in v1.state_dict())


# Whose file it is

def test_averages_are_taken_in_place_of_the_plain_weights() -> None:
    averages = {name: v1_files.averaged_name(name) for name in NAMES if name.startswith(UNET)}
    found = translate([*ALL, *averages.values()])
    assert found.averaged and len(found.names) == 1130
    for name, average in averages.items():
        assert found.names[rename(name, "compvis")] == average
    with pytest.raises(Refused, match="averaged UNet weights are incomplete, .*out2bias is miss"):
        translate([*ALL, *averages.values()][:-1])


@pytest.mark.parametrize("wrapped", ["module.", "model._orig_mod.", "state_dict.module.model."])
def test_what_a_wrapper_put_before_the_names(wrapped) -> None:
    plain, found = translate(ALL), translate([wrapped + name for name in ALL])
    assert found.parts == PARTS and found.names == {
        ours: wrapped + theirs for ours, theirs in plain.names.items()}


def test_what_a_wrapper_put_into_the_names() -> None:
    """As torch.compile leaves it where the UNet alone was compiled."""
    names = [name.replace(UNET, f"{UNET}_orig_mod.") for name in ALL]
    assert translate(names).names.keys() == translate(ALL).names.keys()
    alone = [f"module.{name.removeprefix(VAE)}" for name in NAMES if name.startswith(VAE)]
    assert translate(alone).parts == ("vae",)


@pytest.mark.parametrize("name", [
    "cond_stage_model.logit_scale", "cond_stage_model.text_projection", "v_pred", "ztsnr",
    "cond_stage_model.transformer.text_projection.weight", "model_sampling.sigmas", "logvar",
    "embedding_manager.embedder.x", "first_stage_model.loss.logvar", "scale_factor",
    "first_stage_model.model_ema.decay", "denoiser.sigmas", "model_ema.num_updates"])
def test_what_is_no_weight_is_left_out(name) -> None:
    assert translate([*ALL, name]).names == translate(ALL).names


def test_what_transformers_adds_to_a_text_encoder() -> None:
    names = [name.removeprefix("cond_stage_model.transformer.") for name in NAMES
             if name.startswith(TEXT)]
    found = translate([*names, "text_projection.weight", "text_model.embeddings.position_ids"])
    assert (found.layout, found.parts, len(found.names)) == ("diffusers", ("text_encoder",), 196)
    bare = translate([name.removeprefix("text_model.") for name in names])
    assert bare.names.keys() == found.names.keys()


@pytest.mark.parametrize("twin", [
    f"{TEXT}final_layer_norm.weight".replace("text_model.", ""), f"module.{UNET}out.2.bias"])
def test_one_tensor_under_two_names_is_refused(twin) -> None:
    with pytest.raises(Refused, match=rf"{re.escape(twin)} are the same tensor under two names"):
        translate([*ALL, twin])


@pytest.mark.parametrize(("names", "what"), [
    (["conditioner.embedders.0.transformer.x"], "an SDXL model"),
    (["cond_stage_model.model.ln_final.weight"], "a Stable Diffusion v2 model"),
    (["lora_unet_mid_block.lora_up.weight"], "a LoRA"),
    (["control_model.input_hint_block.0.weight"], "a ControlNet"),
    (["double_blocks.0.img_attn.qkv.weight"], "a FLUX model"),
    (["model.diffusion_model.joint_blocks.0.x"], "a Stable Diffusion 3 model"),
    (["emb_params"], "a textual-inversion embedding"), (["<cat-toy>"], "a textual-inversion emb"),
    (["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"], "a language model"),
    (["bert.encoder.layer.0.attention.self.query.weight"], "a language model")])
def test_other_models_are_called_by_name(names, what) -> None:
    with pytest.raises(Refused, match=f"this is {what}.* .it holds {names[0]}.; expected Stable"):
        translate(names)


def test_a_name_that_says_nothing_is_shown_without_its_tricks() -> None:
    with pytest.raises(Refused) as error:
        translate(["\x1b[31mred", "\u202ebackwards"])
    assert "network (\\x1b[31mred, \\u202ebackwards, ...)" in str(error.value)
    with pytest.raises(Refused, match="no tensors at all"):
        translate([])
