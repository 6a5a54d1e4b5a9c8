import contextlib
import signal
import threading

import pytest

from speech_ed_flax.training.preemption import Preemption


@pytest.fixture(autouse=True)
def heard_interrupts():
    """Undoes what a shell does to the jobs it starts in the background: they ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_stays_so(number):
    with Preemption() as preemption:
        assert (preemption.reached(1), preemption.signal) == (False, None)
        signal.raise_signal(number)
        assert (preemption.reached(2), preemption.reached(3)) == (True, True)
        assert preemption.signal == number


def test_the_first_signal_is_the_one_that_is_told():
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert preemption.signal == signal.SIGTERM


def test_a_second_interrupt_interrupts_at_once():
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert preemption.signal == signal.SIGINT


def test_the_handlers_of_before_come_back():
    def own(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        interrupt = signal.getsignal(signal.SIGINT)
        with contextlib.suppress(RuntimeError), Preemption():
            assert signal.getsignal(signal.SIGTERM) is not own
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            signal.raise_signal(signal.SIGINT)
            assert not preemption.reached(1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_changed():
    before, found = signal.getsignal(signal.SIGTERM), []

    def enter():
        with Preemption() as preemption:
            found.append((signal.getsignal(signal.SIGTERM), preemption.reached(1)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(before, False)]
