"""Exercises on flow matching: what a predicted velocity says of the data."""

from minisd.exercises.checking import Check, Words, drawn

check_flow_x0 = Check(
    "my_x0(z, velocity, t)", "returns the x0 that a predicted velocity, noise - x0, implies in "
    "z = (1 - t) x0 + t noise",
    cases=[(drawn(1, 5, 2), drawn(2, 5, 2), 0.3), (drawn(3, 5, 2), drawn(4, 5, 2), 0.8)],
    praise="The line is followed back to its end, and t is how far away that is.",
    mistakes={
        "That is the other end of the line, the noise.": ("- t", "+ (1 - t)"),
        "The velocity points to the noise: go against it.": ("- t", "+ t"),
        "At t the data is t away, and the noise 1 - t.": ("- t", "- (1 - t)")},
    hints=("z is a point on a line, and the velocity is what the line does in one unit of t.",
           "from t back to 0 a point that moves with the velocity goes -t times it."),
    solution="return z - `t` * `velocity`")

check_why_bent = Words(
    "the network learns from straight lines. Why are its paths bent?",
    "many lines run through one place, each with another velocity, and the network can only give "
    "their mean. Paths of one field never cross, so where lines would cross they bend apart.")
