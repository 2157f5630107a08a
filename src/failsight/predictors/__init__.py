"""Layer `predictors`: learn risk from signals and hidden states (torch for fitting, NumPy for every step)."""

PREDICTORS = {
    "recurrent": "failsight.predictors.recurrent:RecurrentPredictor",
    "salus-mlp": "failsight.predictors.mlp:MlpPredictor",
    "clock": "failsight.predictors.baselines:ClockPredictor",
    "task-prior": "failsight.predictors.baselines:TaskPriorPredictor",
}
"""Registered predictors: name -> streaming class with `from_arrays`."""
