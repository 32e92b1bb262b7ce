"""The sizes that files tell: ours and diffusers', through one schema with ranges."""

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from safetensors.torch import load_file

from minisd.checkpoints.config_file import RANGES, checked, read_own_config, write_config
from minisd.checkpoints.load import load
from minisd.checkpoints.sources import config_of, open_model
from minisd.checkpoints.untrusted import Refused
from minisd.config import TOYWORLD, V1, Config


def test_sizes_come_back(tiny, tmp_path) -> None:
    for config in (tiny, V1, TOYWORLD):
        write_config(tmp_path / "new" / "folder", config)
        written = tmp_path / "new" / "folder" / "config.json"
        assert read_own_config(written) == checked(config) == config
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["config.json"]


def test_every_number_has_a_range() -> None:
    def numbers(kind: Any) -> set[str]:
        hints = get_type_hints(kind)
        inner = [hint for hint in hints.values() if is_dataclass(hint)]
        own = {field.name for field in fields(kind) if hints[field.name] in (int, float)}
        return own.union(*map(numbers, inner))

    assert numbers(Config) <= RANGES.keys()


def test_files_of_older_versions_are_read(tmp_path) -> None:
    """What was added since has a default."""
    written = asdict(V1)
    for name in ("schedule", "image_tower", "guidance_scale", "steps"):
        del written[name]
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_own_config(tmp_path / "config.json") == V1


def changed(path: Path, config: Config, keys: str, value: Any) -> Path:
    data: Any = asdict(config)
    *outer, last = keys.split(".")
    inside = data
    for key in outer:
        inside = inside[key]
    inside[last] = value
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(("keys", "value", "said"), [
    ("unet.heads", 1.5, "unet.heads is 1.5, expected an integer from 1 to 512"),
    ("unet", None, "unet is None, expected names with values"),
    ("unet.depth", 3, "unet.depth is no setting that is known here"),
    ("unet.channels", [], r"unet.channels is \[\], expected a list of 1 to 8 values"),
    ("unet.channels", [64, -1], "unet.channels is -1, expected an integer from 1 to 16,384"),
    ("unet.attention", [0, 1, 1], "unet.attention is 0, expected true or false"),
    ("vae.scale_factor", "x", "vae.scale_factor is 'x', expected a number from 0.0001 to 10,000"),
    ("vae.scale_factor", float("nan"), "vae.scale_factor is nan, expected a number"),
    ("image_size", 10 ** 6, "image_size is 1000000, expected an integer from 8 to 8,192"),
    ("schedule.timesteps", 1, "schedule.timesteps is 1,"), ("text.layers", 10 ** 9, "to 200"),
    ("name", "\x1b[31m", "name is '.*, expected at most 100 printable characters"),
    ("name", "\ud800", "printable"), ("name", None, "printable"),
    ("\x1b[2J", 1, r"\\x1b\[2J is no setting that is known here")])
def test_a_value_that_no_network_has(tmp_path, keys, value, said) -> None:
    path = changed(tmp_path / "config.json", TOYWORLD, keys, value)
    with pytest.raises(Refused, match=said) as error:
        read_own_config(path)
    assert str(error.value).startswith(f"{path}: ") and str(error.value).isprintable()
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("text", ["", "[1]", '{"name": "x"}', '{"a": ' * 5000 + "1" + "}" * 5000])
def test_a_file_that_describes_no_model(tmp_path, text) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Refused, match=r"config\.json: (it is damaged|\w+ is missing|all of it is)"):
        read_own_config(tmp_path / "config.json")


# diffusers' files

def saved_pipeline(folder: Path, **scheduler: object) -> None:
    """A model of neither v1's depth nor its heads, as diffusers and transformers save it."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    UNet2DConditionModel(
        sample_size=12, block_out_channels=(20, 30), layers_per_block=1, norm_num_groups=5,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=24,
        attention_head_dim=5).save_pretrained(folder / "unet")
    AutoencoderKL(block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4,
                  down_block_types=("DownEncoderBlock2D",) * 2, scaling_factor=0.3,
                  up_block_types=("UpDecoderBlock2D",) * 2).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(
        vocab_size=59, hidden_size=24, intermediate_size=96, num_hidden_layers=3, eos_token_id=58,
        num_attention_heads=3, bos_token_id=57, max_position_embeddings=33)).save_pretrained(
        folder / "text_encoder")
    DDIMScheduler(**{"beta_start": 0.001, "beta_end": 0.01, "beta_schedule": "scaled_linear",
                     "num_train_timesteps": 900} | scheduler).save_pretrained(folder / "scheduler")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    saved_pipeline(folder)
    return folder


def test_sizes_that_diffusers_wrote_down(pipeline) -> None:
    """What no shape shows: heads, groups, the scale of the latents, the schedule."""
    config = config_of(open_model(pipeline))
    assert (config.text.heads, config.text.layers, config.text.max_length) == (3, 3, 33)
    assert (config.unet.heads, config.unet.groups, config.unet.attention) == (5, 5, (False, True))
    assert (config.vae.scale_factor, config.vae.groups, config.vae.downscale) == (0.3, 4, 2)
    assert (config.schedule.beta_end, config.schedule.timesteps) == (0.01, 900)
    assert config.image_size == 24
    loaded = load(pipeline, dtype="float32")
    theirs = load_file(pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(loaded.unet.conv_in.weight, theirs["conv_in.weight"])


@pytest.mark.parametrize(("file", "key", "value", "said"), [
    ("unet/config.json", "use_linear_projection", True, "its use_linear_projection is True, exp"),
    ("unet/config.json", "attention_head_dim", [5, 10], r"heads is \[5, 10\], expected an integer"),
    ("unet/config.json", "down_block_types", ["A", "B"], r"its blocks are \['A', 'B'\] and"),
    ("unet/config.json", "block_out_channels", [20, 33], "its sizes make no network"),
    ("unet/config.json", "block_out_channels", [20, 40], "does not fit StableDiffusion"),
    ("unet/config.json", "sample_size", 10 ** 6, "image_size is 2000000, expected an integer from"),
    ("text_encoder/config.json", "hidden_act", "gelu", "its hidden_act is 'gelu', expected 'quic"),
    ("vae/config.json", "shift_factor", 0.1, "its shift_factor is 0.1, expected None"),
    ("vae/config.json", "scaling_factor", float("nan"), "scale_factor is nan, expected a number"),
    ("scheduler/scheduler_config.json", "prediction_type", "v_prediction", "as in Stable Diff"),
])
def test_settings_of_other_networks_are_refused(pipeline, tmp_path, file, key, value, said) -> None:
    for path in pipeline.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(pipeline)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(pipeline)).symlink_to(path)
    settings = json.loads((tmp_path / file).read_text()) | {key: value}
    (tmp_path / file).unlink()
    (tmp_path / file).write_text(json.dumps(settings))
    with pytest.raises(Refused, match=said) as error:
        load(tmp_path, dtype="float32")
    assert str(tmp_path) in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_of_diffusers_is_named(pipeline, tmp_path, text) -> None:
    (tmp_path / "unet").mkdir()
    for path in (pipeline / "unet").glob("*.safetensors"):
        (tmp_path / "unet" / path.name).symlink_to(path)
    (tmp_path / "unet" / "config.json").write_text(text)
    with pytest.raises(Refused, match=r"unet/config\.json: it is damaged"):
        config_of(open_model(tmp_path))


def test_another_samplers_schedule_is_replaced_aloud(tmp_path) -> None:
    saved_pipeline(tmp_path, beta_schedule="linear")
    with pytest.warns(UserWarning, match="v1's noise schedule is used in place .* 'linear'") as w:
        assert config_of(open_model(tmp_path)).schedule == V1.schedule
    assert w[0].filename == __file__
