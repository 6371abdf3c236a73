"""Free memory is given back once the engine has been quiet for a while, and not before; an idle engine schedules nothing."""

import asyncio

from corten.api import quiet


class Loop:
    """Time that passes by hand."""

    def __init__(self):
        self.now, self.timers = 100.0, []

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        self.timers.append((self.now + delay, callback))

    def pass_to(self, moment):
        while due := sorted((timer for timer in self.timers if timer[0] <= moment), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = moment


def test_memory_goes_back_when_requests_have_ended_for_two_seconds(monkeypatch):
    loop, given = Loop(), []
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    monkeypatch.setattr(quiet, "give_back", lambda: given.append(loop.now))
    watched = quiet.Quiet()
    for _ in range(5):  # a request a second: never quiet
        watched.asked()
        loop.pass_to(loop.now + 1.0)
    assert not given
    assert len(loop.timers) == 1
    loop.pass_to(200.0)
    assert given == [106.0]
    assert not loop.timers
    watched.asked()
    loop.pass_to(300.0)
    assert given == [106.0, 202.0]
