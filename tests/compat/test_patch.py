"""A replaced attribute is put back behind its last user, whatever comes between, and stays inert where it can't be."""

from __future__ import annotations

import contextlib
import functools
import random
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import pytest

from mlflow_hp._compat.patch import MethodPatch, Patch


class Base:
    def inherited(self, x):
        return x


def kind():
    class Kind(Base):
        def method(self, x):
            return [x]

        def nest(self, other, x):
            return other.method(x)

    return Kind


class Counted:
    """A patch of `Kind.method` that counts how often it acts."""

    def __init__(self, name="method"):
        self.n = 0
        self.patch = MethodPatch(name, self.act)

    def act(self, original, *arguments, **named):
        self.n += 1
        return original(*arguments, **named)


def theirs(owner, name="method"):
    """Somebody else's patch, as with functools.wraps; gives what takes it away."""
    before = owner.__dict__[name]

    @functools.wraps(before)
    def around(*arguments, **named):
        return before(*arguments, **named)

    setattr(owner, name, around)
    return lambda: setattr(owner, name, before)


@pytest.mark.parametrize("name", ["method", "inherited"])
def test_it_is_put_back_behind_the_last_of_several_users_in_any_order(name):
    owner, ours = kind(), Counted(name)
    before = vars(owner).get(name)
    ours.patch.enter(owner)
    first = getattr(owner, name)
    ours.patch.enter(owner)
    assert getattr(owner, name) is first
    ours.patch.leave(owner)  # whichever of the two it was
    getattr(owner(), name)(1)
    assert ours.n == 1
    ours.patch.leave(owner)
    assert vars(owner).get(name) is before
    getattr(owner(), name)(1)
    assert ours.n == 1


def test_it_is_put_back_behind_an_error():
    owner, ours = kind(), Counted()
    before = owner.method
    with pytest.raises(ZeroDivisionError), ours.patch.on(owner), ours.patch.on(owner):
        1 / 0  # noqa: B018
    assert owner.method is before


def test_users_in_many_threads():
    owner, ours = kind(), Counted()
    before, barrier, wrong = owner.method, threading.Barrier(8), []

    def use(seed):
        order = random.Random(seed)  # noqa: S311
        barrier.wait()
        for _ in range(200):
            with contextlib.ExitStack() as stack:
                for _ in range(order.randint(1, 3)):
                    stack.enter_context(ours.patch.on(owner))
                if owner.method is before or owner().method(seed) != [seed]:
                    wrong.append(seed)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert owner.method is before
    assert ours.n == 8 * 200


def test_somebody_elses_on_top_stays_and_ours_below_does_nothing():
    owner, ours = kind(), Counted()
    before = owner.method
    with ours.patch.on(owner):
        take_away = theirs(owner)
        top = owner.method
        owner().method(1)
        assert ours.n == 1
    assert owner.method is top
    assert owner().method(2) == [2]
    assert ours.n == 1
    with ours.patch.on(owner):  # acts again, once, and theirs is there afterwards
        owner().method(3)
    assert ours.n == 2
    assert owner.method is top
    take_away()  # they put back what they found: ours
    assert owner().method(4) == [4]
    assert ours.n == 2
    with ours.patch.on(owner):
        pass
    assert owner.method is before


def test_ours_above_and_below_somebody_elses_acts_once_in_a_call():
    owner, ours = kind(), Counted()
    before = owner.method
    with ours.patch.on(owner):
        take_away = theirs(owner)
        with ours.patch.on(owner):
            owner().method(1)
            assert ours.n == 1
            one = owner()
            one.method(one.method(2))
            assert ours.n == 3
        owner().method(1)
        assert ours.n == 4
        take_away()
        owner().method(1)
        assert ours.n == 5
    assert owner.method is before


@pytest.mark.parametrize("is_covered", [False, True])
def test_calls_inside_of_calls_act_each(is_covered):
    owner, ours = kind(), Counted("nest")
    one, last = owner(), types.SimpleNamespace(method=lambda x: x)
    nesting = types.SimpleNamespace(method=lambda x: one.nest(last, x))
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours.patch.on(owner))
        if is_covered:
            theirs(owner, "nest")
            stack.enter_context(ours.patch.on(owner))
        assert one.nest(nesting, 1) == 1
    assert ours.n == 2


def test_somebody_who_put_the_original_back_meanwhile():
    owner, ours = kind(), Counted()
    before = owner.method
    with ours.patch.on(owner):
        owner.method = before
        with ours.patch.on(owner):
            owner().method(1)
            assert ours.n == 1
    assert owner.method is before
    owner().method(1)
    assert ours.n == 1


def test_a_value_of_a_module():
    module = types.ModuleType("module")
    module.random = random
    patch = Patch("random", lambda _: random.Random())  # noqa: S311
    with patch.on(module):
        assert isinstance(module.random, random.Random)
    assert module.random is random


def test_a_forked_child_while_another_thread_holds_the_lock():
    """In a process of its own: what tests have loaded by now does not outlive a fork."""
    program = """
        import os, threading
        from mlflow_hp._compat.patch import Patch

        class Owner:
            def method(self): ...

        def make(original):  # while the patch is locked
            held.set()
            if threading.current_thread() is thread:
                done.wait()
            return lambda owner: original(owner)

        before = Owner.method
        held, done = threading.Event(), threading.Event()
        patch = Patch("method", make)
        thread = threading.Thread(target=lambda: patch.enter(Owner))
        thread.start()
        held.wait()
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            done.set()
            thread.join()
            raise SystemExit(os.waitstatus_to_exitcode(status))
        with patch.on(Owner):
            is_replaced = Owner.method is not before
        os._exit(0 if Owner.method is before and is_replaced else 1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
