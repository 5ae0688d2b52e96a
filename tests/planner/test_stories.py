"""Golden stories: a whole run, compared line by line.

After a change that is meant, write them anew with LABCTL_WRITE_STORIES=1 and read the difference.
"""

import os
from pathlib import Path

import pytest

from tests.planner.stories import STORIES, Story, tell

FOLDER = Path(__file__).parent / "stories"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_story_goes_as_written_down(story: Story):
    file = FOLDER / f"{story.__name__}.txt"
    told = tell(story)
    if os.environ.get("LABCTL_WRITE_STORIES"):
        file.write_text(told)
    assert told == file.read_text()


def test_every_golden_file_has_a_story():
    assert {f.stem for f in FOLDER.glob("*.txt")} == {story.__name__ for story in STORIES}
