"""How a check speaks: to nothing, to a first try, to a fifth one, to an error, and to a grader."""

import functools

import numpy as np
import pytest
import torch

from minisd.exercises.checking import Check, Verdict, Words, drawn

WORDS = Words("why is the sky blue?", "air scatters blue light most.")


def scaled(x, factor):
    return x * factor


@pytest.fixture
def check() -> Check:
    return Check("my_scaled(x, factor)", "returns x, scaled", right=scaled,
                 cases=[(drawn(1), 3.0), (drawn(2), 0.5)],
                 mistakes={"You divided.": ("*", "/"),
                           "You drew noise.": "return torch.randn_like(x) * factor",
                           "You forgot x, or half of it.": [("x * ", ""), ("x", "x / 2")]},
                 hints=("the nudge", "the idea"), solution="return `x` * factor")


@pytest.fixture
def counting() -> Check:
    return Check("my_count(names)", "returns how often each stands there", right=len,
                 cases=[(["a", "b"],), ([],)], mistakes={}, hints=("", ""), solution="")


def not_begun(x, factor):
    """A docstring is no answer."""
    ...                                 # and neither is a comment


def refused(x, factor):
    raise NotImplementedError


def forgetful(x, factor):
    x = x * factor


def added(x, factor):
    return x + factor


# An exercise that nobody began

@pytest.mark.parametrize("answer", [None, ..., not_begun, refused, lambda x, factor: ...])
def test_what_is_not_begun_is_told_what_to_do_and_nothing_more(check: Check, answer) -> None:
    for _ in range(6):
        verdict = check(answer)
        assert not verdict
        assert str(verdict) == "Not yet. Write it: my_scaled(x, factor) returns x, scaled."


def test_a_forgotten_return_is_named(check: Check) -> None:
    assert "add a `return`" in check(forgetful).message


# Hints

def test_each_new_wrong_answer_gets_the_next_hint_and_the_answer_comes_last(check: Check) -> None:
    said = [check(lambda x, factor, i=i: x + i).message for i in range(5)]
    for message, hint in zip(said, ["Hint 1 of 3: the nudge", "Hint 2 of 3: the idea",
                                    "Hint 3 of 3: fill the gaps."], strict=False):
        assert hint in message and "return x" not in message
    assert "    return ___ * factor" in said[2]
    assert "The answer:\ndef my_scaled(x, factor):\n    return x * factor" in said[3]
    assert "The answer:" in said[4]


def test_the_same_answer_again_and_none_at_all_are_no_further_tries(check: Check) -> None:
    for _ in range(3):
        assert "Hint 1" in check(added).message
    check(None)
    assert "Hint 2" in check(lambda x, factor: x + 1).message


def test_a_right_answer_in_between_takes_no_hint_away(check: Check) -> None:
    """A notebook checks the package's own answer beside the learner's."""
    assert "Hint 1" in check(added).message
    verdict = check(scaled)
    assert verdict and verdict.right and str(verdict) == "Right. It agrees with the package."
    assert "Hint 1" in check(added).message
    assert "Hint 2" in check(lambda x, factor: x).message


# What is wrong

def test_mistakes_are_named_all_their_functions_and_random_ones(check: Check) -> None:
    assert "You divided." in check(lambda x, factor: x / factor).message
    assert "You forgot x" in check(lambda x, factor: factor).message
    assert "You forgot x" in check(lambda x, factor: 0.5 * factor * x).message
    assert "You drew noise." in check(lambda x, factor: factor * torch.randn(x.shape)).message


@pytest.mark.parametrize(("answer", "said"), [
    (scaled(drawn(1), 2.0), "Hand over the function itself, my_scaled, without brackets."),
    (lambda x, factor: (x * factor)[0], "shape (4, 3, 5), expected (1, 4, 3, 5). Is a sum"),
    (lambda x, factor: (x * factor)[None], "shape (1, 1, 4, 3, 5), expected (1, 4, 3, 5)."),
    (lambda x, factor: x / 0, "not finite"),
    (lambda x, factor: "many", "'many', expected a tensor"),
    (lambda x, factor: -x * factor, "everywhere -1 times the right one"),
    (lambda x, factor: x * factor + 2, "everywhere 2 more than the right one"),
    (lambda x, factor: x.sin(), "values differ by up to"),
    (lambda x, factor: x + torch.rand(()), "draws random numbers of its own"),
    (lambda x: x, "Your function raises TypeError: ")])
def test_what_has_no_name_is_described(check: Check, answer, said: str) -> None:
    assert said in check(answer).message


def test_plain_values_are_told_with_their_case(counting: Check) -> None:
    assert "my_count(['a', 'b']) gives 3, but 2 is right." in counting(lambda names: 3).message
    assert "gives 'ab', but 2 is right." in counting("".join).message


def test_other_forms_of_a_value_are_as_good(check: Check, counting: Check) -> None:
    assert check(lambda x, factor: (x * factor).numpy())
    assert check(lambda x, factor: (x * factor).double().requires_grad_())
    assert check(lambda x, factor: (x * factor).tolist())
    assert check(functools.partial(lambda one, x, factor: one * x * factor, 1))
    listed = Check("f()", "", cases=[()], mistakes={}, hints=("", ""), solution="return [1, 4]")
    for answer in (lambda: (1, 4), lambda: {4, 1}, lambda: range(1, 5, 3), lambda: np.array([1, 4]),
                   lambda: (i * i for i in (1, 2)), lambda: torch.tensor([1, 4])):
        assert listed(answer), answer
    assert not listed(lambda: (4, 1))


# Errors

def columnless(x, factor):
    weights = torch.ones(4)
    return weights * x


def transposeless(x, factor):
    return torch.ones(3, 5) @ torch.ones(3, 5)


def divided(x, factor):
    y = x * factor
    return y * (1 // 0)


@pytest.mark.parametrize(("answer", "said"), [
    (columnless, "`return weights * x`, combines tensors whose sizes 4 and 5 do not match. Does"),
    (transposeless, "is a transpose missing"),
    (divided, "`return y * (1 // 0)`, raises ZeroDivisionError: ")])
def test_an_error_becomes_one_sentence_with_its_line(check: Check, answer, said: str) -> None:
    message = check(answer).message
    assert said in message and "must match the size" not in message
    assert f"Line {answer.__code__.co_firstlineno + 2 - (answer is transposeless)}, " in message


def test_an_answer_cannot_change_the_cases_nor_the_random_numbers(check: Check) -> None:
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    for _ in range(2):
        assert check(lambda x, factor: x.mul_(factor))
        check(lambda x, factor: torch.randn(2))
    assert torch.equal(torch.randn(2), expected)


# Sentences

@pytest.mark.parametrize("sentence", [
    "Air scatters blue light more than red.", "Weil die Luft blaues Licht stärker streut.",
    "因为空气散射蓝光比红光更多一些。", "porque el aire dispersa más la luz azul"])
def test_any_sentence_is_taken_and_answered(sentence: str) -> None:
    verdict = WORDS(sentence)
    assert verdict and verdict.message.endswith("with ours: air scatters blue light most.")


@pytest.mark.parametrize("sentence", [None, ..., "", "no idea", "x" * 50, "so so so so so so", 3])
def test_a_sentence_that_is_none_is_asked_for(sentence) -> None:
    verdict = WORDS(sentence)
    assert not verdict and "why is the sky blue?" in verdict.message
    assert "scatters" not in verdict.message


# Grading

def test_grading_raises_what_is_wrong_or_missing(check: Check, monkeypatch) -> None:
    monkeypatch.setenv("MINISD_GRADING", "1")
    assert check(scaled) and WORDS("Air scatters blue light more than red.")
    with pytest.raises(AssertionError, match="Not yet. You divided."):
        check(lambda x, factor: x / factor)
    for missing in (None, not_begun):
        with pytest.raises(AssertionError, match="Not yet. Write it: my_scaled"):
            check(missing)
    with pytest.raises(AssertionError, match="why is the sky blue"):
        WORDS("")
    monkeypatch.setenv("MINISD_GRADING", "0")
    assert not check(None)


def test_lines_break_between_words_and_code_stays_as_it_is() -> None:
    lines = str(Verdict(True, "word " * 40 + "\n    return [x,  y]")).split("\n")
    assert len(lines) == 4 and max(map(len, lines)) <= 96 and lines[-1] == "    return [x,  y]"
