# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Results of runs
#
# Run the cells from top to bottom with Shift+Enter, then change them as you like: nothing here writes to a run.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from lightning_hpc import load
from lightning_hpc.cka import compare
from lightning_hpc.results import read

# %% [markdown]
# ## Read
#
# `read("runs")` takes all runs of the project, `read("runs/wide")` those of one experiment. Runs may still be going on.

# %%
results = read("runs")
print(len(results), "runs")

# %% [markdown]
# `results.table` is a table of pandas with one row for each run. Of the settings it has those that differ between runs
# or that somebody has asked for.

# %%
results.table[["experiment", "run", "state", *results.settings, *results.metrics]]

# %% [markdown]
# How many runs are done, and why others have failed:

# %%
results.table[["state", "reason"]].value_counts(dropna=False)

# %% [markdown]
# ## Filter
#
# `where` takes a [query of pandas](https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.query.html). A name
# with a dot or a slash stands in backquotes, as in ``"`model.optimizer.lr` < 0.01"``.

# %%
done = results.where("state == 'done'")
print(len(done), "of", len(results), "runs are done")

# %% [markdown]
# The metric by which the runs have chosen their best checkpoints; put the name of another one here if you like.

# %%
metric = done.table["monitor"].iloc[0]
smaller_is_better = done.table["mode"].iloc[0] == "min"
print(metric, "should be", "small" if smaller_is_better else "large")

# %% [markdown]
# The best runs first, by the last value of the metric:

# %%
ranking = done.table.sort_values(metric, ascending=smaller_is_better)
ranking[["run", *done.settings, metric]].head(10)

# %% [markdown]
# ## Curves
#
# `curves` has one row for each value that was logged: run, step, epoch, seconds, metric, value.

# %%
curves = done.curves
curves.head()

# %% [markdown]
# The metric of the five best runs. Use `"seconds"` in place of `"step"` to see what a result has cost.

# %%
figure, axes = plt.subplots()
for folder in ranking.index[:5]:
    curve = curves[(curves["run"] == folder) & (curves["metric"] == metric)]
    axes.plot(curve["step"], curve["value"], marker=".", label=Path(folder).name)
axes.set(xlabel="step", ylabel=metric)
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Compare two runs
#
# What differs between the settings of the best run and those of the worst:

# %%
best, worst = ranking.index[0], ranking.index[-1]
settings = done.table[done.settings].astype(object)
settings.loc[best].compare(settings.loc[worst], result_names=("best", "worst"))

# %% [markdown]
# ## CKA map
#
# `load` gives a run's model, at its best checkpoint, and its data.

# %%
best_run, worst_run = load(best), load(worst)
pd.Series(best_run.metrics)

# %% [markdown]
# CKA says how alike two layers represent the same samples: 1 for the same up to rotation and scale, about 0 for
# unrelated ones.

# %%
batches = best_run.data.val_dataloader()
cka = compare(best_run.model, worst_run.model, batches, max_batches=10, labels=("best", "worst"))
cka.figure()

# %% [markdown]
# ## Which settings matter?
#
# Two answers, since each can be wrong, for runs whose settings differ, such as those of a sweep. Below about 20 runs
# chance looks like importance. Words get numbers in the order in which they appear.

# %%
measured = done.table.dropna(subset=[metric])
values = measured[metric]
searched = [key for key in done.settings if key != "trial" and measured[key].nunique() > 1]
numbers = measured[searched].apply(lambda column: column if column.dtype.kind in "ifb" else pd.factorize(column)[0])
numbers = numbers.fillna(numbers.median())
print(len(values), "runs,", len(searched), "settings that differ")

# %% [markdown]
# Spearman's rank correlation sees trends, up (positive) or down (negative). A random forest sees any shape, and
# settings that matter only together; its importance is what it loses in R² if one setting is shuffled.

# %%
forest = RandomForestRegressor(random_state=0).fit(numbers, values)
shuffled = permutation_importance(forest, numbers, values, n_repeats=20, random_state=0)
importance = pd.DataFrame(
    {
        "rank correlation": numbers.corrwith(values, method="spearman"),
        "random forest": pd.Series(shuffled.importances_mean, index=numbers.columns),
    }
)
importance.sort_values("random forest", ascending=False)
