"""The names that others give to the same tensors, and whose file a file is.

Stable Diffusion v1 circulates in two layouts: CompVis's one file with everything, and diffusers'
folder of parts. Both are renamed to this project's names by the two tables below: each row is a
pattern of whole, dot-separated name parts and what replaces it, applied in order. In patterns `#`
is a number. Tests prove that each table maps all 1,130 names one to one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from minisd.checkpoints.untrusted import Refused, shown

Rule = tuple[str, str]
LEVELS = range(4)               # of v1's UNet and of its VAE
KINDS = ((0, "resnet"), (1, "attention"))

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
# CompVis numbers the UNet's blocks through, three to a level: input_blocks.n.m is the m-th module
# of the n-th block. It counts the decoder's levels from the picture, we from the latents.
COMPVIS_RULES: tuple[Rule, ...] = (
    ("cond_stage_model.transformer", "text_encoder"),
    ("model.diffusion_model", "unet"),
    ("first_stage_model", "vae"),
    *TEXT_RULES,
    *TRANSFORMER_RULES,
    ("unet.input_blocks.0.0", "unet.conv_in"),
    *((f"unet.input_blocks.{3 * i + 3}.0.op", f"unet.down.{i}.downsample.conv") for i in LEVELS),
    *((f"unet.input_blocks.{3 * i + j + 1}.{m}", f"unet.down.{i}.layers.{j}.{kind}")
      for i in LEVELS for j in range(2) for m, kind in KINDS),
    *((f"unet.output_blocks.{3 * i + 2}.[12].conv", f"unet.up.{i}.upsample.conv") for i in LEVELS),
    *((f"unet.output_blocks.{3 * i + j}.{m}", f"unet.up.{i}.layers.{j}.{kind}")
      for i in LEVELS for j in range(3) for m, kind in KINDS),
    ("unet.middle_block.0", "unet.mid.layers.0.resnet"),
    ("unet.middle_block.1", "unet.mid.layers.0.attention"),
    ("unet.middle_block.2", "unet.mid.layers.1.resnet"),
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
    *((f"decoder.up.{i}", f"decoder.levels.{3 - i}") for i in LEVELS),
    ("levels.(#).block", r"levels.\1.resnets"),
    ("levels.(#).(?:down|up)sample", r"levels.\1.resample"),
    ("nin_shortcut", "shortcut"),
    ("mid.block_1", "mid.resnets.0"),
    ("mid.block_2", "mid.resnets.1"),
    ("mid.attn_1.norm", "mid.attention.norm"),
    ("mid.attn_1.(q|k|v)", r"mid.attention.self_attn.to_\1"),
    ("mid.attn_1.proj_out", "mid.attention.self_attn.to_out"),
)


def _compiled(rules: Iterable[Rule]) -> list[tuple[re.Pattern[str], str]]:
    """Patterns that match whole dot-separated parts, with `#` a number."""
    return [(re.compile(r"(?<![^.])" + pattern.replace(".", r"\.").replace("#", r"\d+")
                        + r"(?![^.])"), replacement) for pattern, replacement in rules]


_COMPILED = {"compvis": _compiled(COMPVIS_RULES), "diffusers": _compiled(DIFFUSERS_RULES)}


def rename(name: str, layout: str) -> str:
    """A tensor's name in this project; layout is "compvis" or "diffusers".

    Names of diffusers' parts are given with the part in front: "unet.conv_in.weight".
    """
    module, dot, last = name.rpartition(".")
    return _renamed(module, layout) + dot + last


@lru_cache(maxsize=4096)
def _renamed(module: str, layout: str) -> str:
    for pattern, replacement in _COMPILED[layout]:
        module = pattern.sub(replacement, module)
    return module


# Whose file is it?

COMPVIS_PREFIXES = {"text_encoder": "cond_stage_model.transformer.",
                    "unet": "model.diffusion_model.", "vae": "first_stage_model."}
AVERAGED = "model_ema.diffusion_model"

# How a name begins that tells the layout and the part. The first layout found is the file's.
MARKS: tuple[tuple[str, str, str], ...] = (
    *(("compvis", part, re.escape(prefix)) for part, prefix in COMPVIS_PREFIXES.items()),
    ("compvis", "vae", r"encoder\.down\."),         # a VAE alone, as improved ones were published
    ("diffusers", "vae", r"encoder\.(down_blocks|mid_block)\."),
    ("diffusers", "unet", r"time_embedding\.linear_1\.|(down|mid|up)_blocks?\."),
    ("diffusers", "text_encoder", r"(text_model\.)?encoder\.layers\.\d+\.self_attn\.q_proj\."),
    ("minisd", "vae", r"encoder\.levels\."),
    ("minisd", "unet", r"time_embedding\.linear1\."),
    ("minisd", "text_encoder", r"layers\.\d+\.self_attn\.to_q\."),
)

# What is not Stable Diffusion v1, by names that only it has.
STRANGERS: tuple[tuple[str, str], ...] = (
    (r"^conditioner\.embedders\.|\.label_emb\.|add_embedding\.", "an SDXL model"),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion v2 model"),
    (r"lora_(down|up|A|B)|^lora_", "a LoRA, a small change to a model and no model of its own"),
    (r"^control_model\.|controlnet_cond_embedding|zero_convs", "a ControlNet"),
    (r"^(double_blocks|model\.diffusion_model\.double_blocks)\.", "a FLUX model"),
    (r"joint_blocks\.|^transformer_blocks\.\d+\.attn\.add_", "a Stable Diffusion 3 model"),
    (r"^string_to_(param|token)|^emb_params|^<[^.]*>$",
     "a textual-inversion embedding, a word for a model and no model of its own"),
    (r"(^|\.)embed_tokens\.|^lm_head\.|(^|\.)(h|layers)\.\d+\.(attn|mlp\.gate_proj)\.|^bert\.",
     "a language model"),
)

# What training and merging leave beside the three networks, and painting does not need: the
# schedule's buffers, the averages' bookkeeping, losses, words taught by textual inversion, the
# rest of CLIP, marks for other programs. position_ids count from 0 to 76; merging corrupts them.
INERT = re.compile(
    r"(betas|(sqrt_|log_)?(one_minus_)?alphas_cumprod(_prev)?|sqrt_recip(m1)?_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|logvar|lvlb_weights|scale_factor"
    r"|(first_stage_model\.)?(model_ema|loss)\..*|(embedding_manager|denoiser(_null)?)\..*"
    r"|(cond_stage_model\.)?(transformer\.)?(logit_scale|text_projection(\.weight)?)"
    r"|v_pred|ztsnr|model_sampling\..*|.*position_ids)$")

TWICE = "are the same tensor under two names; take another file of this model"

# What saving a wrapped model puts into every name. `model.` is one too where all names have it.
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module|state_dict)\.")


@dataclass(frozen=True)
class Translation:
    """What a file's names say it is, and what its tensors are called here."""

    layout: str                     # "minisd", "compvis" or "diffusers"
    parts: tuple[str, ...]          # of "text_encoder", "unet", "vae"
    averaged: bool                  # the UNet's weights are the averages that lie beside the plain
    names: dict[str, str]           # our name -> the name in the file


def translate(names: Iterable[str], part: str = "", *, own: bool = False) -> Translation:
    """Which layout and parts these names are of, and what they are called here.

    part: what a file is taken for whose names say nothing; own: it is ours, whatever they say.
    Left out is what is known to be no weight; all else keeps its name, and fails the strict check.
    Where there are averaged UNet weights they are taken in place of the plain ones, so that a full
    file and its ema-only sister paint the same picture. Raises Refused for other models.
    """
    theirs = {name: name for name in names} if own else _unwrapped(names)
    layout, parts = ("minisd", (part,)) if own else _recognised(theirs, part)
    averaged = any(name.startswith(AVERAGED) for name in theirs)
    ours: dict[str, str] = {}
    for bare, name in theirs.items():
        if layout == "minisd":
            mine = f"{parts[0]}.{bare}"
        elif INERT.match(bare):
            continue
        else:
            mine = rename(_whole_name(bare, layout, parts), layout)
        if averaged and bare.startswith(COMPVIS_PREFIXES["unet"]):
            average = averaged_name(bare)
            if average not in theirs:
                raise Refused(f"its averaged UNet weights are incomplete, {shown(average)} is "
                              f"missing: take the ema-only file of this model")
            name = theirs[average]
        if mine in ours:
            raise Refused(f"{shown(ours[mine])} and {shown(name)} {TWICE}")
        ours[mine] = name
    return Translation(layout, parts, averaged, ours)


def averaged_name(name: str) -> str:
    """Where a full CompVis file keeps the moving average of this tensor of the UNet."""
    return AVERAGED + name.removeprefix(COMPVIS_PREFIXES["unet"]).replace(".", "")


def _unwrapped(names: Iterable[str]) -> dict[str, str]:
    """The names without what a wrapper put before or into them -> the names in the file."""
    theirs: dict[str, str] = {}
    for name in names:
        bare = WRAPPERS.sub("", name)
        if bare in theirs:
            raise Refused(f"{shown(theirs[bare])} and {shown(name)} {TWICE}")
        theirs[bare] = name
    while theirs and all(name.startswith("model.") for name in theirs) and not any(
            name.startswith(COMPVIS_PREFIXES["unet"]) for name in theirs):
        theirs = {name.removeprefix("model."): original for name, original in theirs.items()}
    return theirs


def _recognised(names: dict[str, str], part: str) -> tuple[str, tuple[str, ...]]:
    """The layout, and the parts that are there. Raises Refused saying what it is instead."""
    for pattern, what in STRANGERS:
        stranger = next((name for name in names if re.search(pattern, name)), None)
        if stranger is not None:
            raise Refused(f"this is {what} (it holds {shown(names[stranger])}); expected Stable "
                          f"Diffusion v1")
    found = [(layout, held) for layout, held, pattern in MARKS
             if any(map(re.compile(pattern).match, names))]
    if found:
        layout = found[0][0]
        return layout, tuple(dict.fromkeys(held for other, held in found if other == layout))
    if part:
        return "minisd", (part,)            # the strict check will list all that is wrong
    some = ", ".join(shown(name, 60) for name in sorted(names)[:3]) or "no tensors at all"
    raise Refused(f"these are not the weights of a Stable Diffusion v1 network ({some}, ...); "
                  f"expected CompVis's or diffusers' names")


def _whole_name(name: str, layout: str, parts: tuple[str, ...]) -> str:
    """A tensor's name as in a file with all parts, without the short forms that people use."""
    if layout == "diffusers":
        name = f"{parts[0]}.{name}"
    elif parts == ("vae",) and not name.startswith(COMPVIS_PREFIXES["vae"]):
        name = COMPVIS_PREFIXES["vae"] + name
    return re.sub(r"^(text_encoder|cond_stage_model\.transformer)\.(?!text_model\.)",
                  r"\1.text_model.", name)
