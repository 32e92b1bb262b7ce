"""The names that others give to the same tensors, and how to tell whose file it is.

Stable Diffusion v1 circulates in two layouts: CompVis's one file with everything, and diffusers'
folder of parts. Both are renamed to this project's names by the short tables below: each rule is
a pattern of whole, dot-separated name parts and what replaces it, applied in order. In patterns
`#` is a number. A test proves that each table maps all 1,130 names one to one.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from minisd.config import V1, TextConfig, UNetConfig, VAEConfig

Shapes = Mapping[str, tuple[int, ...]]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

CLIP_HEAD_WIDTH = 64
CONTEXT_V2 = 1024               # width of v2's text encoder
OTHER_CHANNELS = {              # into the UNet, in place of the 4 of the latents
    9: "an inpainting model", 8: "an InstructPix2Pix model", 7: "an upscaling model",
    5: "a depth-to-image model"}
PROJECTION = "unet.mid.layers.0.attention.proj_in.weight"
CROSS_ATTENTION = "unet.mid.layers.0.attention.block.cross_attn.to_k.weight"

# Hugging Face's CLIP, which CompVis's files contain as well.
TEXT_RULES: tuple[Rule, ...] = (
    ("text_encoder.text_model", "text_encoder"),
    ("embeddings.(token|position)_embedding", r"\1_embedding"),
    ("text_encoder.encoder.layers", "text_encoder.layers"),
    ("layer_norm(#)", r"norm\1"),
    ("final_layer_norm", "final_norm"),
    ("(q|k|v)_proj", r"to_\1"),
    ("self_attn.out_proj", "self_attn.to_out"),
)
TRANSFORMER_RULES: tuple[Rule, ...] = (
    ("transformer_blocks.0", "block"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    ("to_out.0", "to_out"),
    ("ff.net.0.proj", "ff.proj_in"),
    ("ff.net.2", "ff.proj_out"),
)
DIFFUSERS_RULES: tuple[Rule, ...] = (
    *TEXT_RULES,
    *TRANSFORMER_RULES,
    ("unet.(down|up)_blocks.(#).resnets.(#)", r"unet.\1.\2.layers.\3.resnet"),
    ("unet.(down|up)_blocks.(#).attentions.(#)", r"unet.\1.\2.layers.\3.attention"),
    ("unet.(down|up)_blocks.(#).(?:down|up)samplers.0", r"unet.\1.\2.\1sample"),
    ("unet.mid_block.resnets.(#)", r"unet.mid.layers.\1.resnet"),
    ("unet.mid_block.attentions.(#)", r"unet.mid.layers.\1.attention"),
    ("linear_(#)", r"linear\1"),
    ("time_emb_proj", "time_proj"),
    ("conv_shortcut", "shortcut"),
    ("conv_norm_out", "norm_out"),
    ("(encoder|decoder).(?:down|up)_blocks", r"\1.levels"),
    ("(?:down|up)samplers.0", "resample"),
    ("mid_block.resnets", "mid.resnets"),
    ("mid_block.attentions.0.group_norm", "mid.attention.norm"),
    ("mid_block.attentions.0.(to_[qkv]|to_out)", r"mid.attention.self_attn.\1"),
    ("mid_block.attentions.0.(q|k|v)(?:uery|ey|alue)", r"mid.attention.self_attn.to_\1"),
    ("mid_block.attentions.0.proj_attn", "mid.attention.self_attn.to_out"),
)
BLOCKS_PER_LEVEL = 3            # CompVis numbers through: two ResBlocks and a halving per level


def _input_block(match: re.Match[str]) -> str:
    """input_blocks.n.m: the m-th module of the n-th block on the way down; 0 is conv_in."""
    number, module = int(match[1]) - 1, int(match[2])
    if number < 0:
        return "unet.conv_in"
    level, layer = divmod(number, BLOCKS_PER_LEVEL)
    if layer == BLOCKS_PER_LEVEL - 1:
        return f"unet.down.{level}.downsample"
    return f"unet.down.{level}.layers.{layer}.{('resnet', 'attention')[module]}"


def _output_block(match: re.Match[str]) -> str:
    level, layer = divmod(int(match[1]), BLOCKS_PER_LEVEL)
    return f"unet.up.{level}.layers.{layer}.{('resnet', 'attention')[int(match[2])]}"


def _upsample(match: re.Match[str]) -> str:
    return f"unet.up.{int(match[1]) // BLOCKS_PER_LEVEL}.upsample.conv"


def _middle_block(match: re.Match[str]) -> str:
    return "unet.mid." + ("layers.0.resnet", "layers.0.attention", "layers.1.resnet")[int(match[1])]


def _decoder_level(match: re.Match[str]) -> str:
    """CompVis counts the decoder's four levels from the picture, we from the latents."""
    return f"decoder.levels.{3 - int(match[1])}"


COMPVIS_RULES: tuple[Rule, ...] = (
    ("cond_stage_model.transformer", "text_encoder"),
    ("model.diffusion_model", "unet"),
    ("first_stage_model", "vae"),
    *TEXT_RULES,
    *TRANSFORMER_RULES,
    ("unet.input_blocks.(#).0.op", lambda m: f"unet.down.{int(m[1]) // BLOCKS_PER_LEVEL - 1}"
                                             ".downsample.conv"),
    ("unet.input_blocks.(#).(#)", _input_block),
    ("unet.output_blocks.(#).[12].conv", _upsample),
    ("unet.output_blocks.(#).(#)", _output_block),
    ("unet.middle_block.(#)", _middle_block),
    ("unet.time_embed.0", "unet.time_embedding.linear1"),
    ("unet.time_embed.2", "unet.time_embedding.linear2"),
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "shortcut"),
    ("unet.out.0", "unet.norm_out"),
    ("unet.out.2", "unet.conv_out"),
    ("encoder.down.(#)", r"encoder.levels.\1"),
    ("decoder.up.(#)", _decoder_level),
    ("levels.(#).block", r"levels.\1.resnets"),
    ("levels.(#).(?:down|up)sample", r"levels.\1.resample"),
    ("nin_shortcut", "shortcut"),
    ("mid.block_1", "mid.resnets.0"),
    ("mid.block_2", "mid.resnets.1"),
    ("mid.attn_1.norm", "mid.attention.norm"),
    ("mid.attn_1.(q|k|v)", r"mid.attention.self_attn.to_\1"),
    ("mid.attn_1.proj_out", "mid.attention.self_attn.to_out"),
    ("(encoder|decoder).norm_out", r"\1.norm_out"),
)


def _compile(rules: Iterable[Rule]) -> list[tuple[re.Pattern[str], str | Callable]]:
    """Patterns that match whole dot-separated parts, with `#` a number."""
    return [(re.compile(r"(?<![^.])" + pattern.replace(".", r"\.").replace("#", r"\d+")
                        + r"(?![^.])"), replacement) for pattern, replacement in rules]


_COMPILED = {"compvis": _compile(COMPVIS_RULES), "diffusers": _compile(DIFFUSERS_RULES)}


def rename(name: str, layout: str) -> str:
    """A tensor's name in this project; layout is "compvis" or "diffusers".

    Names of diffusers' parts are given with the part in front: "unet.conv_in.weight".
    """
    for pattern, replacement in _COMPILED[layout]:
        name = pattern.sub(replacement, name)
    return name


# Whose file is it?

class Unknown(ValueError):
    """Names that belong to no layout known here, and to no other model known here either."""


@dataclass(frozen=True)
class Recognised:
    """What a file's names say it is."""

    layout: str                     # "minisd", "compvis" or "diffusers"
    parts: tuple[str, ...]          # of "text_encoder", "unet", "vae"
    ema: bool = False               # it holds averaged UNet weights beside the plain ones


COMPVIS_PREFIXES = {"text_encoder": "cond_stage_model.transformer.",
                    "unet": "model.diffusion_model.", "vae": "first_stage_model."}
EMA_PREFIX = "model_ema.diffusion_model"

# What CompVis's files hold beside the three networks, and painting does not need: the schedule's
# buffers, the averages' bookkeeping, losses of the training, words taught by textual inversion.
BESIDE = re.compile(
    r"(betas|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?|sqrt_recip(m1)?_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|logvar|lvlb_weights|scale_factor"
    r"|(first_stage_model\.)?(model_ema|loss)\..*|(embedding_manager|denoiser(_null)?)\..*)$")

# What is not Stable Diffusion v1, by names that only it has.
STRANGERS: tuple[tuple[str, str], ...] = (
    (r"^conditioner\.embedders\.|\.label_emb\.|add_embedding\.", "an SDXL model"),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion v2 model"),
    (r"lora_(down|up|A|B)|^lora_", "a LoRA, a small change to a model and no model of its own"),
    (r"^control_model\.|controlnet_cond_embedding|zero_convs", "a ControlNet"),
    (r"^(double_blocks|model\.diffusion_model\.double_blocks)\.", "a FLUX model"),
    (r"joint_blocks\.|^transformer_blocks\.\d+\.attn\.add_", "a Stable Diffusion 3 model"),
    (r"^string_to_param|^emb_params", "a textual-inversion embedding"),
)


def recognise(shapes: Shapes) -> Recognised:
    """Which layout and parts these tensors are. Raises ValueError naming what they are instead."""
    for pattern, what in STRANGERS:
        stranger = next((name for name in shapes if re.search(pattern, name)), None)
        if stranger:
            raise ValueError(f"this is {what} (it holds {stranger}); expected Stable Diffusion v1")
    parts = tuple(part for part, prefix in COMPVIS_PREFIXES.items()
                  if any(name.startswith(prefix) for name in shapes))
    if parts:
        found = Recognised("compvis", parts, any(n.startswith(EMA_PREFIX) for n in shapes))
    elif "time_embedding.linear_1.weight" in shapes:
        found = Recognised("diffusers", ("unet",))
    elif "encoder.conv_in.weight" in shapes and "quant_conv.weight" in shapes:
        ours = any(name.startswith("encoder.levels.") for name in shapes)
        compvis = any(name.startswith("encoder.down.") for name in shapes)
        found = Recognised("minisd" if ours else "compvis" if compvis else "diffusers", ("vae",))
    elif any(name.endswith("layers.0.self_attn.q_proj.weight") for name in shapes):
        found = Recognised("diffusers", ("text_encoder",))
    elif "layers.0.self_attn.to_q.weight" in shapes:
        found = Recognised("minisd", ("text_encoder",))
    elif "time_embedding.linear1.weight" in shapes:
        found = Recognised("minisd", ("unet",))
    else:
        some = ", ".join(sorted(shapes)[:3]) or "no tensors at all"
        raise Unknown(f"these are not the weights of a Stable Diffusion v1 network ({some}, "
                         f"...); expected CompVis's or diffusers' names")
    return found


def to_ours(shapes: Shapes, found: Recognised) -> dict[str, str]:
    """Our name of every tensor that belongs to the model -> its name in the file.

    Left out is what is known to be no weight of the model; all else keeps its name, and fails the
    strict check. Where there are averaged UNet weights they are taken in place of the plain ones,
    so that a full file and its ema-only sister paint the same picture. Raises ValueError where
    only some are averaged, or two tensors are the same.
    """
    named: dict[str, str] = {}
    for name in shapes:
        source, theirs = name, name
        if found.layout == "compvis":
            if BESIDE.match(name):
                continue
            source = _compvis_name(name, found)
            if found.ema and name.startswith(COMPVIS_PREFIXES["unet"]):
                theirs = averaged_name(name)
                if theirs not in shapes:
                    raise ValueError(f"its averaged UNet weights are incomplete, {theirs} is "
                                     f"missing; take the ema-only file of this model")
        else:
            source = f"{found.parts[0]}.{name}"
            if found.layout == "diffusers" and re.match(r"text_encoder\.(?!text_model)", source):
                source = source.replace("text_encoder.", "text_encoder.text_model.", 1)
        if source.endswith("position_ids"):         # counts from 0 to 76; merging corrupts it
            continue
        ours = source if found.layout == "minisd" else rename(source, found.layout)
        if ours in named:
            raise ValueError(f"{named[ours]} and {theirs} are the same tensor under two names; "
                             f"take another file of this model")
        named[ours] = theirs
    return named


def averaged_name(name: str) -> str:
    """Where a full CompVis file keeps the moving average of this tensor of the UNet."""
    return EMA_PREFIX + name.removeprefix(COMPVIS_PREFIXES["unet"]).replace(".", "")


def _compvis_name(name: str, found: Recognised) -> str:
    """A tensor's name in a whole CompVis file with all its parts."""
    if found.parts == ("vae",) and not name.startswith(COMPVIS_PREFIXES["vae"]):
        return COMPVIS_PREFIXES["vae"] + name
    # Some community files leave out a part of the text encoder's names.
    bare = COMPVIS_PREFIXES["text_encoder"]
    if name.startswith(bare) and not name.startswith(f"{bare}text_model."):
        return name.replace(bare, f"{bare}text_model.", 1)
    return name


# What size is it? `shapes` with our names, part in front. How many levels, layers and heads there
# are is v1's, whatever the widths: what is missing must not look like a smaller model.

def read_text_config(shapes: Shapes) -> TextConfig:
    """The text encoder's sizes, read off its tensors."""
    width = _size(shapes, "text_encoder.token_embedding.weight", 1)
    return replace(V1.text, vocab_size=_size(shapes, "text_encoder.token_embedding.weight", 0),
                   width=width, heads=max(1, width // CLIP_HEAD_WIDTH),
                   max_length=_size(shapes, "text_encoder.position_embedding.weight", 0))


def read_vae_config(shapes: Shapes) -> VAEConfig:
    """The VAE's sizes, read off its tensors."""
    names = [f"vae.encoder.levels.{i}.resnets.0.conv1.weight" for i in range(len(V1.vae.channels))]
    return replace(V1.vae, channels=tuple(_size(shapes, name, 0) for name in names),
                   latent_channels=_size(shapes, "vae.post_quant_conv.weight", 0))


def read_unet_config(shapes: Shapes) -> UNetConfig:
    """The UNet's sizes, read off its tensors."""
    names = [f"unet.down.{i}.layers.0.resnet.conv1.weight" for i in range(len(V1.unet.channels))]
    return replace(V1.unet, channels=tuple(_size(shapes, name, 0) for name in names),
                   context_dim=_size(shapes, CROSS_ATTENTION, 1),
                   latent_channels=_size(shapes, "unet.conv_in.weight", 1))


def refuse_other_unets(shapes: Shapes) -> None:
    """Raise ValueError for the UNets of other models with v1's names; it says whose they are."""
    channels = _size(shapes, "unet.conv_in.weight", 1)
    if channels in OTHER_CHANNELS:
        raise ValueError(f"this is {OTHER_CHANNELS[channels]} (its UNet takes {channels} "
                         f"channels); expected plain Stable Diffusion v1, which takes 4, and "
                         f"inpaints with them through sd.inpaint")
    if len(shapes.get(PROJECTION, ())) == 2:
        raise ValueError("this is a Stable Diffusion v2 or SDXL model (its projections are "
                         "linear); expected v1")
    if _size(shapes, CROSS_ATTENTION, 1) == CONTEXT_V2:
        raise ValueError("this is a Stable Diffusion v2 model (its context is 1024 wide); "
                         "expected v1")


def _size(shapes: Shapes, name: str, axis: int) -> int:
    """One side of a tensor. Raises KeyError, or ValueError where it has too few."""
    if len(shapes[name]) <= axis:
        raise ValueError(f"{name} has the shape {shapes[name]}, too few sides for its place")
    return shapes[name][axis]
