from labctl.api.call import Answer
from labctl.api.kept import _ROOM, KeptAnswers

VERSION = (1, 1)


def test_many_long_questions_take_no_more_room_than_there_is():
    kept = KeptAnswers()
    question = "x" * 2**20
    for number in range(64):
        key = ("https://lab", "/path", f"{number}{question}")
        kept.keep(key, VERSION, Answer(body={"value": []}))
    held = sum(len(text) for key in kept._answers for text in key)
    assert 0 < held <= _ROOM


def test_many_small_questions_take_no_more_room_than_there_is():
    kept = KeptAnswers()
    for number in range(_ROOM // 1024 + 10):
        kept.keep(("", "", str(number)), VERSION, Answer(body=[]))
    assert len(kept._answers) < _ROOM // 1024
