//! Percentiles of samples, and medians over rounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A figure over the rounds. Its unit is in the name of the field that has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Each round's, in their order.
    pub rounds: Vec<f64>,
}

impl Spread {
    /// Takes one value of each round; at least one.
    pub fn of(rounds: Vec<f64>) -> Self {
        let sorted = sorted(rounds.clone());
        let (min, max) = (percentile(&sorted, 0.0), percentile(&sorted, 100.0));
        Self { median: median(&sorted), min, max, rounds }
    }

    /// Takes one value of each of the items, which are rounds.
    pub(super) fn over<T>(items: &[T], value: impl Fn(&T) -> f64) -> Self {
        Self::of(items.iter().map(value).collect())
    }
}

/// Samples of one round, sorted. The 99th percentile is the value that 99 % of them don't exceed (nearest
/// rank).
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Takes times, as milliseconds.
    pub(super) fn of_times(times: &[Duration]) -> Self {
        Self(sorted(times.iter().copied().map(millis).collect()))
    }

    /// The median.
    pub(super) fn p50(&self) -> f64 {
        median(&self.0)
    }

    /// The 99th percentile.
    pub(super) fn p99(&self) -> f64 {
        percentile(&self.0, 99.0)
    }

    /// The largest.
    pub(super) fn max(&self) -> f64 {
        percentile(&self.0, 100.0)
    }
}

/// A time in milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// How many in a second.
#[allow(clippy::cast_precision_loss)]
pub(super) fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Sorts; figures are never NaN, and if one were it would be last.
fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_go_by_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let samples = Samples::of_times(&times);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(samples.p50(), 100.5), "{}", samples.p50());
        assert!(close(samples.p99(), 198.0), "{}", samples.p99());
        assert!(close(samples.max(), 200.0));
    }

    #[test]
    fn a_spread_keeps_the_rounds_in_their_order() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 3.0, rounds: vec![3.0, 1.0, 2.0] });
    }
}
