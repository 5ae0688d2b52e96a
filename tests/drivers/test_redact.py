"""Secrets are taken out of texts."""

import json

from labctl.drivers.redact import MASK, Redactor


def test_a_secret_is_replaced_in_each_form_that_it_takes():
    redactor = Redactor(['p"ss word/1', "line one\nline two"])
    text = f'a p"ss word/1 b {json.dumps("p" + chr(34) + "ss word/1")} c p%22ss%20word%2F1 line two'
    assert redactor.redact(text) == f'a {MASK} b "{MASK}" c {MASK} {MASK}'


def test_the_longest_goes_first_and_short_ones_stay():
    redactor = Redactor(["abcd", "abcdefgh", "1"])
    assert redactor.redact("abcdefgh 1 abcd") == f"{MASK} 1 {MASK}"


def test_an_output_that_was_cut_does_not_begin_with_the_end_of_a_secret():
    redactor = Redactor(["s3cret-token"])
    assert redactor.redact("ret-token and more", is_cut=True) == f"{MASK} and more"
    assert redactor.redact("ret-token and more") == "ret-token and more"
    assert redactor.redact("nothing", is_cut=True) == "nothing"
