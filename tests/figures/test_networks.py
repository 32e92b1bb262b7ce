"""The networks drawn, and the path: their blocks are those of the networks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from drawn import ink, title

from minisd import figures
from minisd.config import TOYWORLD, V1, UNetConfig, VAEConfig
from minisd.figures import networks
from minisd.figures.path import STATIONS
from minisd.observe import summary
from minisd.unet import UNet
from minisd.vae import VAE


@pytest.mark.parametrize(("config", "size"), [
    (TINY.unet, (7, 9)), (TOYWORLD.unet, (16, 16)), (V1.unet, (64, 64)),
    (replace(TINY.unet, channels=(6,), attention=(True,)), (32, 24))])
def test_the_drawing_has_the_blocks_of_the_network(config: UNetConfig, size) -> None:
    with torch.device("meta"):
        network = UNet(config)
    boxes = networks.unet_boxes(config, size)
    rows = [row for row in summary.cost(network, latent_size=size)
            if row.kind in ("ResBlock", "Downsample", "Upsample") or row.name in ("conv_in",
                                                                                  "conv_out")]
    assert [box.shape for box in boxes] == [row.output_shape[1:] for row in rows]
    drawn = [box for box in boxes if box.kind == "layer"]
    in_order = [network.get_submodule(row.name.removesuffix(".resnet")) for row in rows
                if row.kind == "ResBlock"]
    assert [box.channels_in for box in drawn] == [m.resnet.conv1.in_channels for m in in_order]
    assert [box.attention for box in drawn] == [m.attention is not None for m in in_order]
    put = {box.skip: box for box in boxes if box.side == "down"}
    taken = [box for box in boxes if box.side == "up" and box.skip >= 0]
    assert [box.skip for box in taken] == sorted(put, reverse=True)
    assert all(put[box.skip].shape[1:] == box.shape[1:] for box in taken)


def test_the_map_says_where_the_prompt_is_read(tmp_path: Path) -> None:
    figure = figures.unet_map(V1.unet, (64, 64))
    assert title(figure) == ("12 skips lead across the U; at the bottom 64 cells of 1,280 numbers "
                             "stand for 4,096 of 4")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "64 x 64 cells\nread the prompt" in words and words.count("2560") == 5
    assert "8 x 8 cells\nthe middle reads the prompt" in words
    assert "16 x 16 cells\nno attention" in [
        text.get_text() for text in figures.unet_map(TOYWORLD.unet, (16, 16)).axes[0].texts]
    assert 0.03 < ink(figure, tmp_path) < 0.5


@pytest.mark.parametrize(("config", "side"), [(TOYWORLD.vae, 128), (V1.vae, 512)])
def test_the_autoencoder_has_every_size_on_its_way(config: VAEConfig, side: int, tmp_path) -> None:
    with torch.device("meta"):
        rows = summary.cost(VAE(config), latent_size=(side // 8, side // 8))
    seen = {f"{row.output_shape[1]} x\n{row.output_shape[2]} x {row.output_shape[3]}"
            for row in rows if row.output_shape and row.kind == "ResBlock"}
    figure = figures.vae_map(config, side)
    drawn = {text.get_text() for text in figure.axes[0].texts}
    ends = {f"{config.channels[i]} x\n{side >> i} x {side >> i}" for i in range(4)}
    assert ends <= drawn and seen & ends and "latents" in drawn
    assert "48 times fewer" in title(figure) and ink(figure, tmp_path) > 0.03


def test_the_path_lights_its_stations(tmp_path: Path) -> None:
    dark, lit = (ink(figures.path_map(*here), tmp_path) for here in ((), ("UNet", "VAE")))
    assert dark < lit
    shown = figures.path_map("UNet")._repr_png_()[1]["alt"], figures.path_map(*STATIONS)
    assert (shown[0], title(shown[1])) == ("From a prompt to a picture; this page: UNet",
                                           "From a prompt to a picture")
    with pytest.raises(ValueError, match="no station 'unet' on the map: expected prompt"):
        figures.path_map("unet")
    assert {kind for *_, kind, _ in STATIONS.values()} == {"text", "noise", "time", "latent",
                                                              "picture"}
