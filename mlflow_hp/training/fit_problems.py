"""Problems of the recording of one fit: what is noted for its run, and each warned of once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp._notice import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class FitProblems:
    """Notes the problems of one fit's recording, and warns of them.

    Attributes
    ----------
    messages : list of str
        Those noted so far, in their order.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._warned: set[str] = set()

    def note(self, message: str) -> None:
        """Note a problem; `warn_of_noted` warns of it."""
        self.messages.append(message)

    def note_new(self, messages: Iterable[str]) -> None:
        """Note those problems that are not noted yet."""
        self.messages += [message for message in messages if message not in self.messages]

    def attempt(self, consequence: str, do: Callable[[], Any]) -> Any:
        """Do one part of the recording; on an error, note it and return None, so that the other parts are done.

        Parameters
        ----------
        consequence : str
            Consequence of an error, in words.
        do : callable
            Does that part.

        Returns
        -------
        object
            What `do` returns.
        """
        try:
            return do()
        except Exception as error:  # noqa: BLE001
            self.note(f"{consequence}: {type(error).__name__}: {error}")
            return None

    def warn(self, sentence: str) -> None:
        """Warn now, from any thread; if the warning becomes an error, `warn_of_noted` warns of the problem again."""
        if warn(sentence):
            self._warned.add(sentence)

    def warn_of_noted(self) -> None:
        """Warn of each noted problem of which there was no warning."""
        for problem in self.messages:
            if problem not in self._warned:
                self._warned.add(problem)
                warn(problem)
