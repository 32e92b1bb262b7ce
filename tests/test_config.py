"""Presets are data: they survive JSON, cannot be changed, and hold v1's published sizes."""

import dataclasses
import json

import pytest

from minisd.config import TOYWORLD, V1, Config, from_dict, to_dict


@pytest.mark.parametrize("name", ["v1", "toyworld", "tiny"])
def test_a_configuration_survives_json(name: str, tiny: Config) -> None:
    config = {"v1": V1, "toyworld": TOYWORLD, "tiny": tiny}[name]
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert hash(again) == hash(config)          # lists have become tuples again


def test_defaults_may_be_left_out(tiny: Config) -> None:
    data = to_dict(V1)
    del data["schedule"], data["image_tower"]
    assert from_dict(data) == V1


@pytest.mark.parametrize("part", [None, "text", "vae", "unet", "schedule", "image_tower"])
def test_unknown_and_missing_fields_are_refused(part: str | None, tiny: Config) -> None:
    unknown = to_dict(tiny)
    (unknown[part] if part else unknown)["colour"] = "red"
    with pytest.raises(TypeError, match="colour"):
        from_dict(unknown)
    if part == "schedule":                      # all of its fields have defaults
        return
    missing = to_dict(tiny)
    field = {None: "unet", "text": "width", "vae": "groups", "unet": "heads",
             "image_tower": "layers"}[part]
    del (missing[part] if part else missing)[field]
    with pytest.raises(TypeError, match=field):
        from_dict(missing)


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        V1.unet.heads = 5  # type: ignore[misc]


def test_v1_has_its_published_sizes() -> None:
    assert (V1.text.start_id, V1.text.end_id) == (49406, 49407)
    assert V1.text.max_length == 77
    assert V1.vae.downscale == 8
    assert V1.vae.scale_factor == 0.18215
    assert V1.text.heads == 12          # no parameter count shows the numbers of heads and groups
    assert V1.unet.groups == V1.vae.groups == 32
    assert [c // V1.unet.heads for c in V1.unet.channels] == [40, 80, 160, 160]
    assert len(V1.unet.attention) == len(V1.unet.channels)
    assert V1.unet.context_dim == V1.text.width == 768
    assert (V1.schedule.beta_start, V1.schedule.beta_end, V1.schedule.timesteps) == (
        0.00085, 0.012, 1000)


@pytest.mark.parametrize("config", [V1, TOYWORLD], ids=lambda c: c.name)
def test_parts_of_a_preset_fit_each_other(config: Config) -> None:
    assert config.unet.context_dim == config.text.width
    assert config.unet.latent_channels == config.vae.latent_channels
    assert len(config.unet.attention) == len(config.unet.channels)
    assert config.vae.downscale == 8
    assert config.image_size % config.vae.downscale == 0
    for network in (config.unet, config.vae):
        assert all(c % network.groups == 0 for c in network.channels)
    assert all(c % config.unet.heads == 0 for c in config.unet.channels)
    assert config.text.width % config.text.heads == 0
    if config.image_tower:
        assert config.image_tower.image_size == config.image_size
        assert config.image_tower.projection_dim == config.text.projection_dim
