"""What came beside and after Stable Diffusion v1: flow matching, PFGM++, masked transformers."""
