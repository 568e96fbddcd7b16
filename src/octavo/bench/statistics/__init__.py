"""Statistics of a measurement: numbers in, estimates with their uncertainty out. Pure; knows nothing of requests or files.

| file | method for |
|---|---|
| `dependence.py` | autocorrelation of a series, effective sample size |
| `working_model.py` | the same for the tail of a series, where it has too few values to say so itself |
| `mean.py`, `quantile.py` | a mean, a quantile, each with its confidence interval |
| `warm_up.py`, `trend.py` | start of the steady state; test for drift |
| `permutation.py`, `effect.py` | test of a difference between two labels; its size |
| `binomial_check.py` | share of requests under a limit, number of requests that show it |
| `fairness.py`, `knee.py` | Jain's index; knee of a latency-load curve |
"""
