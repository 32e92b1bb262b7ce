"""Exercises on PFGM++: the weights of its kernel.

Points are rows, x (b, N) and data (m, N).
"""

from minisd.exercises.checking import Check, drawn

check_kernel_weights = Check(
    "my_weights(x, data, sigma, D)", "returns how much each data point weighs at each x, (b, m): "
    "1 / (|x - y|**2 + r**2)**((N + D) / 2) with r = sigma sqrt(D), rows adding up to 1",
    cases=[(drawn(1, 4, 3), drawn(2, 6, 3), 0.7, 5), (drawn(3, 4, 2), drawn(4, 6, 2), 1.3, 1)],
    praise="These weights times the data are the exact denoiser.",
    mistakes={
        "r is sigma sqrt(D): without the root, sigma means another level for each D.": (" * D", ""),
        "The power is half of N + D, for |x - y|**2 + r**2 is a square already.": (" / 2", ""),
        "The weights of one x over all data points add up to 1.": ("sum(1", "sum(0")},
    hints=("a distance for every pair, (b, m); a power of it; then every row divided by its sum.",
           "torch.cdist(x, data).square() + sigma**2 * D, and N is x.shape[1]."),
    solution="""\
        squares = torch.cdist(x, data).square() + `sigma ** 2 * D`
        weights = squares ** (-(`x.shape[1] + D`) / 2)
        return weights / weights.sum(`1`, keepdim=True)""")
