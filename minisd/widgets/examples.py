"""Prompts that suit the model at hand, so that a notebook needs no edit when the model changes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Examples:
    """What the notebooks ask a model to paint."""

    prompt: str                     # the first picture
    negative_prompt: str            # what its picture should not show
    edited_prompt: str              # for image-to-image, from that picture
    edited_negative_prompt: str
    repainted_prompt: str           # for inpainting: one thing of the first picture is another
    keyword_prompts: tuple[str, str]            # that differ in one keyword
    story_prompt: str               # for looking into one run, from noise to picture
    story_word: str                 # a thing in it
    story_negative_prompt: str
    seed: int
    word_order: tuple[str, str]     # the same words, and another meaning
    sentences: tuple[str, ...]      # near in meaning and far
    limits: tuple[tuple[str, str], ...]     # what it is asked, and a prompt that it may fail
    silent_prompt: str              # leaves open what the model then fills in by habit


TOYWORLD = Examples(
    prompt="a red car below a yellow balloon",
    negative_prompt="the sea",
    edited_prompt="a car below a yellow balloon at night",
    edited_negative_prompt="yellow",
    repainted_prompt="a red car below a purple star",
    keyword_prompts=("a red car below a yellow balloon", "a blue car below a yellow balloon"),
    story_prompt="a red car below a yellow balloon in the sky",
    story_word="balloon",
    story_negative_prompt="",
    seed=3,
    word_order=("a red car below a yellow balloon", "a yellow car below a red balloon"),
    sentences=("a red car below a yellow balloon", "a yellow balloon above a red car",
               "a yellow car below a red balloon", "a red car", "a car", "a purple boat at sea",
               "a blue fish in the sea", "a starry night"),
    limits=(("text in a picture", "the word hello on a white background"),
            ("words never seen", "a zebra on the grass"),
            ("another language", "ein rotes auto am meer"),
            ("a held-out pair", "a green car left of a blue tree"),
            ("counting", "three yellow stars at night")),
    silent_prompt="a red car",
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
    repainted_prompt="funny photo of a cute fluffy dog enjoying a morning croissant and drinking "
                     "coffee in a balcony with breathtaking view, 3d render, cinematic, "
                     "hyperdetailed, cartoon, animation, pixar disney render",
    keyword_prompts=("a cute bunny", "a cute bunny in the style of cute pixar character"),
    story_prompt="Red convertible car parked near hot air balloons",
    story_word="car",
    story_negative_prompt="Images cut out at the top, left, right, bottom, bad composition, "
                          "watermark, out of frame, unreal engine, unnatural",
    seed=1234,
    word_order=("a photo of a dog on a horse", "a photo of a horse on a dog"),
    sentences=("a photo of a dog on a horse", "a picture of a dog riding a horse",
               "a photo of a horse on a dog", "a dog", "a puppy", "a sailing boat at sea",
               "a goldfish", "a starry night"),
    limits=(("text in a picture", 'a shop sign that says "open"'),
            ("composition", "a red cube on top of a blue sphere"),
            ("another language", "ein rotes Auto am Meer"),
            ("faces and hands", "a photo of five people waving their hands"),
            ("counting", "exactly seven apples on a table")),
    silent_prompt="a photo of a wedding",
)


def examples(model_name: str) -> Examples:
    """The examples for `sd.config.name`; a model that is not toyworld speaks v1's language."""
    return TOYWORLD if model_name == "toyworld" else V1
