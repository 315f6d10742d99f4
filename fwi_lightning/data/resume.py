"""A training loader that goes on from the batch at which a checkpoint was saved.

Lightning 2.6 saves how many batches of the epoch are done and, on a resume, counts on from there, but leaves
it to the loader to skip them. Its counters were made for checkpoints saved in certain hooks; after a stop
anywhere else (Ctrl-C, an exception, time up on a cluster) they lose or repeat a batch, a validation or an
epoch:
- after a stop inside a batch, the totals stay one ahead, and the next resume drops one batch more;
- after a stop at an epoch's last batch, its validation is skipped;
- after a stop inside a validation, only the rest is validated (or nothing), and that passes for the whole;
- with max_steps, a checkpoint of an epoch's end makes the next epoch empty;
- with accumulated gradients, those of an unfinished step are lost.
So the loader saves what was really done, and before training goes on brings the counters into the one state
that Lightning handles well. Tests of every stop above: tests/data/test_resume.py.
"""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.trainer.states import TrainerStatus
from torch.utils.data import DataLoader

from fwi_lightning.data.sampler import EpochSampler
from fwi_lightning.errors import UserError


class ResumableLoader(DataLoader[dict[str, Any]]):
    """A DataLoader over an `EpochSampler` whose position goes into the trainer's checkpoints.

    Batches that worker processes have read ahead do not count: the position comes from the trainer's finished
    batches.

    Attributes:
        trainer: The trainer that reads it; without one there is no position to save.
    """

    trainer: lightning.Trainer | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint saved now must know to go on exactly. Lightning calls this.

        Returns:
            Plain numbers: epoch; consumed, the samples of it that all ranks together have trained on;
            finished, whether that is the whole epoch; validated, whether a validation due after them is done;
            stepped, Lightning's count of steps for its loggers; samples, the size of the training set.
        """
        if self.trainer is None or not isinstance(self.sampler, EpochSampler):
            return {}
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop
        epoch: Any = trainer.fit_loop.epoch_progress.current
        batch: Any = loop.batch_progress.current
        # Between two epochs the count of batches is still that of the epoch before.
        done = batch.processed if epoch.started > epoch.processed else 0
        finished = done > 0 and done >= trainer.num_training_batches
        # Gradients of an unfinished step are in no checkpoint: its batches are to be read again.
        kept = done if finished else done - done % trainer.accumulate_grad_batches
        # Whether Lightning has yet to finish with the last batch: its callbacks, its validation, its logging.
        pending = done > 0 and kept == done and (batch.completed < batch.processed or trainer.validating)
        return {
            "epoch": epoch.processed,
            "consumed": kept * (self.batch_size or 1) * self.sampler.num_replicas,
            "finished": finished,
            "validated": not (pending and self._validation_missing()),
            "stepped": loop._batches_that_stepped + pending,
            "samples": self.sampler.length,
        }

    def _validation_missing(self) -> bool:
        """Whether a validation falls due at the batch just trained on and has not come to its end."""
        assert self.trainer is not None
        fit = self.trainer.fit_loop
        if self.trainer.validating:
            progress = fit.epoch_loop.val_loop.batch_progress
            whole = progress.is_last_batch and progress.current.completed == progress.current.ready
            # Whole, but stopped by an exception: what comes after the last batch, the scores, is missing.
            return not whole or self.trainer.state.status == TrainerStatus.INTERRUPTED
        return fit._data_fetcher is not None and fit.epoch_loop._should_check_val_fx(fit._data_fetcher)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved position. Lightning calls this before the first batch of a resumed run.

        Raises:
            UserError: If the checkpoint was saved inside an epoch over another number of samples.
        """
        if self.trainer is None or not isinstance(self.sampler, EpochSampler) or not state:
            return
        if state["consumed"] and state["samples"] != self.sampler.length:
            raise UserError(
                f"the checkpoint was saved inside an epoch over {state['samples']} training samples, "
                f"there are now {self.sampler.length}: resume with the same data, fold and folds, or start a new run."
            )
        self.sampler.resume(state["epoch"], state["consumed"])
        if state["consumed"]:
            _set_inside_epoch(self.trainer, state, self._batches_done(state))
        else:
            _set_between_epochs(self.trainer)

    def _batches_done(self, state: dict[str, Any]) -> int:
        """Batches of the epoch that lie behind, so counted that its last batch is the last one to read.

        The batch size or the number of ranks may have changed since the checkpoint.
        """
        assert self.trainer is not None
        assert isinstance(self.sampler, EpochSampler)
        combined = self.trainer.fit_loop._combined_loader
        assert combined is not None
        limit = combined.limits[0] if combined.limits else len(self)
        if state["finished"]:
            return int(min(len(self), limit))
        left = -(-max(self.sampler.length - state["consumed"], 0) // self.sampler.num_replicas)
        size = self.batch_size or 1
        return len(self) - (left // size if self.drop_last else -(-left // size))


def _set_inside_epoch(trainer: lightning.Trainer, state: dict[str, Any], batches: int) -> None:
    """Bring Lightning's counters to "this epoch has begun, so many batches are done"."""
    loop = trainer.fit_loop.epoch_loop
    epochs: Any = trainer.fit_loop.epoch_progress
    for tracker in (epochs.total, epochs.current):
        _set(tracker, tracker.processed)
        tracker.ready += 1
        tracker.started += 1
    progress: Any = loop.batch_progress
    _set(progress.total, progress.total.processed + batches - progress.current.processed)
    _set(progress.current, batches)
    progress.is_last_batch = state["finished"]
    loop._batches_that_stepped = state["stepped"] - 1  # Lightning adds one on both of the ways below
    validation: Any = loop.val_loop.batch_progress
    validation.reset()
    if state["validated"]:
        # Stopped inside the next batch: Lightning starts with that one, past any validation.
        progress.total.ready = progress.total.started = progress.total.processed + 1
    else:
        # Stopped inside the first batch of a validation: Lightning runs that validation first.
        validation.total.ready = validation.total.started = 1


def _set_between_epochs(trainer: lightning.Trainer) -> None:
    """Bring Lightning's counters to "so many epochs are done, the next has not begun"."""
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress
    for tracker in (epochs.total, epochs.current):
        _set(tracker, tracker.processed)
    # Not through the loop's own property, which says "restarting" whenever max_steps is set.
    _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]


def _set(tracker: Any, count: int) -> None:
    """Set a tracker to so many things done and none under way."""
    tracker.ready = tracker.started = tracker.processed = tracker.completed = count
