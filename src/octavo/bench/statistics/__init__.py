"""Statistics of a measurement: numbers in, estimates with their uncertainty out. Pure; knows nothing of requests or files.

| file | it answers |
|---|---|
| `dependence.py` | how much do neighbours in a series resemble each other, how many independent ones is it worth |
| `working_model.py` | the same for the tail of a series, where it has too few values to say so itself |
| `mean.py`, `quantile.py` | a mean, a quantile, each with its confidence interval |
| `warm_up.py`, `trend.py` | where the steady state begins; whether it is one |
| `permutation.py`, `effect.py` | whether two labels differ, and by how much |
| `binomial_check.py` | is a share of requests under a limit, and how many requests does it take to say so |
| `fairness.py`, `knee.py` | Jain's index; where a latency-load curve bends |
"""
