# %% [markdown]
# # The scores of a search, with their spread
#
# Twelve candidates in five folds. Each fold is a point, the bar is the mean: candidates whose folds overlap cannot be
# told apart by this search.

# %%
import matplotlib.pyplot as plt
import mlflow
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.analysis import from_cv_results

x, y = load_digits(return_X_y=True)
grid = {"eta0": [0.001, 0.01, 0.1, 1.0], "alpha": [1e-5, 1e-3, 1e-1]}
estimator = SGDClassifier(learning_rate="constant", eta0=0.01, random_state=0)
search = GridSearchCV(estimator, grid, cv=5)
with mlflow.start_run(), mlflow_hp.record_search(search):
    search.fit(x / 16, y)

# %%
results = from_cv_results(search.cv_results_)
order = results.ranks.argsort()
figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
for place, number in enumerate(order):
    folds = results.fold_scores[number]
    axes.plot([place] * len(folds), folds, "o", color="#1f5fa8", alpha=0.6)
    axes.plot([place - 0.3, place + 0.3], [folds.mean()] * 2, color="#d9731a")
labels = [f"{results.candidates[number]['eta0']:g}\n{results.candidates[number]['alpha']:g}" for number in order]
axes.set_xticks(range(len(order)), labels)
axes.set(xlabel="eta0, and alpha below it; best on the left", ylabel="accuracy of a fold")
print("best:", search.best_params_)
figure.savefig("grid_search.png", dpi=100)
