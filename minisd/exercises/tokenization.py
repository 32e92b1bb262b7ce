"""Exercises on tokens: a merge of byte-pair encoding, and the 77 ids of a prompt."""

from minisd.exercises.checking import Check
from minisd.observe.tokens import join

check_merge = Check(
    "my_merge(symbols, pair)", "returns the list in which every such pair is one symbol",
    right=join,
    cases=[(["a", "b", "a", "b", "c"], ("a", "b")), (["n", "n", "n"], ("n", "n")),
           (["x", "y</w>"], ("a", "b")), (["xa", "b", "a", "b"], ("a", "b")), (["a"], ("a", "b"))],
    mistakes={
        "You joined the first pair only; a word may hold more.":
            ("== pair", "== pair and ''.join(pair) not in result"),
        "You kept the second symbol as well: step over both.": ("2 if together else 1", "1"),
        "You replace in joined text, which also finds the pair inside longer symbols.":
            "return ' '.join(symbols).replace(' '.join(pair), ''.join(pair)).split()"},
    hints=("walk along the symbols with an index of your own, and look at two at a time.",
           "where two are the pair, add one new symbol and step over both; else add one, step on."),
    solution="""\
        result, i = [], 0
        while i < len(symbols):
            together = tuple(symbols[`i:i + 2`]) == pair
            result.append(`pair[0] + pair[1]` if together else symbols[i])
            i += `2` if together else 1
        return result""")

check_pad = Check(
    "my_pad(ids)", "returns the 77 ids that CLIP sees, in a list", tolerance=0.0,
    cases=[([320, 2242, 9258],), (list(range(400, 475)),), (list(range(1000, 1090)),), ([],)],
    mistakes={
        "You pad but never cut: CLIP takes 77 ids, so a longer prompt loses its last.":
            ("[:75]", ""),
        "You cut too late: the end token is lost.":
            "return ([49406, *ids, 49407] + [49407] * (75 - len(ids)))[:77]",
        "0 is the id of a letter. CLIP pads with the end token.": ("[49407]", "[0]"),
        "You did not pad.": (" + [49407] * (75 - len(ids))", "")},
    hints=("what has to be there besides the words, and what happens to a prompt of 90 ids?",
           "start, at most 75 of the prompt's ids, end; then the end again until there are 77."),
    solution="return [49406, *ids[:`75`], 49407] + [`49407`] * (75 - len(ids))")
