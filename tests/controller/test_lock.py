import multiprocessing
import os
import signal

from labctl.controller.lock import find_holder, try_lock
from labctl.settings import Settings


def settings(tmp_path):
    return Settings(state_dir=tmp_path, uri="test:///default")


def _hold(path, ready):
    with try_lock(settings(path), "web") as is_ours:
        ready.put(is_ours)
        signal.pause()


def test_one_process_holds_the_lock_and_death_gives_it_back(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.get(timeout=60) is True
    with try_lock(settings(tmp_path), "web") as is_ours:
        assert not is_ours
    assert find_holder(settings(tmp_path), "web") == holder.pid
    with try_lock(settings(tmp_path), "other") as is_ours:
        assert is_ours
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with try_lock(settings(tmp_path), "web") as is_ours:
        assert is_ours


def test_nobody_has_ever_held_a_new_lock(tmp_path):
    assert find_holder(settings(tmp_path), "web") is None
