"""Layer `predictors`: learn risk from signals and hidden states (torch for fitting, NumPy for every step)."""

PREDICTORS = {
    "recurrent": "failsight.predictors.recurrent:RecurrentPredictor",
    "salus-mlp": "failsight.predictors.mlp:MlpPredictor",
    "blend": "failsight.predictors.blend:BlendPredictor",
    "ledger": "failsight.predictors.ledger:LedgerPredictor",
    "gru-td": "failsight.predictors.network:GruTd",
    "gru-td-hidden": "failsight.predictors.network:GruTdHidden",
    "signal-mlp": "failsight.predictors.network:SignalMlp",
    "mist-mlp": "failsight.predictors.network:MistMlp",
    "safe-mlp": "failsight.predictors.network:SafeMlp",
    "safe-lstm": "failsight.predictors.network:SafeLstm",
    "actprobe": "failsight.predictors.network:ActProbe",
    "mahalanobis": "failsight.predictors.distances:Mahalanobis",
    "euclidean-knn": "failsight.predictors.distances:EuclideanKnn",
    "cosine-knn": "failsight.predictors.distances:CosineKnn",
    "pca-kmeans": "failsight.predictors.distances:PcaKmeans",
    "rnd": "failsight.predictors.novelty:Rnd",
    "logpzo": "failsight.predictors.novelty:LogpZo",
    "fiper": "failsight.predictors.novelty:FiperPredictor",
    "scalar": "failsight.predictors.scalars:ScalarPredictor",
    "task-clock": "failsight.predictors.baselines:TaskClockPredictor",
    "random": "failsight.predictors.baselines:RandomPredictor",
    "clock": "failsight.predictors.baselines:ClockPredictor",
    "task-prior": "failsight.predictors.baselines:TaskPriorPredictor",
}
"""Registered predictors: name -> streaming class with `from_arrays`."""
