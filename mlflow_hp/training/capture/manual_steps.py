"""Steps of a training loop that the program has written itself, as it reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.keras import is_built
from mlflow_hp.delivery.signals import forget_raised, raise_waiting
from mlflow_hp.training.capture.host_reader import HostReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.history.step_record import Layout, Rows
    from mlflow_hp.training.capture import CaptureSettings
    from mlflow_hp.training.capture.glances import OnGlance


class ManualSteps:
    """Records a step when `record` is called after it; in place of `Steps`, which reads those of ``fit``.

    Parameters
    ----------
    model : keras.Model
        The model that is trained.
    settings : CaptureSettings
        What to read.
    optimizers : dict of str to keras.optimizers.Optimizer
        Optimizers of the loop, by name.
    on_layout, on_rows, on_glance : callable
        As for `Steps`.
    before_step : callable
        Called before each step.
    """

    def __init__(
        self,
        model: Any,
        settings: CaptureSettings,
        optimizers: Mapping[str, Any],
        *,
        on_layout: Callable[[Layout], None],
        on_rows: Callable[[Rows], None],
        on_glance: OnGlance | None = None,
        before_step: Callable[[], None],
    ) -> None:
        self.optimizers = dict(optimizers)
        self.kind = HostReader.kind
        self._model = model
        self._before_step = before_step
        self._reader = HostReader(model, settings, None, optimizers)
        self._reader.connect(on_layout, on_rows, on_glance)

    @property
    def steps_done(self) -> int:
        """Steps so far."""
        return self._reader.steps_done

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the record; empty before they are known."""
        return self._reader.columns

    def start(self, first_step: int) -> None:
        """Begin; `first_step` is the number of the first step in its run (0-based)."""
        forget_raised()
        self._reader.start(first_step)
        self._before()

    def begin_epoch(self, epoch: int) -> None:
        """The next step belongs to `epoch` (0-based)."""
        self._reader.begin_epoch(epoch)

    def record(self, values: Mapping[str, float]) -> None:
        """Record a step that has just been done, by the columns of its values."""
        self._reader.read_step(values, self.optimizers)
        self._reader.make_room()
        self._before()
        raise_waiting()

    def _before(self) -> None:
        if is_built(self._model):
            self._reader.prepare()
        self._before_step()
        self._reader.before()

    def unseen(self) -> str | None:
        """Describe steps that were not read: none, as the program reports each."""
        return None

    def glance(self) -> None:
        """Pass on the columns of new steps."""
        self._reader.glance()

    def fetch(self) -> None:
        """Pass on the steps read so far."""
        self._reader.fetch()

    def stop(self) -> None:
        """Nothing of the model was replaced."""
