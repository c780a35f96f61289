"""What Optuna 5 can do and offers under private names alone; nothing else here uses those."""

import optuna
from optuna.trial import FrozenTrial


def trial_of(study: optuna.Study, stored: FrozenTrial) -> optuna.Trial:
    """Return a handle on a stored trial, to go on with it or to write beside it."""
    # Optuna gives a handle to whoever asked for the trial; `Study.tell` takes a number instead, but
    # nothing public suggests or sets attributes by one, nor tells a trial's id in the storage.
    return optuna.Trial(study, stored._trial_id)


def next_waiting(study: optuna.Study) -> optuna.Trial | None:
    """Take the first trial that waits in the queue; None where none does."""
    # `Study.ask` takes it too, but makes a new trial where none waits: whoever looks first and asks
    # then may lose the last one to a worker of another home in between.
    trial_id = study._pop_waiting_trial_id()
    return None if trial_id is None else optuna.Trial(study, trial_id)
