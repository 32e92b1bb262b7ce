"""Exercises on comparing models: differences in standard errors, and published numbers."""

from minisd.exercises.checking import Check, Words

check_gap = Check(
    "my_gap(a, b, n)", "returns the difference a - b of two shares of n prompts each, in standard "
    "errors sqrt(2 * p * (1 - p) / n), where p is the share of both together",
    cases=[(0.5, 0.4, 192), (0.1, 0.3, 100)],
    praise="Equal models come out more than 2 apart in about one of twenty comparisons.",
    mistakes={
        "Two shares scatter, not one: their variances add up, hence the 2.": ("2 * p", "p"),
        "p is the share of both together: the mean of a and b.": ("(a + b) / 2", "a"),
        "Keep the sign: below 0 means that b is better.": ("(a - b)", "abs(a - b)"),
        "A standard error is a square root.": (" ** 0.5", "")},
    hints=("first the share p that both would have if they were equally good.",
           "the variance of one share is p * (1 - p) / n, of a difference twice that."),
    solution="""\
        p = `(a + b) / 2`
        return (a - b) / (`2` * p * (1 - p) / n) ** 0.5""")

check_why_not_comparable = Words(
    "MDTv2 has 1.58 on ImageNet, PFGM++ 1.74 on CIFAR-10. Why does that not say that MDTv2 is the "
    "better method?",
    "an FID belongs to one data set at one size. The networks, their training and guidance differ "
    "too, and each of these moves it. Only runs that differ in the method alone compare methods.")
