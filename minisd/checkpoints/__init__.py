"""Every file of Stable Diffusion v1 that people have: names, formats, registry, loading."""
