"""Prompts that suit the model at hand, so that a notebook needs no edit when the model changes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Examples:
    """What the notebooks ask a model to paint."""

    prompt: str                     # the first picture
    negative_prompt: str            # what its picture should not show
    edited_prompt: str              # for image-to-image, from that picture
    edited_negative_prompt: str
    story_prompt: str               # for looking into one run, from noise to picture
    story_negative_prompt: str
    seed: int


TOYWORLD = Examples(
    prompt="a red car below a yellow balloon",
    negative_prompt="a cloudy sky",
    edited_prompt="a red car below a yellow balloon at night",
    edited_negative_prompt="",
    story_prompt="a red car below a yellow balloon in the sky",
    story_negative_prompt="",
    seed=5,
)

# The prompts under which v1 is shown in the Wolfram Neural Net Repository ("Stable Diffusion V1").
V1 = Examples(
    prompt="funny photo of a cute fluffy cat enjoying a morning croissant and drinking coffee in "
           "a balcony with breathtaking view, 3d render, cinematic, hyperdetailed, cartoon, "
           "animation, pixar disney render",
    negative_prompt="Images cut out at the top, left, right, bottom, bad anatomy,bad composition, "
                    "poorly rendered face, poorly rendered paws",
    edited_prompt="funny photo of a cute fluffy cat enjoying a morning croissant and drinking "
                  "coffee in a balcony with breathtaking view to the Eiffel Tower, 3d render.",
    edited_negative_prompt="bad view, bad composition, cropped image, missing view, missing cup "
                           "of coffee",
    story_prompt="Red convertible car parked near hot air balloons",
    story_negative_prompt="Images cut out at the top, left, right, bottom, bad composition, "
                          "watermark, out of frame, unreal engine, unnatural",
    seed=1234,
)


def examples(model_name: str) -> Examples:
    """The examples for `sd.config.name`; a model that is not toyworld speaks v1's language."""
    return TOYWORLD if model_name == "toyworld" else V1
