"""Where the training of a run stands: what its loop goes through, and what a checkpoint keeps."""

from lorastudy.store.records import Record


class Progress(Record):
    """Where training stands between two optimizer steps.

    Sums of an epoch are of the one that the next micro-batch belongs to, dropout on.
    """

    step: int = 0  # optimizer steps done
    epoch_sum_nats: float = 0.0
    epoch_n_tokens: int = 0
    epoch_sum_of_means: float = 0.0  # of the micro-batches' means
    epoch_n_micro_batches: int = 0
    epoch_seconds: float = 0.0
    train_tokens: int = 0  # scored targets trained on, all epochs
    train_seconds: float = 0.0  # spent in optimizer steps, all epochs


class EndedEpoch(Record):
    """What training reports about an epoch; its record follows after validation."""

    epoch: int  # from 1
    train_loss: float  # running mean over the epoch, dropout on, nats per target
    learning_rate: float  # of the last optimizer step
    train_seconds: float  # optimizer steps of this epoch only


class TrainerState(Progress):
    """`trainer.json` of a checkpoint: where training stands, and what the run took so far."""

    total_seconds: float  # of the run until this checkpoint, including evaluation
    peak_memory_bytes: dict[str, int]
    ended_epoch: EndedEpoch | None  # trained, but perhaps not yet validated

    @property
    def progress(self) -> Progress:
        """The part from which training continues."""
        return Progress(**self.model_dump(include=set(Progress.model_fields)))
