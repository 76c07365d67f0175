"""Findings on curves, layers, batches and descents, for the tables of findings.py.

Fields of a finding: name, verdict, meaning, threshold, source, what to do. Numbers are constants of the rules.
"""

from __future__ import annotations

import importlib

MODULES = (
    "batch_losses", "chance", "curve", "descent", "forecast", "generalization", "layers", "noise_scale", "range_test",
    "rate_schedule", "regression_descent", "stopping", "training",
)  # fmt: skip
"""Modules of the rules, by which their constants are named."""

TABLES = {
    "curves": """
not_finite | not finite | A loss, a weight or a gradient is NaN or infinite, although the loss did not grow before.
Weights are also looked at where the loss is finite: a ReLU can turn NaN into 0, and the network into a constant | one
value, at any step | IEEE 754 | NaN or very large values in the data; else a ninth of the learning rate

not_finite | diverges | The loss grew until it was no number | not finite, and 100 times the first one just before |
IEEE 754 | a ninth of the learning rate

divergence | diverges | The training loss ends far above its start | the median of the last quarter of the epochs is
over {descent.FAR_ABOVE:g} times the mean of the first epoch, or {descent.BLOWN_UP:g} times the first batches | noise
does not double the mean of an epoch | a third of the learning rate

oscillation | oscillates | The training loss jumps up and down from epoch to epoch | it rises in over
{descent.RISES:.0%} of the epochs, on average by over {descent.JUMP[0]:.0%} of its level and {descent.JUMP[1]:.0%} of
its fall | half of the epochs rise in noise, few in a descent; Bengio 2012, Practical recommendations for
gradient-based training, section 3.1.1 (rate) | a third of the learning rate, or larger batches

speed | learns slowly | The training loss falls steadily, and as much is still to come: the rate is too small, or the
training too short | its fall from quarter to quarter of the epochs shrinks to no less than {descent.SLOWLY:.0%}, and
twice the epochs would bring over {descent.MUCH[0][0]:.0%} of the loss, or {descent.MUCH[1][1]:.0%} of the fall so
far; a problem from {descent.LARGE_FALL:.0%} of the loss on | a geometric series; Bengio 2012, section 3.3 |
{descent.LARGER[0]:g} to {descent.LARGER[1]:g} times the learning rate, or the epochs

trend | still falling | The training loss still fell at the end, too little to be "learns slowly" | by over
{training.LEVEL:.0%} in the last tenth of the epochs; a problem if there are fewer than {curve.MIN_EPOCHS} epochs, it
fell by {training.FAST:.0%}, and the result is below {training.UNFINISHED:g} | own rule | twice the learning rate, or
twice the epochs

trend | rising | The training loss rose at the end | by over {training.LEVEL:.0%} in the last tenth of the epochs |
own rule | a third of the learning rate

trend | level | The training loss did not change at the end | less than {training.LEVEL:.0%} | own rule | nothing

plateau | stopped learning | The validation loss (without validation: the training loss) stopped improving long before
the end | the last {generalization.PLATEAU:.0%} of the epochs improve it by no more than {training.LEVEL:.0%},
{generalization.NEGLIGIBLE:.1%} of its fall, and three standard deviations of its noise | own rule | fewer epochs: as
good, and cheaper

plateau | learns nothing | The loss never fell below its start | as above, and the whole fall is within the noise; not
for a fit that continues an earlier one | own rule | another learning rate or initialisation

chance | at chance | A classifier is no better than always choosing the most frequent class | the accuracy at the end
is within {chance.CHANCE:.0%} of the way from guessing to perfect, after at least {chance.FEWEST_EPOCHS} epochs; not
where one class has over {chance.MOST_FREQUENT:.0%} of the samples | counting; Karpathy, notes of CS231n, Neural
networks 3 (updates of {chance.HARDLY:g} are too small) | depends on the loss: a larger rate if it creeps, a smaller
one if it jumps or is above that of guessing, else another initialisation

chance | explains nothing | A regression is no better than always predicting the mean of the targets | it explains
less than {chance.NOTHING:.0%} of their variance, after at least {chance.FEWEST_EPOCHS} epochs | definition of R² |
standardised inputs and targets, or another learning rate

overfit | overfits | The validation loss rises while the training loss falls | means over a sixth of the epochs rise
from their lowest by {generalization.OVERFIT_RISE:.0%} and eight standard deviations of their noise; a problem if the
accuracy falls by {generalization.WORSE:.0%}, or, without one, the loss rises by {generalization.LARGE_RISE:.0%} |
Prechelt 1998, Early stopping - but when?, section 2 | early stopping; then dropout or a smaller network

generalization | does not generalise | The training data are learned, and nothing about the validation data: labels do
not belong to the inputs, or validation is of another kind | over {generalization.LEARNS:.0%} of the way from a
constant prediction to a perfect one in training, under {generalization.NOTHING_LEARNED:.0%} in validation | Zhang et
al. 2017, Understanding deep learning requires rethinking generalization, section 2 | check that inputs and labels are
still of the same samples

moving_averages | averages not ready | BatchNormalization predicts with averages that are still partly those it began
with | momentum to the power of the steps is over {generalization.NOT_ARRIVED:g}, and validation is not as good as
training | Ioffe and Szegedy 2015, Batch normalization, section 3.1 | `momentum=0.9`, smaller batches, or more epochs

unbounded_loss | loss without end | The loss has no lowest value for these targets, and falls for ever | it ends
negative, {training.UNBOUNDED:g} times as far from zero as it began | a loss is minimised only if it has a minimum |
a square or an absolute value of the error

rate_schedule | unsuitable schedule | The learning rate, as it was recorded, falls before anything is learned, or is
warmed up to the end | below {rate_schedule.GONE:.0%} of its largest value after {rate_schedule.SOON:.0%} of the steps,
or to {rate_schedule.FALLEN:.0%} of the first within an epoch, for good, or growing on a straight line; not where the
result is at {rate_schedule.GOOD_ENOUGH:g} or above, nor by `ReduceLROnPlateau` with patience | Keras' documentation of
schedules: they count steps | steps instead of epochs, a slower fall, a shorter warm-up

stopped_early | stopped too early | EarlyStopping ended a training that was still learning | the loss fell by over
{stopping.STILL_FALLS:.0%} in the last epoch, and the result is below {stopping.GOOD_ENOUGH:g} | Keras' documentation
of `EarlyStopping` | more `patience`, `min_delta=0`

few_epochs | too few epochs | A training of fewer than {curve.MIN_EPOCHS} epochs ends while its losses fall fast | by
{stopping.FALLS_FAST:.0%} in the last epoch (of a single one: its last quarter), that of validation, too, and the result
is below {stopping.GOOD_ENOUGH:g} | own rule | {stopping.MORE} times the epochs

metric_that_is_missing | missing metric | A callback watches a metric that no epoch has, and never acts | its name |
Keras' warning "conditioned on metric ... which is not available" | the name that is meant
""",
    "layers": """
layers | exploding updates | Steps replace the weights of a layer | the median update of the last quarter of the steps
is over {layers.EXPLODING:.0%} of the tensor ({layers.HEALTHY:.1%} is healthy) | Karpathy, notes of CS231n, Neural
networks 3 | a third of the learning rate, or `clipnorm=1`

layers | layers stay 0 | Weights began at 0, and no gradient reaches them | the norm is 0 throughout | Goodfellow,
Bengio and Courville 2016, Deep Learning, section 8.4 | a random initialisation

layers | layers stand still | Weights do not move any more | no update in the last quarter of the steps; the rate is
the cause if the loss of a batch jumped to {layers.JUMP:g} times the first ones, else the initialisation | Lu et al.
2020, Dying ReLU and initialization | a ninth of the learning rate; else He initialisation or leaky ReLU

layers | vanishing updates | A layer hardly learns while others do | its median update is below
{layers.VANISHING[0]:.0%} of the largest and below {layers.VANISHING[1]:g} of the tensor | Glorot and Bengio 2010,
Understanding the difficulty of training deep feedforward neural networks | ReLU with He initialisation, or batch
normalisation

dead_units | dead units | ReLU units are 0 for every sample, and cannot learn | over {layers.DEAD:.0%} of the units of
a layer | Karpathy, notes of CS231n, Neural networks 1 | He initialisation, leaky ReLU, or a smaller rate

saturated_units | saturated units | Outputs of sigmoid or tanh are at the ends of their range, where hardly any
gradient passes | over {layers.SATURATED:.0%} of the outputs of a layer | Glorot and Bengio 2010, Understanding the
difficulty of training deep feedforward neural networks | standardised inputs, Glorot initialisation
""",
    "batch": """
noise_scale | a larger batch pays | The gradient noise scale B is the batch size from which larger batches save few
steps; here noise dominates the gradients | B is at least {noise_scale.FAR_BELOW:g} times the batch | McCandlish et
al. 2018, An empirical model of large-batch training, sections 2.2 and 2.3 | a batch of about B, with a larger rate,
if the hardware has room

noise_scale | a smaller batch does | The batches are mostly redundant | the batch is at least
{noise_scale.FAR_ABOVE:g} times B | McCandlish et al. 2018, An empirical model of large-batch training, sections 2.2
and 2.3 | a batch of about B: as much from each sample

noise_scale | a larger batch may pay | B is larger than the batch, by less than its own uncertainty |
{noise_scale.FAR_ABOVE:g} to {noise_scale.FAR_BELOW:g} times | McCandlish et al. 2018, An empirical model of
large-batch training, sections 2.2 and 2.3 | nothing is clearly better

noise_scale | batch size is fine | No other size is clearly better | between the bounds above | McCandlish et al.
2018, An empirical model of large-batch training, sections 2.2 and 2.3 | nothing

noise_scale | {noise_scale.UNCERTAIN} | There is an estimate, but no verdict, and no finding | fewer than
{noise_scale.KNOWN:.0%} of the parts of the training have an estimate, the mean product of gradients is under
{noise_scale.SURE:g} standard errors, or the rate grows to the end | McCandlish et al. 2018, An empirical model of
large-batch training, sections 2.2 and 2.3 | nothing

noise_scale | {noise_scale.UNKNOWN} | There is no estimate, and no finding | no gradients, nor weights at every step
of plain SGD | McCandlish et al. 2018, An empirical model of large-batch training, sections 2.2 and 2.3 | nothing
""",
    "live": """
divergence | diverges | The losses of single batches have grown, within an epoch | the median of {batch_losses.WINDOW}
batches is {descent.BLOWN_UP:g} times that of the first three and {batch_losses.DEVIATIONS:g} standard deviations of
the noise above it, and does not fall back | own rule | a third of the learning rate

not_finite | not finite | A loss or a gradient of a step is NaN or infinite | one value; gradients that a loss scale
makes overflow do not count | IEEE 754 | NaN or very large values in the data; else a smaller rate

forecast | will not learn | The loss was never below its start, and will not be by the last planned epoch | no median
of three epochs is {forecast.LEARNED:.0%} below the loss before the first step, and the slope, with two standard
errors, does not reach that; from {forecast.EARLIEST[0]:.0%} of the epochs on, {forecast.EARLIEST[1]:.0%} with a
schedule, and at least {curve.MIN_EPOCHS} | own rule | a smaller rate if it is above its start; else another rate or
initialisation

forecast | brings nothing more | The rest of the planned epochs will not lower the loss | the low end of the 90 %
interval of the forecast, widened by {forecast.CAUTION:g}, is no improvement, for {forecast.LASTS:.0%} of the epochs;
not where the rate changes | Domhan et al. 2015, Speeding up automatic hyperparameter optimization; Romano et al.
2019, Conformalized quantile regression | end here
""",
    "regression": """
arrival | has arrived | The descent is at the minimum | the mean cost of the last tenth of the path is within
{regression_descent.ARRIVED_WITHIN:.0%} of the lowest | the cost surface is known exactly | fewer epochs, if it
arrived early

arrival | crawls | It is not there, and most of what is missing is distance | the cost at the mean point has at least
half of the excess | the cost surface is known exactly | a larger learning rate, standardised features, or more epochs

arrival | hovers | It jumps around the minimum | less than half of the excess is distance | the cost surface is known
exactly | a smaller rate, or larger batches

arrival | diverges | The cost grows | it ends above its start and above all of the first half, or is not finite | the
cost surface is known exactly | a smaller rate

distance | at the minimum | Where the path ends, compared with least squares | the cost is within
{regression_descent.ARRIVED_WITHIN:.0%} of the lowest | least squares | nothing

distance | off the minimum | The same, further away | over {regression_descent.ARRIVED_WITHIN:.0%} | least squares |
see `arrival`

overshoot | overshoots | Each step jumps over the minimum and back | over {regression_descent.REVERSALS:.0%} of
consecutive updates reverse, on the way to the minimum | LeCun et al. 1998, Efficient backprop, section 4 | a smaller
rate

overshoot | zig-zags | It bounces between the walls of a valley, along which it crawls | the same, and it crawls |
LeCun et al. 1998, Efficient backprop, section 4 | standardised features; a smaller rate does not help

overshoot | does not overshoot | Updates seldom reverse | fewer | LeCun et al. 1998, Efficient backprop, section 4 |
nothing

curvature | ill-conditioned | The cost changes so much more with one parameter that the other hardly moves | the
condition number is over {regression_descent.ILL_CONDITIONED:g} | Nesterov 2004, Introductory lectures on convex
optimization, section 2.1.5 | standardise the feature, which makes it 1

curvature | well-conditioned | Both parameters move; the largest stable rate is in the text | below that | Nesterov
2004, Introductory lectures on convex optimization, section 2.1.5 | nothing
""",
    "next": """
next_try | try | The first suggestion of the findings, with its changes | the first finding that has one, problems
before hints; of a regression, the rate that would arrive in a third of the steps | findings on curves in a fixed
order, after those on the program | this

next_try | nothing | No finding suggests anything | - | - | nothing

range_test | falls, then diverges | Of a learning-rate range test: where the loss falls fastest, and from where it
diverges | the smoothed loss is {range_test.DIVERGED:g} times its lowest | Smith 2017, Cyclical learning rates,
section 3.3 | the rate of the steepest fall

range_test | falls | The same, without divergence up to the largest rate | a fall of {range_test.FALL:g} standard
deviations of its noise | Smith 2017, Cyclical learning rates, section 3.3 | the rate of the steepest fall

range_test | no fall | The loss never falls | less than that | Smith 2017, Cyclical learning rates, section 3.3 |
lower rates, more epochs, or another model
""",
}
"""Table -> findings, with a blank line between them."""


def tables() -> dict[str, list[list[str]]]:
    """List the fields of each finding, by table."""
    modules = {name: importlib.import_module(f"mlflow_hp.analysis.diagnosis.{name}") for name in MODULES}
    return {
        table: [" ".join(finding.split()).format(**modules).split(" | ") for finding in text.strip().split("\n\n")]
        for table, text in TABLES.items()
    }
